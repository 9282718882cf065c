//! Corruptions of tensors (noise, masking, blur, compression, watermarks, removal of color), with one
//! configuration for serving and training.

mod gaussian_filter;
mod operation;
mod pixel_tensor;
mod plan;
pub mod spec;
mod strength;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::image::ImageError;
use crate::image::pixel_format::PixelFormat;

use operation::CorruptionOp;
use pixel_tensor::PixelTensorMut;

pub(crate) use strength::Strength;

/// A corruption that has been checked against the format of the tensors.
#[derive(Debug, Clone)]
pub struct Corruption {
    op: CorruptionOp,
    /// Whether the values are pixels, so that sigma counts 8-bit steps.
    pixels: bool,
    /// The share of the records that are corrupted.
    probability: f64,
}

impl Corruption {
    /// Corrupts one record in place. `size` is the height and width of the image; values without
    /// pixels count as an image of height 1. `format` must equal the format passed to
    /// [`spec::CorruptionSpec::plan`]; `seed` is derived from the identity of the record.
    ///
    /// Random numbers are drawn channel by channel and pixel by pixel, so that the noise does not
    /// depend on the layout.
    ///
    /// # Errors
    /// If the record is an image that cannot be a JPEG, because of its size.
    pub fn apply(
        &self,
        values: &mut [f32],
        size: (usize, usize),
        format: Option<&PixelFormat>,
        seed: u64,
    ) -> Result<(), ImageError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // All records are corrupted without a number, as earlier versions did.
        if self.probability < 1.0 && rng.random::<f64>() >= self.probability {
            return Ok(());
        }
        let mut tensor = PixelTensorMut::new(values, size, format);
        self.op.apply(&mut tensor, &mut rng)
    }

    /// A description in one phrase, such as `gaussian noise, sigma [0, 55]/255`.
    pub fn summary(&self) -> String {
        let summary = self.op.summary(self.pixels);
        match self.probability {
            1.0 => summary,
            probability => format!("{summary}, with probability {probability}"),
        }
    }
}

#[cfg(test)]
mod photograph_tests;
#[cfg(test)]
mod tests;
