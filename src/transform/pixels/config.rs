//! The options of the transform `pixels`, and the target that they describe.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::IMAGE;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::encoded_column::holds_encoded_images;
use crate::image::prepared::{ImagePreparation, Sizing};
use crate::image::preprocess::preset::PixelPreset;
use crate::image::preprocess::steps::PreprocessStep;
use crate::image::{
    Channels, ColorSpace, DecodeMode, PixelFormat, ResizeMode, TargetSize, TensorLayout,
};
use crate::plan_context::PlanContext;
use crate::transform::pixels::{PixelsPlan, tensor_field};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `pixels`: either a `model`, whose training format is used; or a `preset` or
/// `preprocessor`; or `size` or `steps` and the options that differ from their defaults.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct PixelsConfig {
    /// The model that processes the pixels. Size, channels, layout, range, mean and std are then
    /// those of its training.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// The size of the tensors: `[height, width]` in pixels, or `"original"` to keep the size of
    /// each image. Required without `model`.
    #[schemars(extend("x-changes-rows" = true))]
    pub size: Option<TargetSize>,
    /// The channels of a pixel. Default: rgb.
    #[schemars(extend("x-changes-rows" = true))]
    pub channels: Option<Channels>,
    /// The order of the dimensions of the tensor. Default: nchw.
    #[schemars(extend("x-changes-rows" = true))]
    pub layout: Option<TensorLayout>,
    /// The range to which bytes 0..255 are mapped linearly. Default: [0.0, 1.0].
    #[schemars(extend("x-changes-rows" = true))]
    pub range: Option<[f32; 2]>,
    /// The mean of each channel, which is subtracted after `range`. Default: none.
    #[schemars(extend("x-changes-rows" = true))]
    pub mean: Option<Vec<f32>>,
    /// The standard deviation of each channel, by which values are divided after `mean`. Default:
    /// none.
    #[schemars(extend("x-changes-rows" = true))]
    pub std: Option<Vec<f32>>,
    /// The sample values of black and white in files that have more than 8 bits per sample and do
    /// not state their range, such as `[0, 255]` for floating-point TIFFs, or `[0, 4095]` for 12 bits
    /// in samples of 16. Values outside of the range become black or white. Default: `[0, 1]` for
    /// floating-point samples, all 16 bits for others; an image with other values is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub value_range: Option<[f64; 2]>,
    /// The preprocessing of a well-known model. Other options replace parts of it.
    // The options that it sets are part of the fingerprint instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = false))]
    pub preset: Option<PixelPreset>,
    /// The file that comes with a model: `preprocessor_config.json` of transformers, or
    /// `config.json` of timm. Other options replace parts of it.
    // The options that it sets are part of the fingerprint instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    pub preprocessor: Option<PathBuf>,
    /// Instead of `size` and `fit`: the steps that resize, crop and pad, in their order, as the
    /// library does it with which the model was trained. JPEGs are decoded in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub steps: Option<Vec<PreprocessStep>>,
    /// The treatment of an image whose aspect ratio differs from that of `size`. Default: stretch.
    #[schemars(extend("x-changes-rows" = true))]
    pub fit: Option<ResizeMode>,
    /// How JPEGs are decoded. `scaled` takes up to half of the time, and resized pixels differ from
    /// those of `full` by about 0.4 steps of 255 in the mean. Default: as the images on which the
    /// model was trained, which its card states; else full.
    #[schemars(extend("x-changes-rows" = true, "x-former-default" = "full", "x-former-name" = "draft", "x-former-values" = ["full", "scaled"]))]
    pub decode: Option<DecodeMode>,
    /// The color space of the pixels: `stored` (default) ignores color profiles, as Pillow does;
    /// `srgb` converts images with a profile, such as the wide colors of phones, to sRGB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub color_space: Option<ColorSpace>,
    /// The input column of encoded images. Default: image.
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of the new column of tensors. Default: pixels.
    #[schemars(extend("x-changes-rows" = true))]
    pub to: Option<String>,
    /// Whether to keep the column of encoded images. Default: false.
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

impl TransformConfig for PixelsConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let (name, to) = (
            self.column.get_or_insert_with(|| IMAGE.to_owned()).clone(),
            self.to().to_owned(),
        );
        let mut faults = Vec::new();
        let column = faults.record(find_column(input, &name));
        let target = faults.record_all(self.target(context));
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|&index| self.keep || Some(index) != column)
            .collect();
        if kept.iter().any(|&index| input.field(index).name() == &to) {
            faults.push(ConfigError::new(
                "to",
                format!("the input already has a column `{to}`; choose another name"),
            ));
        }
        let (Some(column), Some(target), true) = (column, target, faults.is_empty()) else {
            return Err(faults);
        };
        let field = tensor_field(&target, &to)
            .map_err(|error| vec![ConfigError::new("size", error.to_string())])?;
        let fields = kept
            .iter()
            .map(|&index| Arc::new(input.field(index).clone()));
        let fields: Vec<Arc<Field>> = fields.chain([Arc::new(field)]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        self.set_target(&target);
        Ok(Box::new(PixelsPlan {
            schema,
            column,
            kept,
            target,
        }))
    }
}

impl PixelsConfig {
    /// The name of the column of tensors, which is set to its default if it is missing.
    fn to(&mut self) -> &str {
        self.to.get_or_insert_with(|| "pixels".to_owned())
    }

    /// Sets the options to the planned target.
    fn set_target(&mut self, ImagePreparation { format, sizing, .. }: &ImagePreparation) {
        let PixelFormat {
            channels,
            layout,
            range,
            mean,
            std,
        } = format.clone();
        (self.channels, self.layout, self.range) = (Some(channels), Some(layout), Some(range));
        (self.mean, self.std) = (Some(mean), Some(std));
        self.decode = Some(DecodeMode::Full);
        match sizing {
            Sizing::Steps(preprocessor) => {
                (self.steps, self.size) = (Some(preprocessor.steps()), None);
            }
            Sizing::Original => self.size = Some(TargetSize::Original),
            Sizing::Resize { fit, decode, .. } => {
                self.size = Some(sizing.size());
                (self.fit, self.decode) = (Some(*fit), Some(*decode));
            }
        }
    }
}

fn find_column(input: &SchemaRef, name: &str) -> Result<usize, ConfigError> {
    let Some((index, field)) = input.column_with_name(name) else {
        let known: Vec<&str> = input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        return Err(ConfigError::new(
            "column",
            format!("no column `{name}`; the input has: {}", known.join(", ")),
        ));
    };
    match field.data_type() {
        kind if holds_encoded_images(kind) => Ok(index),
        other => Err(ConfigError::new(
            "column",
            format!("column `{name}` holds {other}, not the bytes of encoded images"),
        )),
    }
}
