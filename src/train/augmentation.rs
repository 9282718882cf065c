//! The augmentation of records: crops, flips, scales and corruption.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::corruption::Corruption;
use crate::image::PixelFormat;
use crate::image::reflection::reflected;
use crate::model::FeatureInput;
use crate::train::config::training::Flips;

/// The operations that convert records into the input of the network.
pub(crate) struct Augmentation {
    /// The type of the values of a record.
    pub values: InputValues,
    /// The corruptions, which are applied to the input in this order; the target stays clean.
    pub corruption: Vec<Corruption>,
    /// Side of the squares that are cut from images, in pixels.
    pub crop: Option<usize>,
    /// The range of the parts that are cut from images, if entire images are not used.
    pub zoom: Option<ZoomRange>,
    /// Number of squares or parts of each image in an epoch.
    pub crops: usize,
    /// Random flips of images.
    pub flips: Flips,
    /// The seed of the training.
    pub seed: u64,
}

/// The parts that are cut from images and resized to one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZoomRange {
    /// Height and width that parts are resized to.
    pub size: [usize; 2],
    /// The range of the height and the width of a part, as fractions of the image.
    pub share: [f32; 2],
}

/// The conversion of raw values into the values of a tensor.
pub(crate) enum InputValues {
    /// Pixels, converted to planes.
    Pixels(PixelFormat),
    /// Features.
    Features(FeatureInput),
}

/// A part of an image and its flips.
pub(super) struct Crop {
    pub(super) top: usize,
    pub(super) left: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) mirror: bool,
    pub(super) upside_down: bool,
    pub(super) transpose: bool,
}

impl Augmentation {
    pub(super) fn draw_crop(
        &self,
        [height, width, _]: [usize; 3],
        rng: &mut ChaCha8Rng,
        flip: bool,
    ) -> Crop {
        let (h, w) = self.crop.map_or((height, width), |crop| (crop, crop));
        let mut shift =
            |whole: usize, part: usize| rng.random_range(0..=whole.saturating_sub(part));
        let (top, left) = (shift(height, h), shift(width, w));
        let flips = if flip { self.flips } else { Flips::None };
        let mut coin = |allowed: bool| allowed && rng.random::<bool>();
        let all = flips == Flips::All;
        let (mirror, upside_down) = (coin(flips != Flips::None), coin(all));
        Crop {
            top,
            left,
            height: h,
            width: w,
            mirror,
            upside_down,
            transpose: coin(all && h == w),
        }
    }
}

impl Crop {
    /// Appends the pixels of the crop as planes of the format's values. An image that is smaller than
    /// its crop is extended by reflection.
    pub(super) fn write(
        &self,
        format: &PixelFormat,
        pixels: &[u8],
        [rows, columns, channels]: [usize; 3],
        out: &mut Vec<f32>,
    ) {
        // Only square crops are transposed, since height and width have to be the same.
        let line =
            |start: usize, len: usize, reversed: bool, whole: usize, stride: usize| -> Vec<usize> {
                let source_offset = |i: usize| {
                    reflected(
                        (start + if reversed { len - 1 - i } else { i }) as isize,
                        whole,
                    ) * stride
                };
                (0..len).map(source_offset).collect()
            };
        let down = line(
            self.top,
            self.height,
            self.upside_down,
            rows,
            columns * channels,
        );
        let right = line(self.left, self.width, self.mirror, columns, channels);
        for channel in 0..channels {
            let (scale, offset) = format.affine(channel);
            let table: [f32; 256] = std::array::from_fn(|byte| byte as f32 * scale + offset);
            let sample = format.sample_index(channel);
            let (outer, inner) = if self.transpose {
                (&right, &down)
            } else {
                (&down, &right)
            };
            for line_offset in outer {
                out.extend(inner.iter().map(|inner_offset| {
                    table[usize::from(pixels[line_offset + inner_offset + sample])]
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    /// Training, evaluation and runs convert an image to the same values.
    #[test]
    fn whole_image_is_converted_as_in_a_run() {
        for (channels, count) in [(Channels::Rgb, 3), (Channels::Bgr, 3), (Channels::Gray, 1)] {
            let format = PixelFormat {
                channels,
                range: [0.0, 255.0],
                mean: (1..=count).map(|value| value as f32).collect(),
                std: (1..=count).map(|value| 1.0 / value as f32).collect(),
                ..PixelFormat::default()
            };
            let (height, width) = (2, 3);
            let pixels: Vec<u8> = (0..height * width * count).map(|i| 11 * i as u8).collect();
            let mut expected = vec![0.0; pixels.len()];
            format.normalize(&pixels, &mut expected);
            let whole = Crop {
                top: 0,
                left: 0,
                height,
                width,
                mirror: false,
                upside_down: false,
                transpose: false,
            };
            let mut values = Vec::new();
            whole.write(&format, &pixels, [height, width, count], &mut values);
            assert_eq!(values, expected, "{channels:?}");
        }
    }
}
