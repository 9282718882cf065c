//! A checked step.

use std::fmt;

use crate::image::normalize::Sample;
use crate::image::option_error::ImageOptionError;
use crate::image::preprocess::geometry::{crop_or_pad, resized_size};
use crate::image::preprocess::steps::{
    CropStep, PadStep, PreprocessStep, ResizeSide, ResizeStep, StepSize,
};
use crate::image::resample::{Resampling, SampleGrid};

/// The size of an image, as height and width.
pub(crate) type ImageSize = (usize, usize);

/// The known part of the size of all images after a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KnownSize {
    /// All have this size.
    Fixed(ImageSize),
    /// No side is longer.
    AtMost(ImageSize),
    /// Nothing.
    Any,
}

impl fmt::Display for KnownSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed((height, width)) => write!(f, "{height} x {width}"),
            Self::AtMost((height, width)) => write!(f, "at most {height} x {width}"),
            Self::Any => f.write_str("any size"),
        }
    }
}

/// A checked step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PlannedStep {
    Resize { step: ResizeStep, by: Resampling },
    CenterCrop(CropStep),
    Pad(PadStep),
}

impl PlannedStep {
    /// Checks a step.
    ///
    /// # Errors
    /// If the library of a resize step does not offer its filter, or a value is not a sample.
    pub(super) fn new(written: PreprocessStep) -> Result<Self, ImageOptionError> {
        match written {
            PreprocessStep::Resize(step) => {
                if step.side != ResizeSide::Both && matches!(step.size, StepSize::Sides(_)) {
                    return Err(ImageOptionError::TwoSides);
                }
                let by = Resampling::new(step.filter, step.antialias, step.library)?;
                Ok(Self::Resize { step, by })
            }
            PreprocessStep::CenterCrop(step) => Ok(Self::CenterCrop(step)),
            PreprocessStep::Pad(step) if (0.0..=255.0).contains(&step.value) => Ok(Self::Pad(step)),
            PreprocessStep::Pad(step) => Err(ImageOptionError::NotASample(step.value)),
        }
    }

    /// The step as it was written.
    pub(super) fn written(&self) -> PreprocessStep {
        match *self {
            Self::Resize { step, .. } => PreprocessStep::Resize(step),
            Self::CenterCrop(step) => PreprocessStep::CenterCrop(step),
            Self::Pad(step) => PreprocessStep::Pad(step),
        }
    }

    /// Whether all samples after this step are bytes. `before` states whether they are before it.
    pub(super) fn gives_bytes(&self, before: bool) -> bool {
        match self {
            Self::Resize { by, .. } => by.rounds(),
            Self::CenterCrop(_) => before,
            Self::Pad(step) => before && step.value.fract() == 0.0,
        }
    }

    /// The size after this step of an image of `size`.
    pub(super) fn size_after(&self, size: ImageSize) -> ImageSize {
        match self {
            Self::Resize { step, .. } => resized_size(step, size),
            Self::CenterCrop(step) => step.size.height_and_width(),
            Self::Pad(step) => {
                let (height, width) = step.size.height_and_width();
                (height.max(size.0), width.max(size.1))
            }
        }
    }

    /// The size after this step of an image whose size is known in part.
    pub(super) fn known_size(&self, before: KnownSize) -> KnownSize {
        if let KnownSize::Fixed(size) = before {
            return KnownSize::Fixed(self.size_after(size));
        }
        match self {
            Self::Resize { step, .. } => {
                let (height, width) = step.size.height_and_width();
                match step.side {
                    ResizeSide::Both => KnownSize::Fixed((height, width)),
                    ResizeSide::Longer => KnownSize::AtMost((height, width)),
                    ResizeSide::Shorter => KnownSize::Any,
                }
            }
            Self::CenterCrop(step) => KnownSize::Fixed(step.size.height_and_width()),
            Self::Pad(step) => {
                let (height, width) = step.size.height_and_width();
                match before {
                    KnownSize::AtMost(max) if max.0 <= height && max.1 <= width => {
                        KnownSize::Fixed((height, width))
                    }
                    _ => KnownSize::Any,
                }
            }
        }
    }

    /// Applies the step.
    pub(super) fn apply<T: Sample>(&self, image: &SampleGrid<T>) -> SampleGrid {
        let size = self.size_after((image.height, image.width));
        match self {
            Self::Resize { by, .. } => image.resample(size, *by),
            Self::CenterCrop(step) => crop_or_pad(image, size, step.rounding, 0.0),
            Self::Pad(step) => crop_or_pad(image, size, step.rounding, step.value),
        }
    }
}
