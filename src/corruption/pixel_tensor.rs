//! A mutable view of one record as pixels of any layout and scale, with the operations of the
//! corruptions.

use rand::Rng;
use rand_distr::StandardNormal;

use crate::image::pixel_format::{PixelFormat, TensorLayout};

/// A tensor that is corrupted in place. Values without pixels count as one channel from 0 to 1.
pub(super) struct PixelTensorMut<'a> {
    values: &'a mut [f32],
    format: Option<&'a PixelFormat>,
    pixels: usize,
    channels: usize,
}

/// The weights of red, green and blue in luma (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl<'a> PixelTensorMut<'a> {
    /// Creates a view of `values`, which must fill `size` (height, width).
    pub(super) fn new(
        values: &'a mut [f32],
        size: (usize, usize),
        format: Option<&'a PixelFormat>,
    ) -> Self {
        let channels = format.map_or(1, |format| format.channels.count());
        debug_assert_eq!(
            values.len(),
            size.0 * size.1 * channels,
            "the values do not fill an image of this size"
        );
        Self {
            values,
            format,
            pixels: size.0 * size.1,
            channels,
        }
    }

    /// Adds independent normally distributed values of standard deviation `sigma`, in 8-bit steps
    /// for pixels.
    pub(super) fn add_normal(&mut self, sigma: f32, rng: &mut impl Rng) {
        for channel in 0..self.channels {
            let deviation = sigma * self.levels(channel).0;
            for value in self.channel(channel) {
                *value += deviation * rng.sample::<f32, _>(StandardNormal);
            }
        }
    }

    /// Sets each value to 0 with probability `rate`.
    pub(super) fn mask(&mut self, rate: f32, rng: &mut impl Rng) {
        for channel in 0..self.channels {
            for value in self.channel(channel) {
                if rng.random::<f32>() < rate {
                    *value = 0.0;
                }
            }
        }
    }

    /// Sets each pixel to black or white with probability `rate`.
    pub(super) fn salt_and_pepper(&mut self, rate: f32, rng: &mut impl Rng) {
        for pixel in 0..self.pixels {
            if rng.random::<f32>() < rate {
                let shade = if rng.random::<bool>() { 1.0 } else { 0.0 };
                for channel in 0..self.channels {
                    let level = self.level(channel, shade);
                    *self.value(channel, pixel) = level;
                }
            }
        }
    }

    /// Moves a pixel toward `shade`, from 0 (black) to 1 (white), by the fraction `share` of the
    /// difference.
    pub(super) fn blend(&mut self, pixel: usize, shade: f32, share: f32) {
        for channel in 0..self.channels {
            let level = self.level(channel, shade);
            let value = self.value(channel, pixel);
            *value += share * (level - *value);
        }
    }

    /// The weight of a channel of the tensor in luma.
    fn luma_weight(&self, channel: usize) -> f32 {
        let sample = self
            .format
            .map_or(channel, |format| format.sample_index(channel));
        LUMA[sample]
    }

    /// Sets the three channels of each pixel to the luma of the pixel.
    pub(super) fn grayscale(&mut self) {
        if self.channels != LUMA.len() {
            return;
        }
        let levels: [(f32, f32, f32); 3] = std::array::from_fn(|channel| self.levels(channel));
        for pixel in 0..self.pixels {
            let luma: f32 = (0..LUMA.len())
                .map(|channel| {
                    self.luma_weight(channel) * (*self.value(channel, pixel) - levels[channel].1)
                        / levels[channel].0
                })
                .sum();
            for (channel, (step, black, _)) in levels.iter().enumerate() {
                *self.value(channel, pixel) = black + luma * step;
            }
        }
    }

    /// The values of a channel, in the order of the pixels.
    fn channel(&mut self, channel: usize) -> impl Iterator<Item = &mut f32> {
        let (start, stride) = match self.format.map(|format| format.layout) {
            Some(TensorLayout::Nhwc) => (channel, self.channels),
            Some(TensorLayout::Nchw) | None => (channel * self.pixels, 1),
        };
        self.values
            .get_mut(start..)
            .unwrap_or_default()
            .iter_mut()
            .step_by(stride)
            .take(self.pixels)
    }

    fn value(&mut self, channel: usize, pixel: usize) -> &mut f32 {
        let index = self
            .format
            .map_or(pixel, |format| format.index(channel, pixel, self.pixels));
        &mut self.values[index]
    }

    /// The size of an 8-bit step, and the levels of black and white, in the values of the tensor.
    fn levels(&self, channel: usize) -> (f32, f32, f32) {
        let Some(format) = self.format else {
            return (1.0, 0.0, 1.0);
        };
        let (step, black) = format.affine(channel);
        (step, black, black + 255.0 * step)
    }

    /// The value of a shade of gray in the tensor; black and white are exact.
    fn level(&self, channel: usize, shade: f32) -> f32 {
        let (_, black, white) = self.levels(channel);
        if shade >= 1.0 {
            white
        } else {
            black + shade * (white - black)
        }
    }
}
