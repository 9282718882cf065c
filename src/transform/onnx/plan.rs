//! The plan of the transform `onnx`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::StageError;
use crate::model::Model;
use crate::model::tensor_spec::TensorSpec;
use crate::transform::onnx::OnnxTransform;
use crate::transform::tensor_column::feed::InputFeed;
use crate::transform::tensor_column::output::OutputColumn;
use crate::transform::{Transform, TransformPlan};

pub(super) struct OnnxParams {
    pub(super) model: Arc<Model>,
    pub(super) input: SchemaRef,
    pub(super) schema: SchemaRef,
    /// The columns of each input, in the order of the graph.
    pub(super) feeds: Vec<InputFeed>,
    /// The outputs that the session computes.
    pub(super) tensors: Vec<TensorSpec>,
    pub(super) columns: Vec<OutputColumn>,
}

pub(crate) struct OnnxPlan(pub(super) Arc<OnnxParams>);

impl TransformPlan for OnnxPlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        let params = Arc::clone(&self.0);
        let Some(graph) = params.model.graph() else {
            let name = params.model.name();
            return Err(StageError::Model(format!(
                "the model `{name}` has no single graph"
            )));
        };
        let session = params.model.graph_session(graph, &params.tensors)?;
        Ok(Box::new(OnnxTransform { params, session }))
    }

    fn bytes_per_pixel(&self) -> u64 {
        let columns = self.0.columns.iter();
        columns.map(OutputColumn::variable_value_bytes).sum()
    }

    fn scratch_bytes(&self) -> u64 {
        let OnnxParams { model, feeds, .. } = &*self.0;
        let len = |feed: &InputFeed| feed.trial_shape().iter().product::<usize>();
        let graph = model.graph();
        graph.map_or(0, |graph| {
            model.graph_scratch_bytes(graph, feeds.iter().map(len).sum())
        })
    }

    fn summary(&self) -> String {
        let OnnxParams {
            model,
            input,
            feeds,
            tensors,
            columns,
            ..
        } = &*self.0;
        let feed =
            |feed: &InputFeed| format!("{} from {}", feed.spec, feed.names(input).join(", "));
        let output =
            |column: &OutputColumn| format!("{} to {}", tensors[column.output], column.name);
        let feeds: Vec<String> = feeds.iter().map(feed).collect();
        let outputs: Vec<String> = columns.iter().map(output).collect();
        format!(
            "model {}: {}; {}",
            model.name(),
            feeds.join("; "),
            outputs.join("; ")
        )
    }
}
