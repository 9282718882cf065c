//! From bytes to the values of a tensor, and back, as a [`PixelFormat`] says.

use crate::image::format::{Channels, Layout, PixelFormat};
use crate::machine::wide;

impl PixelFormat {
    /// Writes the values of one image: `pixels` interleaved, `values` in the format's layout, as many as pixels.
    pub fn normalise(&self, pixels: &[u8], values: &mut [f32]) {
        debug_assert_eq!(pixels.len(), values.len());
        match self.channels {
            Channels::Rgb => wide(|| normalise::<3>(self, pixels, values)),
            Channels::Gray => wide(|| normalise::<1>(self, pixels, values)),
        }
    }

    /// The bytes of one image, interleaved, from values in the format's layout: the inverse of
    /// [`normalise`](Self::normalise), rounded and clamped to 0..255; what is no number becomes 0.
    pub fn denormalise(&self, values: &[f32]) -> Vec<u8> {
        match self.channels {
            Channels::Rgb => wide(|| denormalise::<3>(self, values)),
            Channels::Gray => wide(|| denormalise::<1>(self, values)),
        }
    }
}

#[inline(always)]
fn normalise<const N: usize>(format: &PixelFormat, pixels: &[u8], values: &mut [f32]) {
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        Layout::Nhwc => {
            for (value, pixel) in values.chunks_exact_mut(N).zip(pixels.chunks_exact(N)) {
                for channel in 0..N {
                    value[channel] = f32::from(pixel[channel]) * affine[channel].0 + affine[channel].1;
                }
            }
        }
        Layout::Nchw => {
            let planes = values.chunks_exact_mut((pixels.len() / N).max(1));
            for (channel, (plane, (scale, offset))) in planes.zip(affine).enumerate() {
                for (value, pixel) in plane.iter_mut().zip(pixels.chunks_exact(N)) {
                    *value = f32::from(pixel[channel]) * scale + offset;
                }
            }
        }
    }
}

#[inline(always)]
fn denormalise<const N: usize>(format: &PixelFormat, values: &[f32]) -> Vec<u8> {
    let mut pixels = vec![0; values.len()];
    // A conversion from float to integer saturates, and takes NaN to 0.
    let byte = |value: f32, (scale, offset): (f32, f32)| ((value - offset) / scale).round() as u8;
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        Layout::Nhwc => {
            for (pixel, value) in pixels.chunks_exact_mut(N).zip(values.chunks_exact(N)) {
                for channel in 0..N {
                    pixel[channel] = byte(value[channel], affine[channel]);
                }
            }
        }
        Layout::Nchw => {
            let planes = values.chunks_exact((values.len() / N).max(1));
            for (channel, (plane, affine)) in planes.zip(affine).enumerate() {
                for (pixel, &value) in pixels.chunks_exact_mut(N).zip(plane) {
                    pixel[channel] = byte(value, affine);
                }
            }
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_the_formula_says_in_either_layout() {
        let nchw = PixelFormat { mean: vec![0.5, 0.25, 0.0], std: vec![0.5, 0.25, 2.0], ..PixelFormat::default() };
        let nhwc = PixelFormat { layout: Layout::Nhwc, ..nchw.clone() };
        let pixels = [0, 255, 255, 255, 0, 0];
        let mut values = [0.0; 6];
        nchw.normalise(&pixels, &mut values);
        assert_eq!(values.map(|value| (value * 10.0).round()), [-10.0, 10.0, 30.0, -10.0, 5.0, 0.0]);
        nhwc.normalise(&pixels, &mut values);
        assert_eq!(values.map(|value| (value * 10.0).round()), [-10.0, 30.0, 5.0, 10.0, -10.0, 0.0]);
    }

    #[test]
    fn every_byte_survives_there_and_back() {
        let imagenet = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
        let pixels: Vec<u8> = (0..=255).flat_map(|byte| [byte, 255 - byte, byte ^ 85]).collect();
        for layout in [Layout::Nchw, Layout::Nhwc] {
            for (range, (mean, std)) in [([0.0, 1.0], imagenet.clone()), ([-1.0, 1.0], (vec![], vec![]))] {
                let format = PixelFormat { layout, range, mean, std, ..PixelFormat::default() };
                let mut values = vec![0.0; pixels.len()];
                format.normalise(&pixels, &mut values);
                assert_eq!(format.denormalise(&values), pixels);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_clamped() {
        let format = PixelFormat { channels: Channels::Gray, ..PixelFormat::default() };
        assert_eq!(format.denormalise(&[-0.5, 0.6, 1.5, f32::NAN, f32::INFINITY]), [0, 153, 255, 0, 255]);
    }
}
