//! The steps that turn a decoded image into the image that a model takes: resizing, cropping and
//! padding, in their order.

pub(crate) mod framework_config;
mod geometry;
pub(crate) mod named;
mod planned_step;
pub(crate) mod preset;
pub(crate) mod steps;

use std::fmt;

use crate::image::option_error::ImageOptionError;
use crate::image::pixels::Pixels;
pub(crate) use crate::image::preprocess::planned_step::KnownSize;
use crate::image::preprocess::planned_step::{ImageSize, PlannedStep};
use crate::image::preprocess::steps::PreprocessStep;
use crate::image::resample::SampleGrid;

/// The checked steps of a model, which give every image the same size.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    steps: Vec<PlannedStep>,
    size: ImageSize,
}

/// Maximum number of pixels of a side: the weights of a resized line take memory in addition to the
/// image.
const MAX_SIDE: usize = 1 << 20;

impl Preprocessor {
    /// Checks the steps.
    ///
    /// # Errors
    /// The reason, and the index of an invalid step unless all steps together are invalid.
    pub(crate) fn new(
        written: &[PreprocessStep],
    ) -> Result<Self, (Option<usize>, ImageOptionError)> {
        let mut steps = Vec::with_capacity(written.len());
        let mut size = KnownSize::Any;
        for (index, step) in written.iter().enumerate() {
            let planned = PlannedStep::new(*step).map_err(|error| (Some(index), error))?;
            size = planned.known_size(size);
            steps.push(planned);
        }
        match size {
            KnownSize::Fixed(size) => Ok(Self { steps, size }),
            KnownSize::AtMost(_) | KnownSize::Any => Err((None, ImageOptionError::VariableSize)),
        }
    }

    /// The steps as they were written.
    pub(crate) fn steps(&self) -> Vec<PreprocessStep> {
        self.steps.iter().map(PlannedStep::written).collect()
    }

    /// The height and the width of every result.
    pub(crate) fn size(&self) -> ImageSize {
        self.size
    }

    /// The size of images after each step, as far as it is known.
    pub(crate) fn sizes(&self, from: KnownSize) -> Vec<KnownSize> {
        let mut sizes = Vec::with_capacity(self.steps.len());
        let mut size = from;
        for step in &self.steps {
            size = step.known_size(size);
            sizes.push(size);
        }
        sizes
    }

    /// Whether all samples of the results are bytes: the last step that may give others is followed by
    /// one that rounds.
    pub(crate) fn gives_bytes(&self) -> bool {
        self.steps
            .iter()
            .fold(true, |bytes, step| step.gives_bytes(bytes))
    }

    /// Applies the steps.
    ///
    /// # Errors
    /// If the image or the image after a step has a side of more than 2^20 pixels, or if an image
    /// after a step has more than `max_pixels` pixels.
    pub(crate) fn apply(
        &self,
        image: Pixels,
        max_pixels: u64,
    ) -> Result<SampleGrid, ImageOptionError> {
        let mut size = (image.height, image.width);
        check_sides(size)?;
        for step in &self.steps {
            size = step.size_after(size);
            let (height, width) = size;
            if (height as u64).saturating_mul(width as u64) > max_pixels {
                return Err(ImageOptionError::StepTooLarge {
                    height,
                    width,
                    max_pixels,
                });
            }
            check_sides(size)?;
        }
        // The first step reads bytes: the decoded image may be much larger than its result.
        let decoded = SampleGrid::from_pixels(image);
        let Some((first, rest)) = self.steps.split_first() else {
            // `new` refuses an empty list.
            return Err(ImageOptionError::VariableSize);
        };
        let begun = first.apply(&decoded);
        drop(decoded);
        Ok(rest.iter().fold(begun, |grid, step| step.apply(&grid)))
    }
}

fn check_sides((height, width): ImageSize) -> Result<(), ImageOptionError> {
    if height.max(width) > MAX_SIDE {
        return Err(ImageOptionError::SideTooLong { height, width });
    }
    Ok(())
}

impl fmt::Display for Preprocessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps().iter().map(ToString::to_string).collect();
        f.write_str(&steps.join(", "))
    }
}

#[cfg(test)]
mod tests;
