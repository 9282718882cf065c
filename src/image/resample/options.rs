//! The filters of resizing, and the libraries whose resizing is reproduced.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The filter of a resize step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResampleFilter {
    /// The nearest sample.
    Nearest,
    /// The mean of the covered area (`BOX`, `INTER_AREA`, `area`).
    Box,
    /// Linear interpolation.
    #[default]
    Bilinear,
    /// A filter of the width of `bilinear` with less blur, of Pillow.
    Hamming,
    /// Cubic interpolation.
    Bicubic,
    /// A windowed sinc (`LANCZOS`, `INTER_LANCZOS4`, `lanczos3`).
    Lanczos,
}

/// The library whose resizing is reproduced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResampleLibrary {
    /// `Image.resize` of Pillow, which torchvision, timm and transformers call for images.
    #[default]
    Pillow,
    /// `torchvision.transforms.v2.functional.resize` of tensors, and `torch.nn.functional.interpolate`.
    Torchvision,
    /// `cv2.resize`.
    Opencv,
    /// `tf.image.resize`, which Keras calls.
    Tensorflow,
}

impl ResampleLibrary {
    /// Whether the library uses antialiasing if it is not requested or refused.
    pub(super) fn default_antialias(self) -> bool {
        matches!(self, Self::Pillow | Self::Torchvision)
    }
}

impl fmt::Display for ResampleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        })
    }
}

impl fmt::Display for ResampleLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pillow => "pillow",
            Self::Torchvision => "torchvision",
            Self::Opencv => "opencv",
            Self::Tensorflow => "tensorflow",
        })
    }
}
