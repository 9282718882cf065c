//! Conversion of bytes to the values of a tensor and back, according to a [`PixelFormat`].

use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::system::simd_dispatch;

impl PixelFormat {
    /// Converts the interleaved bytes of one image to values in the layout of the format. `pixels`
    /// and `values` have equal lengths.
    pub fn normalize(&self, pixels: &[u8], values: &mut [f32]) {
        debug_assert_eq!(pixels.len(), values.len());
        match self.channels {
            Channels::Rgb => simd_dispatch(|| normalize::<3>(self, pixels, values)),
            Channels::Gray => simd_dispatch(|| normalize::<1>(self, pixels, values)),
        }
    }

    /// Converts values in the layout of the format to the interleaved bytes of one image: the
    /// inverse of [`normalize`](Self::normalize), rounded and clamped to 0..255. NaN becomes 0.
    pub fn denormalize(&self, values: &[f32]) -> Vec<u8> {
        match self.channels {
            Channels::Rgb => simd_dispatch(|| denormalize::<3>(self, values)),
            Channels::Gray => simd_dispatch(|| denormalize::<1>(self, values)),
        }
    }
}

#[inline(always)]
fn normalize<const N: usize>(format: &PixelFormat, pixels: &[u8], values: &mut [f32]) {
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        TensorLayout::Nhwc => {
            for (value, pixel) in values.chunks_exact_mut(N).zip(pixels.chunks_exact(N)) {
                for channel in 0..N {
                    value[channel] =
                        f32::from(pixel[channel]) * affine[channel].0 + affine[channel].1;
                }
            }
        }
        TensorLayout::Nchw => {
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
fn denormalize<const N: usize>(format: &PixelFormat, values: &[f32]) -> Vec<u8> {
    let mut pixels = vec![0; values.len()];
    // A conversion from float to integer saturates, and converts NaN to 0.
    let byte = |value: f32, (scale, offset): (f32, f32)| ((value - offset) / scale).round() as u8;
    let affine: [(f32, f32); N] = std::array::from_fn(|channel| format.affine(channel));
    match format.layout {
        TensorLayout::Nhwc => {
            for (pixel, value) in pixels.chunks_exact_mut(N).zip(values.chunks_exact(N)) {
                for channel in 0..N {
                    pixel[channel] = byte(value[channel], affine[channel]);
                }
            }
        }
        TensorLayout::Nchw => {
            let planes = values.chunks_exact((values.len() / N).max(1));
            for (channel, (plane, channel_affine)) in planes.zip(affine).enumerate() {
                for (pixel, &value) in pixels.chunks_exact_mut(N).zip(plane) {
                    pixel[channel] = byte(value, channel_affine);
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
}
