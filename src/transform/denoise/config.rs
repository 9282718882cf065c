//! The options of the transform `denoise`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::pixel_format::PixelFormat;
use crate::model::files::ModelPath;
use crate::model::tensor_spec::element_count;
use crate::model::{ImageInput, Model, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::TensorShape;
use crate::transform::denoise::{DenoiseParams, DenoisePlan};
use crate::transform::model_columns::{
    check_network, check_pixels, field_like, find_column, fit_fixed, holds_pixels,
};
use crate::transform::tile::{OVERLAP, TILE, TileCut};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `denoise`: the model, and, for images of any size, the tiles.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct DenoiseConfig {
    /// The model, as declared under `models`.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: String,
    /// The tensor column to process. Default: the only one that fits the model.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of a new column for the result. Default: the result replaces the input column.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: Option<String>,
    /// How much of the change of the model is applied, from 0 (none) to 1 (all): with 0.7, the
    /// result is 0.3 times the input plus 0.7 times the output of the model. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub strength: Option<f32>,
    /// For models that take images of any size: the side of the tiles into which larger images are
    /// cut, in pixels. Default: 512.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub tile: Option<NonZeroUsize>,
    /// The overlap of adjacent tiles, in pixels: at least the receptive field of the model around a
    /// pixel. Default: 32.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub overlap: Option<usize>,
}

impl TransformConfig for DenoiseConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let model = context.model(&self.model)?;
        check_network(&model)?;
        if model.files(ModelPath::Reconstruct).is_none() {
            let message = format!(
                "the model `{}` has no decoder: it returns codes, not images",
                model.name()
            );
            return Err(vec![ConfigError::new("model", message)]);
        }
        let mut faults = Vec::new();
        let mode = faults.record_all(self.mode(&model));
        let strength = self.strength.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&strength) {
            let message = format!("must lie between 0 and 1; met {strength}");
            faults.push(ConfigError::new("strength", message));
        }
        let fits = |field: &Field, shape: &TensorShape| match model.image_input() {
            Some(ImageInput {
                format, size: None, ..
            }) => fit_any_size(&model, &format, field, shape),
            _ => fit_fixed(&model, field, shape),
        };
        let found = faults.record(find_column(input, self.column.as_deref(), fits));
        let (Some(mode), Some((column, field, shape))) = (mode, found) else {
            return Err(faults);
        };
        if let Err(reason) = check_output(&model, &mode, &shape) {
            faults.push(ConfigError::new("model", reason));
        }
        let name = self.to.as_ref().unwrap_or(field.name());
        let output_index = if self.to.is_some() {
            input.fields().len()
        } else {
            column
        };
        if self.to.is_some() && input.column_with_name(name).is_some() {
            faults.push(ConfigError::new(
                "to",
                format!("the input already has a column `{name}`; choose another name"),
            ));
        }
        let output = faults.record(field_like(field, &shape, name));
        let (Some(output), true) = (output, faults.is_empty()) else {
            return Err(faults);
        };
        self.column = Some(field.name().clone());
        if let DenoiseMode::Tiles { cut, .. } = &mode {
            (self.tile, self.overlap) = (NonZeroUsize::new(cut.tile), Some(cut.overlap));
        }
        let mut fields: Vec<Arc<Field>> = input.fields().iter().cloned().collect();
        fields.truncate(fields.len().max(output_index));
        fields.splice(
            output_index..fields.len().min(output_index + 1),
            [Arc::new(output)],
        );
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        Ok(Box::new(DenoisePlan(Arc::new(DenoiseParams {
            pixels: holds_pixels(&model, field),
            model,
            schema,
            column,
            output_index,
            shape,
            mode,
            strength,
        }))))
    }
}

impl DenoiseConfig {
    /// Selects whether images are processed unchanged or in tiles.
    pub(super) fn mode(&self, model: &Model) -> Result<DenoiseMode, Vec<ConfigError>> {
        let Some(image) = model.image_input().filter(|image| image.size.is_none()) else {
            let set = [
                ("tile", self.tile.is_some()),
                ("overlap", self.overlap.is_some()),
            ];
            let set = set.into_iter().filter(|(_, set)| *set);
            let message = "has no effect, since the model takes records of one shape; leave it out";
            let faults: Vec<ConfigError> =
                set.map(|(key, _)| ConfigError::new(key, message)).collect();
            return if faults.is_empty() {
                Ok(DenoiseMode::Records)
            } else {
                Err(faults)
            };
        };
        let cut = TileCut {
            tile: self.tile.map_or(TILE, NonZeroUsize::get),
            overlap: self.overlap.unwrap_or(OVERLAP),
            multiple: model.size_multiple(),
        };
        let mut faults = Vec::new();
        if !cut.tile.is_multiple_of(cut.multiple) {
            let message = format!(
                "{} is not a multiple of {}, which the model requires",
                cut.tile, cut.multiple
            );
            faults.push(ConfigError::new("tile", message));
        }
        if cut.overlap > cut.tile / 2 {
            let message = format!(
                "{} is more than half of the side of a tile, {}",
                cut.overlap, cut.tile
            );
            faults.push(ConfigError::new("overlap", message));
        }
        if element_count(&image.format.shape(cut.tile, cut.tile))
            .is_none_or(|len| len > MAX_TILE_VALUES)
        {
            faults.push(ConfigError::new(
                "tile",
                format!(
                    "{} is too large: a tile has at most {MAX_TILE_VALUES} values, to bound memory",
                    cut.tile
                ),
            ));
        }
        if faults.is_empty() {
            Ok(DenoiseMode::Tiles {
                format: image.format,
                cut,
            })
        } else {
            Err(faults)
        }
    }
}

/// The maximum number of values of a tile: 8192 x 8192 color pixels, which bounds one call of a
/// model.
const MAX_TILE_VALUES: usize = 3 << 26;

/// The mode in which records are processed.
#[derive(Debug)]
pub(super) enum DenoiseMode {
    /// Records are unchanged: all have the shape that the model takes.
    Records,
    /// Images of any size are cut into tiles.
    Tiles { format: PixelFormat, cut: TileCut },
}

fn fit_any_size(
    model: &Model,
    format: &PixelFormat,
    field: &Field,
    shape: &TensorShape,
) -> Result<(), String> {
    check_pixels(model, field)?;
    let fits = match shape {
        TensorShape::Fixed(row) => format.size(row).is_some(),
        TensorShape::Variable(dims) => *dims == 3,
    };
    let kind = format.describe();
    if fits {
        Ok(())
    } else {
        Err(format!(
            "its records have the shape {shape}, but the model takes {kind}"
        ))
    }
}

/// Checks that the output has the shape of the input; for images of any size, with one test image.
fn check_output(model: &Model, mode: &DenoiseMode, shape: &TensorShape) -> Result<(), String> {
    let record = match (mode, shape) {
        (DenoiseMode::Records, TensorShape::Fixed(row)) => row.clone(),
        (DenoiseMode::Records, TensorShape::Variable(_)) => return Ok(()),
        (DenoiseMode::Tiles { format, cut }, _) => {
            let side = PROBE_SIDE.next_multiple_of(cut.multiple).min(cut.tile);
            format.shape(side, side)
        }
    };
    let output = model
        .output_shape(ModelPath::Reconstruct, &record)
        .map_err(|error| error.to_string())?;
    if same_layout(&output, &record) {
        return Ok(());
    }
    let name = model.name();
    Err(format!(
        "the model `{name}` returns the shape {output:?} for a record of shape {record:?}; \
         `denoise` requires equal shapes"
    ))
}

/// The side of the test image during planning, in pixels.
const PROBE_SIDE: usize = 32;
