//! Presets: the preprocessing of well-known models.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::pixel_format::{Channels, PixelFormat, TensorLayout};
use crate::image::preprocess::steps::{
    CropRounding, CropStep, PreprocessStep, ResizeSide, ResizeStep, StepSize,
};
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

/// The steps and the format of pixels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PreprocessingOptions {
    /// The steps; empty if the size is not part of the preprocessing.
    pub steps: Vec<PreprocessStep>,
    /// The conversion to values.
    pub format: PixelFormat,
}

/// The preprocessing of well-known models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PixelPreset {
    /// torchvision's models: shorter side 256, center 224 x 224, ImageNet's mean and standard
    /// deviation.
    Imagenet,
    /// OpenAI's CLIP: shorter side 224, bicubic, center 224 x 224.
    Clip,
    /// DINOv2: shorter side 256, bicubic, center 224 x 224, ImageNet's mean and standard deviation.
    Dinov2,
    /// `preprocess_input` of Keras with `mode="tf"`: values from -1 to 1. Needs `size` or `steps`.
    KerasTf,
    /// `preprocess_input` of Keras with `mode="caffe"`: blue, green and red from 0 to 255, less
    /// ImageNet's mean. Needs `size` or `steps`.
    KerasCaffe,
}

/// The mean and the standard deviation of the images of ImageNet.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
/// The mean and the standard deviation of the images of CLIP.
const CLIP: [[f32; 3]; 2] = [
    [0.481_454_66, 0.457_827_5, 0.408_210_73],
    [0.268_629_54, 0.261_302_6, 0.275_777_1],
];
/// The mean of blue, green and red of the images of ImageNet, in steps of 255.
const CAFFE: [f32; 3] = [103.939, 116.779, 123.68];

impl PixelPreset {
    /// The options of the preset.
    pub(crate) fn options(self) -> PreprocessingOptions {
        let standardized = |[mean, std]: [[f32; 3]; 2]| PixelFormat {
            mean: mean.to_vec(),
            std: std.to_vec(),
            ..PixelFormat::default()
        };
        match self {
            Self::Imagenet => PreprocessingOptions {
                steps: center_of(256, ResampleFilter::Bilinear, CropRounding::Even),
                format: standardized(IMAGENET),
            },
            Self::Clip => PreprocessingOptions {
                steps: center_of(224, ResampleFilter::Bicubic, CropRounding::Even),
                format: standardized(CLIP),
            },
            Self::Dinov2 => PreprocessingOptions {
                steps: center_of(256, ResampleFilter::Bicubic, CropRounding::Even),
                format: standardized(IMAGENET),
            },
            Self::KerasTf => PreprocessingOptions {
                steps: Vec::new(),
                format: PixelFormat {
                    layout: TensorLayout::Nhwc,
                    range: [-1.0, 1.0],
                    ..PixelFormat::default()
                },
            },
            Self::KerasCaffe => PreprocessingOptions {
                steps: Vec::new(),
                format: PixelFormat {
                    channels: Channels::Bgr,
                    layout: TensorLayout::Nhwc,
                    range: [0.0, 255.0],
                    mean: CAFFE.to_vec(),
                    ..PixelFormat::default()
                },
            },
        }
    }
}

/// The center of 224 x 224 pixels of an image whose shorter side is resized.
fn center_of(shorter: u32, filter: ResampleFilter, rounding: CropRounding) -> Vec<PreprocessStep> {
    let square = |side| StepSize::Square(NonZeroU32::new(side).unwrap_or(NonZeroU32::MIN));
    vec![
        PreprocessStep::Resize(ResizeStep {
            size: square(shorter),
            side: ResizeSide::Shorter,
            filter,
            antialias: None,
            library: ResampleLibrary::Pillow,
        }),
        PreprocessStep::CenterCrop(CropStep {
            size: square(224),
            rounding,
        }),
    ]
}
