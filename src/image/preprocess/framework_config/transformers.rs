//! `preprocessor_config.json` of transformers.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{FrameworkConfigError, unsupported};
use crate::image::pixel_format::PixelFormat;
use crate::image::preprocess::preset::PreprocessingOptions;
use crate::image::preprocess::steps::{
    CropRounding, CropStep, PreprocessStep, ResizeSide, ResizeStep, StepSize,
};
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

/// A size of transformers.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum TransformersSize {
    Number(NonZeroU32),
    Sides {
        height: NonZeroU32,
        width: NonZeroU32,
    },
    /// With `longest_edge`, sizes are rounded by another rule.
    Shortest {
        shortest_edge: NonZeroU32,
    },
}

/// The keys of `preprocessor_config.json` that describe the pixels. A missing key has a default that
/// depends on the processor, so the keys that are needed must be present.
#[derive(Debug, Deserialize)]
pub(super) struct TransformersConfig {
    #[serde(alias = "feature_extractor_type", default)]
    image_processor_type: String,
    do_resize: Option<bool>,
    size: Option<Value>,
    /// Whether a size as one number is that of both sides.
    default_to_square: Option<bool>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    /// Processors before version 4.25 rescale without a key.
    #[serde(default = "enabled")]
    do_rescale: bool,
    #[serde(default = "unit_factor")]
    rescale_factor: f64,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
}

fn enabled() -> bool {
    true
}

fn unit_factor() -> f64 {
    1.0 / 255.0
}

/// The keys that are read.
const READ: [&str; 14] = [
    "image_processor_type",
    "feature_extractor_type",
    "do_resize",
    "size",
    "default_to_square",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_convert_rgb",
];
/// The keys that do not change the pixels.
const WITHOUT_EFFECT: [&str; 7] = [
    "processor_class",
    "auto_map",
    "data_format",
    "input_data_format",
    "device",
    "return_tensors",
    "disable_grouping",
];

/// Processors whose size as one number is that of both sides, and that do not crop.
const SQUARE: [&str; 4] = ["ViT", "DeiT", "Beit", "Segformer"];
/// Processors whose size as one number is that of the shorter side, and that crop by default.
const SHORTEST: [&str; 5] = ["CLIP", "Bit", "LeViT", "MobileNetV1", "MobileNetV2"];

fn required<T>(key: &str, value: Option<T>) -> Result<T, FrameworkConfigError> {
    value.ok_or_else(|| unsupported(key, "is missing, and its default depends on the processor"))
}

fn parse_size(key: &str, value: Option<&Value>) -> Result<TransformersSize, FrameworkConfigError> {
    let value = required(key, value)?;
    TransformersSize::deserialize(value).map_err(|_| {
        let expected = "expected a number, `height` and `width`, or `shortest_edge` alone";
        unsupported(key, format!("is {value}; {expected}"))
    })
}

impl TransformersConfig {
    /// Refuses keys that may change the pixels in a way that is not known here.
    ///
    /// # Errors
    /// The first unknown key.
    pub(super) fn check_keys(keys: &Map<String, Value>) -> Result<(), FrameworkConfigError> {
        let is_known = |key: &str| READ.contains(&key) || WITHOUT_EFFECT.contains(&key);
        let is_off = |key: &str, value: &Value| key.starts_with("do_") && *value == false;
        match keys
            .iter()
            .find(|(key, value)| !is_known(key) && !is_off(key, value))
        {
            Some((key, _)) => Err(unsupported(key, "is not supported")),
            None => Ok(()),
        }
    }

    /// The preprocessing that the file describes.
    ///
    /// # Errors
    /// The key that is missing or not supported.
    pub(super) fn preprocessing(self) -> Result<PreprocessingOptions, FrameworkConfigError> {
        let mut steps = Vec::new();
        if required("do_resize", self.do_resize)? {
            steps.push(PreprocessStep::Resize(self.resize()?));
        }
        if self.crops()? {
            let size = match parse_size("crop_size", self.crop_size.as_ref())? {
                TransformersSize::Number(side) => StepSize::Square(side),
                TransformersSize::Sides { height, width } => StepSize::Sides([height, width]),
                TransformersSize::Shortest { .. } => {
                    return Err(unsupported("crop_size", "expected height and width"));
                }
            };
            steps.push(PreprocessStep::CenterCrop(CropStep {
                size,
                rounding: CropRounding::Floor,
            }));
        }
        let factor = if self.do_rescale {
            self.rescale_factor
        } else {
            1.0
        };
        let (mean, std) = if required("do_normalize", self.do_normalize)? {
            (
                required("image_mean", self.image_mean)?,
                required("image_std", self.image_std)?,
            )
        } else {
            Default::default()
        };
        Ok(PreprocessingOptions {
            steps,
            format: PixelFormat {
                range: [0.0, (factor * 255.0) as f32],
                mean,
                std,
                ..PixelFormat::default()
            },
        })
    }

    fn crops(&self) -> Result<bool, FrameworkConfigError> {
        match self.do_center_crop {
            Some(crops) => Ok(crops),
            None if self.crop_size.is_some() || self.is_one_of(&SHORTEST) => {
                required("do_center_crop", None)
            }
            None => Ok(false),
        }
    }

    fn resize(&self) -> Result<ResizeStep, FrameworkConfigError> {
        let filter = match required("resample", self.resample)? {
            0 => ResampleFilter::Nearest,
            1 => ResampleFilter::Lanczos,
            2 => ResampleFilter::Bilinear,
            3 => ResampleFilter::Bicubic,
            4 => ResampleFilter::Box,
            5 => ResampleFilter::Hamming,
            other => {
                let reason = format!("{other} is not a filter of Pillow");
                return Err(unsupported("resample", reason));
            }
        };
        let (size, side) = match parse_size("size", self.size.as_ref())? {
            TransformersSize::Number(side) => (StepSize::Square(side), self.side_of_a_number()?),
            TransformersSize::Sides { height, width } => {
                (StepSize::Sides([height, width]), ResizeSide::Both)
            }
            TransformersSize::Shortest { shortest_edge } => {
                (StepSize::Square(shortest_edge), ResizeSide::Shorter)
            }
        };
        Ok(ResizeStep {
            size,
            side,
            filter,
            antialias: None,
            library: library_of(filter),
        })
    }

    /// The meaning of a size that is one number, which depends on the processor.
    fn side_of_a_number(&self) -> Result<ResizeSide, FrameworkConfigError> {
        match self.default_to_square {
            Some(true) => Ok(ResizeSide::Both),
            Some(false) => Ok(ResizeSide::Shorter),
            None if self.is_one_of(&SQUARE) => Ok(ResizeSide::Both),
            None if self.is_one_of(&SHORTEST) => Ok(ResizeSide::Shorter),
            None => {
                let reason = format!(
                    "is one number, whose meaning depends on the processor, and `{}` is not known",
                    self.image_processor_type
                );
                Err(unsupported("size", reason))
            }
        }
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|known| {
            let rest = self.image_processor_type.strip_prefix(known);
            rest.is_some_and(|rest| {
                rest.starts_with("ImageProcessor") || rest.starts_with("FeatureExtractor")
            })
        })
    }
}

/// The library with which transformers resizes: torchvision, if it has the filter.
fn library_of(filter: ResampleFilter) -> ResampleLibrary {
    match filter {
        ResampleFilter::Nearest | ResampleFilter::Bilinear | ResampleFilter::Bicubic => {
            ResampleLibrary::Torchvision
        }
        ResampleFilter::Box | ResampleFilter::Hamming | ResampleFilter::Lanczos => {
            ResampleLibrary::Pillow
        }
    }
}
