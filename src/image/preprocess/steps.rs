//! The steps as pipelines and cards write them.

use std::fmt;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

/// A step of the preprocessing of images.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum PreprocessStep {
    /// Resizes the image.
    Resize(ResizeStep),
    /// Keeps the center of the image; smaller images are padded with black.
    CenterCrop(CropStep),
    /// Pads the image to at least a size.
    Pad(PadStep),
}

/// The options of `resize`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeStep {
    /// The size: `[height, width]`, or one number for both sides or for the side that `side` names.
    pub size: StepSize,
    /// The side that gets the size; the other one keeps the aspect ratio. Default: both.
    #[serde(default)]
    pub side: ResizeSide,
    /// The filter. Default: bilinear.
    #[serde(default)]
    pub filter: ResampleFilter,
    /// Whether the filter grows with the reduction. Default: as the library does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub antialias: Option<bool>,
    /// The library whose resizing is reproduced. Default: pillow.
    #[serde(default)]
    pub library: ResampleLibrary,
}

/// The options of `center_crop`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CropStep {
    /// The size: `[height, width]`, or one number for both.
    pub size: StepSize,
    /// The position of the center if the excess is odd. Default: floor.
    #[serde(default)]
    pub rounding: CropRounding,
}

/// The options of `pad`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PadStep {
    /// The size: `[height, width]`, or one number for both. Larger sides stay.
    pub size: StepSize,
    /// The value of the added samples, 0 to 255. Default: 0.
    #[serde(default)]
    pub value: f32,
    /// The position of the image if the added part is odd. Default: floor.
    #[serde(default)]
    pub rounding: CropRounding,
}

/// The side of an image that a resize step sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResizeSide {
    /// Both sides; the aspect ratio changes.
    #[default]
    Both,
    /// The shorter side.
    Shorter,
    /// The longer side.
    Longer,
}

/// The offset of a centered part if half of the excess is not whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CropRounding {
    /// Down, as in transformers.
    #[default]
    Floor,
    /// To the nearest even number, as in torchvision and timm.
    Even,
}

/// A size in pixels: `[height, width]`, or one number for both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of pixels above 0, or [height, width]"
)]
pub enum StepSize {
    /// Both sides have this length.
    Square(NonZeroU32),
    /// Height and width.
    Sides([NonZeroU32; 2]),
}

impl StepSize {
    /// The height and the width.
    pub(super) fn height_and_width(self) -> (usize, usize) {
        let [height, width] = match self {
            Self::Square(side) => [side; 2],
            Self::Sides(sides) => sides,
        };
        (height.get() as usize, width.get() as usize)
    }
}

impl fmt::Display for StepSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (height, width) = self.height_and_width();
        write!(f, "{height} x {width}")
    }
}

impl fmt::Display for PreprocessStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resize(step) => {
                let (length, _) = step.size.height_and_width();
                match step.side {
                    ResizeSide::Both => write!(f, "resize {}", step.size)?,
                    ResizeSide::Shorter => write!(f, "resize shorter side to {length}")?,
                    ResizeSide::Longer => write!(f, "resize longer side to {length}")?,
                }
                write!(f, " ({} of {})", step.filter, step.library)
            }
            Self::CenterCrop(step) => write!(f, "center crop {}", step.size),
            Self::Pad(step) => write!(f, "pad to {}", step.size),
        }
    }
}
