//! `config.json` of timm.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::error::{FrameworkConfigError, unsupported};
use crate::image::pixel_format::PixelFormat;
use crate::image::preprocess::preset::PreprocessingOptions;
use crate::image::preprocess::steps::{
    CropRounding, CropStep, PreprocessStep, ResizeSide, ResizeStep, StepSize,
};
use crate::image::resample::options::{ResampleFilter, ResampleLibrary};

/// The keys of `pretrained_cfg` that describe the pixels.
#[derive(Debug, Deserialize)]
pub(super) struct TimmConfig {
    input_size: [NonZeroU32; 3],
    #[serde(default = "bicubic")]
    interpolation: String,
    #[serde(default = "crop_share")]
    crop_pct: f64,
    crop_mode: Option<String>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

fn bicubic() -> String {
    "bicubic".to_owned()
}

/// `DEFAULT_CROP_PCT` of timm.
fn crop_share() -> f64 {
    0.875
}

impl TimmConfig {
    /// The preprocessing that the file describes.
    ///
    /// # Errors
    /// The key that is not supported.
    pub(super) fn preprocessing(self) -> Result<PreprocessingOptions, FrameworkConfigError> {
        let [channels, height, width] = self.input_size;
        if channels.get() != 3 || height != width {
            return Err(unsupported(
                "input_size",
                "expected 3 channels and equal sides",
            ));
        }
        let filter = match self.interpolation.as_str() {
            "nearest" => ResampleFilter::Nearest,
            "bilinear" => ResampleFilter::Bilinear,
            "bicubic" => ResampleFilter::Bicubic,
            "lanczos" => ResampleFilter::Lanczos,
            "box" => ResampleFilter::Box,
            "hamming" => ResampleFilter::Hamming,
            other => {
                return Err(unsupported(
                    "interpolation",
                    format!("`{other}` is not a fixed filter"),
                ));
            }
        };
        if self.crop_pct.is_nan() || self.crop_pct <= 0.0 {
            return Err(unsupported("crop_pct", "must be above 0"));
        }
        let scaled = (f64::from(height.get()) / self.crop_pct).floor() as u32;
        let scaled =
            NonZeroU32::new(scaled).ok_or_else(|| unsupported("crop_pct", "leaves a size of 0"))?;
        let side = match self.crop_mode.as_deref() {
            None | Some("center") => ResizeSide::Shorter,
            Some("squash") => ResizeSide::Both,
            Some(other) => {
                return Err(unsupported(
                    "crop_mode",
                    format!("`{other}` is not supported"),
                ));
            }
        };
        let resize = PreprocessStep::Resize(ResizeStep {
            size: StepSize::Square(scaled),
            side,
            filter,
            antialias: None,
            library: ResampleLibrary::Pillow,
        });
        let crop = PreprocessStep::CenterCrop(CropStep {
            size: StepSize::Square(height),
            rounding: CropRounding::Even,
        });
        Ok(PreprocessingOptions {
            steps: vec![resize, crop],
            format: PixelFormat {
                mean: self.mean,
                std: self.std,
                ..PixelFormat::default()
            },
        })
    }
}
