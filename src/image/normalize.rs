//! Conversion of bytes to the values of a tensor and back, according to a [`PixelFormat`].

use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::system::simd_dispatch;

/// A sample of an image, 0 to 255.
pub(crate) trait Sample: Copy + Into<f64> {
    fn value(self) -> f32;
}

impl Sample for u8 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }
}

impl Sample for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl PixelFormat {
    /// Converts the interleaved bytes of one image, gray or RGB, to values in the layout and the
    /// order of channels of the format. `pixels` and `values` have equal lengths.
    pub fn normalize(&self, pixels: &[u8], values: &mut [f32]) {
        self.normalize_samples(pixels, values);
    }

    /// As [`normalize`](Self::normalize), for samples that may lie between two bytes.
    pub(crate) fn normalize_samples<T: Sample>(&self, pixels: &[T], values: &mut [f32]) {
        debug_assert_eq!(pixels.len(), values.len());
        match self.channels {
            Channels::Rgb => simd_dispatch(|| normalize::<3, false, T>(self, pixels, values)),
            Channels::Bgr => simd_dispatch(|| normalize::<3, true, T>(self, pixels, values)),
            Channels::Gray => simd_dispatch(|| normalize::<1, false, T>(self, pixels, values)),
        }
    }

    /// Converts values in the layout of the format to the interleaved bytes of one image, gray or
    /// RGB: the inverse of [`normalize`](Self::normalize), rounded and clamped to 0..255. NaN
    /// becomes 0.
    pub fn denormalize(&self, values: &[f32]) -> Vec<u8> {
        match self.channels {
            Channels::Rgb => simd_dispatch(|| denormalize::<3, false>(self, values)),
            Channels::Bgr => simd_dispatch(|| denormalize::<3, true>(self, values)),
            Channels::Gray => simd_dispatch(|| denormalize::<1, false>(self, values)),
        }
    }
}

/// [`PixelFormat::sample_index`] as a constant of the loop over pixels.
#[inline(always)]
const fn in_pixel<const N: usize, const REVERSED: bool>(channel: usize) -> usize {
    if REVERSED { N - 1 - channel } else { channel }
}

#[inline(always)]
fn normalize<const N: usize, const REVERSED: bool, T: Sample>(
    format: &PixelFormat,
    pixels: &[T],
    values: &mut [f32],
) {
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        TensorLayout::Nhwc => {
            for (value, pixel) in values.chunks_exact_mut(N).zip(pixels.chunks_exact(N)) {
                for channel in 0..N {
                    let sample = pixel[in_pixel::<N, REVERSED>(channel)].value();
                    value[channel] = sample * affine[channel].0 + affine[channel].1;
                }
            }
        }
        TensorLayout::Nchw => {
            let planes = values.chunks_exact_mut((pixels.len() / N).max(1));
            for (channel, (plane, (scale, offset))) in planes.zip(affine).enumerate() {
                let index = in_pixel::<N, REVERSED>(channel);
                for (value, pixel) in plane.iter_mut().zip(pixels.chunks_exact(N)) {
                    *value = pixel[index].value() * scale + offset;
                }
            }
        }
    }
}

#[inline(always)]
fn denormalize<const N: usize, const REVERSED: bool>(
    format: &PixelFormat,
    values: &[f32],
) -> Vec<u8> {
    let mut pixels = vec![0; values.len()];
    // A conversion from float to integer saturates, and converts NaN to 0.
    let byte = |value: f32, (scale, offset): (f32, f32)| ((value - offset) / scale).round() as u8;
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        TensorLayout::Nhwc => {
            for (pixel, value) in pixels.chunks_exact_mut(N).zip(values.chunks_exact(N)) {
                for channel in 0..N {
                    pixel[in_pixel::<N, REVERSED>(channel)] = byte(value[channel], affine[channel]);
                }
            }
        }
        TensorLayout::Nchw => {
            let planes = values.chunks_exact((values.len() / N).max(1));
            for (channel, (plane, channel_affine)) in planes.zip(affine).enumerate() {
                let index = in_pixel::<N, REVERSED>(channel);
                for (pixel, &value) in pixels.chunks_exact_mut(N).zip(plane) {
                    pixel[index] = byte(value, channel_affine);
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
    fn values_equal_the_formula_in_both_layouts() {
        let nchw = PixelFormat {
            mean: vec![0.5, 0.25, 0.0],
            std: vec![0.5, 0.25, 2.0],
            ..PixelFormat::default()
        };
        let nhwc = PixelFormat {
            layout: TensorLayout::Nhwc,
            ..nchw.clone()
        };
        let pixels = [0, 255, 255, 255, 0, 0];
        let mut values = [0.0; 6];
        nchw.normalize(&pixels, &mut values);
        assert_eq!(
            values.map(|value| (value * 10.0).round()),
            [-10.0, 10.0, 30.0, -10.0, 5.0, 0.0]
        );
        nhwc.normalize(&pixels, &mut values);
        assert_eq!(
            values.map(|value| (value * 10.0).round()),
            [-10.0, 30.0, 5.0, 10.0, -10.0, 0.0]
        );
    }

    #[test]
    fn every_byte_is_restored_from_its_value() {
        let imagenet = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
        let pixels: Vec<u8> = (0..=255)
            .flat_map(|byte| [byte, 255 - byte, byte ^ 85])
            .collect();
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            for (range, (mean, std)) in [
                ([0.0, 1.0], imagenet.clone()),
                ([-1.0, 1.0], (vec![], vec![])),
            ] {
                let format = PixelFormat {
                    layout,
                    range,
                    mean,
                    std,
                    ..PixelFormat::default()
                };
                let mut values = vec![0.0; pixels.len()];
                format.normalize(&pixels, &mut values);
                assert_eq!(format.denormalize(&values), pixels);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_clamped() {
        let format = PixelFormat {
            channels: Channels::Gray,
            ..PixelFormat::default()
        };
        assert_eq!(
            format.denormalize(&[-0.5, 0.6, 1.5, f32::NAN, f32::INFINITY]),
            [0, 153, 255, 0, 255]
        );
    }

    #[test]
    fn bgr_reverses_the_channels_of_rgb() {
        let format = |layout| PixelFormat {
            channels: Channels::Bgr,
            layout,
            range: [0.0, 255.0],
            mean: vec![103.0, 116.0, 123.0],
            std: vec![],
        };
        let pixels = [10, 20, 30, 40, 50, 60];
        let mut values = [0.0; 6];
        format(TensorLayout::Nchw).normalize(&pixels, &mut values);
        assert_eq!(values, [-73.0, -43.0, -96.0, -66.0, -113.0, -83.0]);
        assert_eq!(format(TensorLayout::Nchw).denormalize(&values), pixels);
        format(TensorLayout::Nhwc).normalize(&pixels, &mut values);
        assert_eq!(values, [-73.0, -96.0, -113.0, -43.0, -66.0, -83.0]);
        assert_eq!(format(TensorLayout::Nhwc).denormalize(&values), pixels);
        format(TensorLayout::Nhwc).normalize_samples(&[0.5, 0.0, 0.0], &mut values[..3]);
        assert_eq!(values[..3], [-103.0, -116.0, -122.5]);
    }
}
