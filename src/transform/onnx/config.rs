//! The options of the transform `onnx`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::Model;
use crate::model::graph::GraphFile;
use crate::model::tensor_spec::TensorSpec;
use crate::plan_context::PlanContext;
use crate::transform::onnx::input_columns::{input_feeds, selected_outputs};
use crate::transform::onnx::plan::{OnnxParams, OnnxPlan};
use crate::transform::rows::append;
use crate::transform::tensor_column::feed::InputFeed;
use crate::transform::tensor_column::output::{OutputColumn, named_sizes};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `onnx`: the model, the columns of its inputs, and the columns to add.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct OnnxConfig {
    /// The model, as declared under `models`: one ONNX file with any inputs and outputs.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: String,
    /// The column that feeds each input, by the name of the input. Several columns are joined to
    /// one vector. Default: the column with the name of the input, or for a model with one input
    /// the only column that fits.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub input_feed: BTreeMap<String, FeedColumns>,
    /// The outputs to add, by the name of the new column. Default: all, each with its own name.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub outputs: BTreeMap<String, String>,
    /// The effect of a null in a column that feeds an input. Default: reject.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub nulls: NullTreatment,
}

/// The columns that feed an input.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the name of a column, or a list of names"
)]
pub(crate) enum FeedColumns {
    /// One column.
    One(String),
    /// Several columns, in the order of the vector.
    Several(Vec<String>),
}

impl FeedColumns {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// The effect of a null in a column that feeds an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NullTreatment {
    /// The record is rejected.
    #[default]
    Reject,
    /// The value is NaN in inputs of floating-point numbers, as for models that impute. Elsewhere
    /// the record is rejected.
    Nan,
}

impl TransformConfig for OnnxConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let model = context.model(&self.model)?;
        let Some(graph) = model.graph() else {
            let message = format!(
                "the model `{}` has an encoder and a decoder; declare the file to run with the key \
                 `model` of its own [models] table",
                model.name()
            );
            return Err(vec![ConfigError::new("model", message)]);
        };
        let mut faults = Vec::new();
        let named = self.input_feed.iter();
        let named = named
            .map(|(tensor, columns)| (tensor.as_str(), columns.names()))
            .collect();
        let as_nan = self.nulls == NullTreatment::Nan;
        let feeds = faults.record_all(input_feeds(&named, as_nan, graph, input));
        let selected = faults.record_all(selected_outputs(&self.outputs, graph));
        let (Some(feeds), Some(selected)) = (feeds, selected) else {
            return Err(faults);
        };
        let columns = plan_outputs(&model, graph, &feeds, &selected)?;
        let mut schema = Arc::clone(input);
        for column in &columns.columns {
            let field: Field = column
                .field()
                .map_err(|error| vec![ConfigError::new("outputs", error.to_string())])?;
            if let Some(next) = faults.record(append(&schema, "outputs", field)) {
                schema = next;
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.input_feed = feeds
            .iter()
            .map(|feed| {
                let names = feed.names(input);
                let fed = match names.as_slice() {
                    [one] => FeedColumns::One((*one).to_owned()),
                    several => {
                        FeedColumns::Several(several.iter().map(ToString::to_string).collect())
                    }
                };
                (feed.spec.name.clone(), fed)
            })
            .collect();
        self.outputs = selected
            .iter()
            .map(|(name, spec)| (name.clone(), spec.name.clone()))
            .collect();
        Ok(Box::new(OnnxPlan(Arc::new(OnnxParams {
            model: Arc::clone(&model),
            input: Arc::clone(input),
            schema,
            feeds,
            tensors: columns.tensors,
            columns: columns.columns,
        }))))
    }
}

/// The columns of the outputs, and the outputs that the session computes.
struct PlannedOutputs {
    tensors: Vec<TensorSpec>,
    columns: Vec<OutputColumn>,
}

fn plan_outputs(
    model: &Model,
    graph: &GraphFile,
    feeds: &[InputFeed],
    selected: &[(String, &TensorSpec)],
) -> Result<PlannedOutputs, Vec<ConfigError>> {
    let fault = |key: &str, message: String| vec![ConfigError::new(key, message)];
    let mut tensors: Vec<TensorSpec> = Vec::new();
    for (_, spec) in selected {
        if spec.element.arrow_type().is_some() && !tensors.iter().any(|one| one.name == spec.name) {
            tensors.push((*spec).clone());
        }
    }
    let mut session = model
        .graph_session(graph, &tensors)
        .map_err(|error| fault("model", error.to_string()))?;
    let shapes: Vec<Vec<usize>> = feeds.iter().map(InputFeed::trial_shape).collect();
    let trial = model
        .check_graph(graph, &tensors, &shapes, &mut session)
        .map_err(|reason| fault("outputs", format!("the model `{}`: {reason}", model.name())))?;
    let sizes = named_sizes(feeds);
    let column = |(name, spec): &(String, &TensorSpec)| {
        let index = tensors.iter().position(|one| one.name == spec.name);
        let found = trial
            .as_ref()
            .zip(index)
            .and_then(|(found, position)| found.get(position));
        OutputColumn::new(name, (index.unwrap_or_default(), spec), &sizes, found)
    };
    let columns = selected.iter().map(column).collect::<Result<Vec<_>, _>>();
    Ok(PlannedOutputs {
        columns: columns.map_err(|reason| fault("outputs", reason))?,
        tensors,
    })
}
