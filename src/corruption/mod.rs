//! Corruptions of tensors (noise, masking, watermarks, removal of color), with one configuration
//! for serving and training.

mod pixel_tensor;
pub mod spec;
mod strength;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::image::pixel_format::PixelFormat;
use crate::image::random_watermark::RandomWatermark;
use crate::image::watermark::Watermark;

use pixel_tensor::PixelTensorMut;

pub(crate) use strength::Strength;

/// A corruption that has been checked against the format of the tensors.
#[derive(Debug, Clone)]
pub struct Corruption {
    op: CorruptionOp,
    /// Whether the values are pixels, so that sigma counts 8-bit steps.
    pixels: bool,
}

/// The operation with its checked parameters.
#[derive(Debug, Clone)]
enum CorruptionOp {
    Gaussian { sigma: Strength },
    Masking { rate: Strength },
    SaltAndPepper { rate: Strength },
    Watermark { mark: Watermark, opacity: Strength },
    RandomWatermark { opacity: Strength },
    Gray,
}

impl Corruption {
    /// Corrupts one record in place. `size` is the height and width of the image; values without
    /// pixels count as an image of height 1. `format` must equal the format passed to
    /// [`CorruptionSpec::plan`]; `seed` is derived from the identity of the record.
    ///
    /// Random numbers are drawn channel by channel and pixel by pixel, so that the noise does not
    /// depend on the layout.
    pub fn apply(
        &self,
        values: &mut [f32],
        size: (usize, usize),
        format: Option<&PixelFormat>,
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensor = PixelTensorMut::new(values, size, format);
        match &self.op {
            CorruptionOp::Gaussian { sigma } => tensor.add_normal(sigma.draw(&mut rng), &mut rng),
            CorruptionOp::Masking { rate } => tensor.mask(rate.draw(&mut rng), &mut rng),
            CorruptionOp::SaltAndPepper { rate } => {
                tensor.salt_and_pepper(rate.draw(&mut rng), &mut rng)
            }
            CorruptionOp::Watermark { mark, opacity } => {
                let opacity = opacity.draw(&mut rng);
                mark.draw(size.0, size.1, rng.random(), |pixel| {
                    tensor.blend(pixel, 1.0, opacity)
                });
            }
            CorruptionOp::RandomWatermark { opacity } => {
                let opacity = opacity.draw(&mut rng);
                let mark = RandomWatermark::draw(size.0, size.1, &mut rng);
                mark.paint(size.0, size.1, |pixel, share| {
                    tensor.blend(pixel, mark.shade(), opacity * share)
                });
            }
            CorruptionOp::Gray => tensor.grayscale(),
        }
    }

    /// A description in one phrase, such as `gaussian noise, sigma [0, 55]/255`.
    pub fn summary(&self) -> String {
        match &self.op {
            CorruptionOp::Gaussian { sigma } if self.pixels => {
                format!("gaussian noise, sigma {sigma}/255")
            }
            CorruptionOp::Gaussian { sigma } => format!("gaussian noise, sigma {sigma}"),
            CorruptionOp::Masking { rate } => format!("sets {rate} of the values to 0"),
            CorruptionOp::SaltAndPepper { rate } => {
                format!("salt and pepper on {rate} of the values")
            }
            CorruptionOp::Watermark { opacity, .. } => format!("a watermark of opacity {opacity}"),
            CorruptionOp::RandomWatermark { opacity } => {
                format!("a random watermark of opacity {opacity}")
            }
            CorruptionOp::Gray => "removes the color".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
