//! The options of the transform `encode`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::RECONSTRUCTION_ERROR;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::files::ModelPath;
use crate::model::tensor_spec::TensorSpec;
use crate::model::{Model, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, vector_field};
use crate::transform::encode::extra_outputs::ExtraOutputs;
use crate::transform::encode::input::RecordColumn;
use crate::transform::encode::plan::{EncodeParams, EncodePlan, ReconstructionMode};
use crate::transform::model_columns::{check_network, field_like, holds_pixels};
use crate::transform::{TransformConfig, TransformPlan};

/// The name of the column of the reconstruction.
const RECONSTRUCTION: &str = "reconstruction";

/// Options of `encode`: the model, and the columns to add or keep.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct EncodeConfig {
    /// The model, as declared under `models`.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: String,
    /// The column of tensors or lists to encode. Default: the only one that fits the model.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of the new column of codes. Default: latent.
    #[serde(default = "latent")]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
    /// More outputs of the encoder to add, by the name of the new column, such as
    /// `{ logvar = "logvar" }`. An entry for the column of codes may name the output of the codes.
    /// Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-changes-rows" = true))]
    pub outputs: BTreeMap<String, String>,
    /// Whether to run the decoder as well, and add the column `reconstruction_error`, the loss of
    /// the model per record. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub reconstruct: bool,
    /// Whether to add the output of the decoder as the column `reconstruction`; requires
    /// `reconstruct`. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub keep_reconstruction: bool,
    /// Whether to keep the input tensor column. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

pub(super) fn latent() -> String {
    "latent".to_owned()
}

impl TransformConfig for EncodeConfig {
    const ERROR_COLUMNS: &'static [&'static str] = &[RECONSTRUCTION_ERROR];

    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let model = context.model(&self.model)?;
        check_network(&model)?;
        if let Some(question) = model.code_ambiguity() {
            let message = format!("the model `{}`: {question}", model.name());
            return Err(vec![ConfigError::new("model", message)]);
        }
        let mut faults = Vec::new();
        if self.keep_reconstruction && !self.reconstruct {
            faults.push(ConfigError::new(
                "keep_reconstruction",
                "requires `reconstruct = true`",
            ));
        }
        let found = RecordColumn::find(&model, input, self.column.as_deref());
        let Some(records) = faults.record(found) else {
            return Err(faults);
        };
        let (column, field) = (records.index, input.field(records.index));
        if self.reconstruct {
            let checked = match &records.row {
                Some(row) => check_reconstruction(&model, row),
                None => Err(
                    "its records have different shapes, but a reconstruction requires one \
                             shape"
                        .to_owned(),
                ),
            };
            if let Err(reason) = checked {
                faults.push(ConfigError::new("reconstruct", reason));
            }
        }
        let planned = ExtraOutputs::plan(&model, &self.outputs, &self.to, records.row.as_deref());
        let Some(extras) = faults.record_all(planned) else {
            return Err(faults);
        };
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|&index| self.keep || index != column)
            .collect();
        let added = self
            .added(field, &records, &extras)
            .map_err(|fault| vec![fault])?;
        for (position, (key, added_field)) in added.iter().enumerate() {
            let is_kept = |&index: &usize| input.field(index).name() == added_field.name();
            let before = added.iter().take(position);
            if kept.iter().any(is_kept)
                || before
                    .map(|(_, other)| other.name())
                    .any(|name| name == added_field.name())
            {
                let message = format!(
                    "the input already has a column `{}`; choose another name",
                    added_field.name()
                );
                faults.push(ConfigError::new(*key, message));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.column = Some(field.name().clone());
        let fields = kept
            .iter()
            .map(|&index| Arc::new(input.field(index).clone()));
        let fields: Vec<Arc<Field>> = fields
            .chain(
                added
                    .into_iter()
                    .map(|(_, added_field)| Arc::new(added_field)),
            )
            .collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let reconstruct = match (self.reconstruct, self.keep_reconstruction) {
            (false, _) => ReconstructionMode::No,
            (true, false) => ReconstructionMode::Error,
            (true, true) => ReconstructionMode::Keep,
        };
        Ok(Box::new(EncodePlan(Arc::new(EncodeParams {
            pixels: holds_pixels(&model, field),
            model,
            schema,
            records,
            extras,
            kept,
            reconstruct,
        }))))
    }
}

impl EncodeConfig {
    /// The new columns, each with the option that adds it.
    fn added(
        &self,
        field: &Field,
        records: &RecordColumn,
        extras: &ExtraOutputs,
    ) -> Result<Vec<(&'static str, Field)>, ConfigError> {
        let mut added = vec![("to", vector_field(&self.to, records.code))];
        if self.reconstruct {
            added.push((
                "reconstruct",
                Field::new(RECONSTRUCTION_ERROR, DataType::Float32, false),
            ));
        }
        if let (true, Some(row)) = (self.keep_reconstruction, &records.row) {
            let shape = TensorShape::Fixed(row.clone());
            added.push((
                "keep_reconstruction",
                field_like(field, &shape, RECONSTRUCTION)?,
            ));
        }
        for column in &extras.columns {
            let extra = column.field();
            added.push((
                "outputs",
                extra.map_err(|error| ConfigError::new("outputs", error.to_string()))?,
            ));
        }
        Ok(added)
    }
}

fn check_reconstruction(model: &Model, row: &[usize]) -> Result<(), String> {
    let reason = match model.output_shape(ModelPath::Reconstruct, row) {
        Ok(output) if same_layout(&output, row) => return Ok(()),
        Ok(output) => format!(
            "the model returns the shape {output:?} for records of shape {row:?}, which is not a \
             reconstruction"
        ),
        Err(reason) => reason.to_string(),
    };
    match model.files(ModelPath::Encode).as_deref() {
        Some([file]) if file.outputs.len() > 1 => {
            let outputs: Vec<String> = file.outputs.iter().map(TensorSpec::to_string).collect();
            let outputs = outputs.join(", ");
            Err(format!(
                "{reason}; set `reconstruction` of the model to one of its outputs: {outputs}"
            ))
        }
        _ => Err(reason),
    }
}
