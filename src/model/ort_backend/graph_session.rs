//! A session of ONNX Runtime for graphs with inputs and outputs of any number and type.

use std::time::Instant;

use arrow::array::ArrayRef;
use ort::session::{HasSelectedOutputs, RunOptions};
use ort::value::{DynValue, ValueType};

use crate::model::ort_backend::session::InferenceMetrics;
use crate::model::ort_backend::tensor_values::{tensor_of, values_of};
use crate::model::ort_backend::{LoadedGraph, element_of, reason, selected_outputs};
use crate::model::tensor_spec::TensorSpec;

/// The values of one tensor for several records.
#[derive(Debug, Clone)]
pub(crate) struct RecordTensors {
    /// The shape of one record.
    pub(crate) shape: Vec<usize>,
    /// The values of all records, one after another.
    pub(crate) values: ArrayRef,
}

/// Why a call of a graph failed.
#[derive(Debug)]
pub(in crate::model) enum GraphError {
    /// ONNX Runtime failed on the values.
    Call(String),
    /// An output does not have one entry per record, or another type than the file declares.
    Output(String),
}

/// A session that runs all inputs of a graph to the selected outputs.
pub(in crate::model) struct OrtGraphSession {
    session: ort::session::Session,
    run_options: RunOptions<HasSelectedOutputs>,
    inputs: Vec<String>,
    outputs: Vec<TensorSpec>,
    metrics: InferenceMetrics,
}

impl OrtGraphSession {
    /// A session that computes `outputs`. `metrics` observes each call.
    ///
    /// # Errors
    /// The message of ONNX Runtime when it does not support the selection.
    pub(in crate::model) fn new(
        LoadedGraph(session): LoadedGraph,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        metrics: InferenceMetrics,
    ) -> Result<Self, String> {
        Ok(Self {
            session,
            run_options: selected_outputs(outputs.iter().map(|output| output.name.as_str()))?,
            inputs: inputs.iter().map(|input| input.name.clone()).collect(),
            outputs: outputs.to_vec(),
            metrics,
        })
    }

    /// Runs one call with `batch` records. `inputs` are in the order of the graph. Returns the
    /// outputs of the first `rows` records.
    pub(in crate::model) fn run(
        &mut self,
        inputs: &[RecordTensors],
        batch: usize,
        rows: usize,
    ) -> Result<Vec<RecordTensors>, GraphError> {
        let begun = Instant::now();
        let mut feed = Vec::with_capacity(inputs.len());
        for (name, input) in self.inputs.iter().zip(inputs) {
            let dims: Vec<usize> = std::iter::once(batch)
                .chain(input.shape.iter().copied())
                .collect();
            let value = tensor_of(&dims, &input.values)
                .map_err(|reason| GraphError::Call(format!("input `{name}`: {reason}")))?;
            feed.push((name.as_str(), value));
        }
        let found = self
            .session
            .run_with_options(feed, &self.run_options)
            .map_err(|error| {
                let fed = self.inputs.iter().zip(inputs);
                let shapes: Vec<String> = fed
                    .map(|(name, input)| format!("`{name}` {:?}", input.shape))
                    .collect();
                let cause = reason(error);
                GraphError::Call(format!(
                    "{cause}; the inputs of a record have the shapes: {}",
                    shapes.join(", ")
                ))
            })?;
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.records.observe(rows as f64);
        let output = |spec: &TensorSpec| {
            let value = found
                .get(&spec.name)
                .ok_or_else(|| "ONNX Runtime did not return it".to_owned())
                .and_then(|value| record_tensors(value, spec, batch, rows));
            value.map_err(|reason| GraphError::Output(format!("output {spec}: {reason}")))
        };
        self.outputs.iter().map(output).collect()
    }
}

/// The values of an output for the first `rows` of `batch` records.
fn record_tensors(
    value: &DynValue,
    spec: &TensorSpec,
    batch: usize,
    rows: usize,
) -> Result<RecordTensors, String> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(format!("it has the type {}, not a tensor", value.dtype()));
    };
    if element_of(*ty) != spec.element {
        return Err(format!("its values have the type {}", element_of(*ty)));
    }
    let dims: Vec<usize> = shape
        .iter()
        .filter_map(|&dim| usize::try_from(dim).ok())
        .collect();
    let Some((_, row)) = dims.split_first().filter(|(first, _)| **first == batch) else {
        return Err(format!(
            "its shape is {dims:?} for a batch of {batch} records; expected {batch} as its first \
             dimension"
        ));
    };
    Ok(RecordTensors {
        values: values_of(value, *ty, row.iter().product::<usize>() * rows)?,
        shape: row.to_vec(),
    })
}
