//! From bytes to the values of a tensor, and back, as a [`PixelFormat`] says.

use crate::image::format::{Channels, Layout, PixelFormat};

impl PixelFormat {
    /// Writes the values of one image: `pixels` interleaved, `values` in the format's layout, as many as pixels.
    pub fn normalise(&self, pixels: &[u8], values: &mut [f32]) {
        debug_assert_eq!(pixels.len(), values.len());
        match self.channels {
            Channels::Rgb => normalise::<3>(self, pixels, values),
            Channels::Gray => normalise::<1>(self, pixels, values),
        }
    }

    /// The bytes of one image, interleaved, from values in the format's layout: the inverse of
    /// [`normalise`](Self::normalise), rounded and clamped to 0..255; what is no number becomes 0.
    pub fn denormalise(&self, values: &[f32]) -> Vec<u8> {
        match self.channels {
            Channels::Rgb => denormalise::<3>(self, values),
            Channels::Gray => denormalise::<1>(self, values),
        }
    }
}

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
