//! The options of the transform `ensemble`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::ANOMALY_SCORE;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::files::ModelPath;
use crate::model::{Model, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::TensorShape;
use crate::transform::ensemble::{EnsembleMember, EnsembleParams, EnsemblePlan};
use crate::transform::model_columns::{check_network, find_column, fit_fixed, holds_pixels};
use crate::transform::rows::append;
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `ensemble`: the models, whose errors are averaged to one score.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct EnsembleConfig {
    /// The models, as declared under `models`: 2 or more autoencoders with the same input, such as
    /// networks of different code sizes that were trained on the same data. The card of each states
    /// its mean error on normal records.
    // The digests of the models are part of the fingerprint instead of their names.
    #[schemars(extend("x-changes-rows" = false))]
    pub models: Vec<String>,
    /// The column of tensors to score. Default: the only one that fits the models.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of the new float32 column: the mean over the models of the error of the record
    /// divided by the mean error in the card of the model. Its mean over normal records is about 1.
    /// Default: anomaly_score.
    #[serde(default = "anomaly_score")]
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
}

fn anomaly_score() -> String {
    ANOMALY_SCORE.to_owned()
}

impl TransformConfig for EnsembleConfig {
    const ERROR_COLUMNS: &'static [&'static str] = &[ANOMALY_SCORE];

    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let models = self.open_models(context)?;
        let first = &models[0];
        let fits = |field: &Field, shape: &TensorShape| fit_fixed(first, field, shape);
        let found = find_column(input, self.column.as_deref(), fits);
        let (column, field, shape) = found.map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        let row = match shape {
            TensorShape::Fixed(row) => row,
            TensorShape::Variable(_) => Vec::new(),
        };
        let mut members = Vec::with_capacity(models.len());
        for model in &models {
            let error = model.member_error(first);
            let checked = error
                .map_err(|error| error.to_string())
                .and_then(|error| check_output(model, &row).map(|()| error))
                .map_err(|reason| ConfigError::new("models", reason));
            members.extend(faults.record(checked).map(|mean_error| EnsembleMember {
                model: Arc::clone(model),
                mean_error,
            }));
        }
        let score = Field::new(&self.to, DataType::Float32, false);
        let schema = faults.record(append(input, "to", score));
        let (Some(schema), true) = (schema, faults.is_empty()) else {
            return Err(faults);
        };
        self.column = Some(field.name().clone());
        Ok(Box::new(EnsemblePlan(Arc::new(EnsembleParams {
            pixels: holds_pixels(first, field),
            members,
            column,
            row,
            schema,
        }))))
    }
}

impl EnsembleConfig {
    /// The models, of which there are 2 or more.
    fn open_models(&self, context: &PlanContext) -> Result<Vec<Arc<Model>>, Vec<ConfigError>> {
        let (mut models, mut faults) = (Vec::with_capacity(self.models.len()), Vec::new());
        for (index, name) in self.models.iter().enumerate() {
            if self.models[..index].contains(name) {
                let message = format!("names the model `{name}` twice; remove one of them");
                faults.push(ConfigError::new("models", message));
                continue;
            }
            let opened = context
                .model(name)
                .and_then(|model| check_network(&model).map(|()| model));
            match opened {
                Ok(model) => models.push(model),
                Err(found) => faults.extend(
                    found
                        .into_iter()
                        .map(|fault| ConfigError::new("models", fault.message)),
                ),
            }
        }
        if self.models.len() < 2 {
            let count = self.models.len();
            let message = format!("requires 2 or more models; met {count}");
            faults.push(ConfigError::new("models", message));
        }
        // A model whose faults are already reported is missing without a fault.
        if models.len() == self.models.len() && faults.is_empty() {
            Ok(models)
        } else {
            Err(faults)
        }
    }
}

fn check_output(model: &Model, row: &[usize]) -> Result<(), String> {
    let output = model
        .output_shape(ModelPath::Reconstruct, row)
        .map_err(|error| error.to_string())?;
    if same_layout(&output, row) {
        return Ok(());
    }
    Err(format!(
        "the model `{}` returns the shape {output:?} for a record of shape {row:?}, which is not a \
         reconstruction",
        model.name()
    ))
}
