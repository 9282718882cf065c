//! A mutable view of one record as pixels of any layout and scale, with the operations of the
//! corruptions.

use rand::Rng;
use rand_distr::{Distribution as _, Poisson, StandardNormal};

use crate::corruption::gaussian_filter::GaussianFilter;
use crate::image::jpeg_compression::compressed;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};
use crate::image::resample::{Resampling, SampleGrid};
use crate::image::{ImageError, Pixels};

/// A tensor that is corrupted in place. Values without pixels count as one channel from 0 to 1.
pub(super) struct PixelTensorMut<'a> {
    values: &'a mut [f32],
    format: Option<&'a PixelFormat>,
    /// Height and width.
    size: (usize, usize),
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
            size,
            pixels: size.0 * size.1,
            channels,
        }
    }

    /// Height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
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

    /// Adds normally distributed values of standard deviation `sigma`, in 8-bit steps, to which a
    /// Gaussian filter of standard deviation `correlation`, in pixels, was applied.
    pub(super) fn add_correlated(&mut self, sigma: f32, correlation: f32, rng: &mut impl Rng) {
        let filter = GaussianFilter::new(correlation);
        // Noise around the image takes the place of a reflection, which would repeat values and
        // thereby raise the deviation at the edges.
        let (radius, (height, width)) = (filter.radius(), self.size);
        let size = (height + 2 * radius, width + 2 * radius);
        let mut noise = vec![0.0; size.0 * size.1];
        for channel in 0..self.channels {
            noise.fill_with(|| rng.sample::<f32, _>(StandardNormal));
            filter.apply(&mut noise, size);
            let deviation = sigma * self.levels(channel).0 / filter.reduction();
            let rows = noise.chunks_exact(size.1).skip(radius).take(height);
            let inner = rows.flat_map(|row| &row[radius..radius + width]);
            for (value, added) in self.channel(channel).zip(inner) {
                *value += deviation * added;
            }
        }
    }

    /// Replaces each value by a Poisson distributed one with the same mean, where white is `peak`
    /// photons. Values below black have none.
    pub(super) fn draw_photons(&mut self, peak: f32, rng: &mut impl Rng) {
        for channel in 0..self.channels {
            let (_, black, white) = self.levels(channel);
            let photon = (white - black) / peak;
            for value in self.channel(channel) {
                let mean = (*value - black) / photon;
                // The distribution has no mean of 0, and none that is not finite.
                let photons = Poisson::new(mean).map_or(0.0, |photons| photons.sample(rng));
                *value = black + photons * photon;
            }
        }
    }

    /// Blurs each channel with a Gaussian kernel of standard deviation `sigma`, in pixels.
    pub(super) fn blur(&mut self, sigma: f32) {
        let filter = GaussianFilter::new(sigma);
        for channel in 0..self.channels {
            let mut plane: Vec<f32> = self.channel(channel).map(|value| *value).collect();
            filter.apply(&mut plane, self.size);
            for (value, blurred) in self.channel(channel).zip(plane) {
                *value = blurred;
            }
        }
    }

    /// Divides height and width by `factor`, rounded to at least a pixel, and enlarges the image to
    /// its size again.
    pub(super) fn downscale(&mut self, factor: f32) {
        let by = Resampling::new(ResampleFilter::Bicubic, None, ResampleLibrary::Pillow);
        let (Some(image), Ok(by)) = (self.image(), by) else {
            return;
        };
        let reduced = |side: usize| ((side as f32 / factor).round() as usize).max(1);
        let small = (reduced(image.height), reduced(image.width));
        let enlarged = SampleGrid::from_pixels(image)
            .resample(small, by)
            .resample(self.size, by);
        if let Some(format) = self.format {
            format.normalize_samples(&enlarged.values, self.values);
        }
    }

    /// Encodes the image as a JPEG and decodes it.
    ///
    /// # Errors
    /// If the image cannot be a JPEG, because of its size.
    pub(super) fn compress(&mut self, options: JpegOptions) -> Result<(), ImageError> {
        if let (Some(image), Some(format)) = (self.image(), self.format) {
            let pixels = compressed(&image, options)?;
            format.normalize(&pixels, self.values);
        }
        Ok(())
    }

    /// The tensor as an image, with values rounded to bytes; `None` if it has no pixels.
    fn image(&self) -> Option<Pixels> {
        let format = self.format.filter(|_| self.pixels > 0)?;
        Some(Pixels {
            height: self.size.0,
            width: self.size.1,
            channels: match format.channels {
                Channels::Gray => Channels::Gray,
                Channels::Rgb | Channels::Bgr => Channels::Rgb,
            },
            data: format.denormalize(self.values),
        })
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
        self.blend_shades(pixel, share, |_| shade);
    }

    /// Blends a color, red, green and blue from 0 to 1, over a pixel; over a gray pixel, its mean.
    pub(super) fn blend_color(&mut self, pixel: usize, color: [f32; 3], share: f32) {
        let (count, format) = (self.channels, self.format);
        self.blend_shades(pixel, share, |channel| match (count, format) {
            (3, Some(format)) => color[format.sample_index(channel)],
            _ => color.iter().sum::<f32>() / 3.0,
        });
    }

    /// Blends the shade of each channel over a pixel.
    fn blend_shades(&mut self, pixel: usize, share: f32, shade: impl Fn(usize) -> f32) {
        for channel in 0..self.channels {
            let level = self.level(channel, shade(channel));
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
