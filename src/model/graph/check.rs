//! The checks of a graph before the first record: whether its inputs have one batch dimension, and
//! whether the outputs of a record depend on it alone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float64Type};
use thiserror::Error;

use crate::model::graph::{GraphFile, GraphSession, RecordTensors};
use crate::model::nondeterminism;
use crate::model::ort_backend::graph_session::GraphError;
use crate::model::ort_backend::tensor_values::zeros;
use crate::model::tensor_spec::TensorSpec;
use crate::model::trial_run::{MAX_VALUES, TOLERANCE};
use crate::model::{Model, tensor_selection};

/// Why a graph cannot be used with its inputs or outputs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct GraphFault(String);

impl GraphFile {
    /// Checks that all inputs are tensors with one batch dimension, whose element types columns can
    /// hold.
    ///
    /// # Errors
    /// The first input that a column cannot feed, as a phrase.
    pub(in crate::model) fn check_inputs(&self) -> Result<(), GraphFault> {
        for input in &self.inputs {
            if input.element.arrow_type().is_none() {
                return Err(GraphFault(format!(
                    "input {input} has a type that columns cannot feed; export the model with \
                     inputs of numbers, bool or string"
                )));
            }
            tensor_selection::check_batch(input).map_err(GraphFault)?;
            if let (Some(batch), Some(other)) = (self.batch(), input.batch())
                && batch != other
            {
                return Err(GraphFault(format!(
                    "input {input} has a batch size of {other} records, but another input {batch}; \
                     the first dimension of every input has to be the batch; the inputs are: {}",
                    tensor_selection::tensor_list(&self.inputs)
                )));
            }
        }
        if self.inputs.is_empty() {
            return Err(GraphFault("the graph has no inputs".to_owned()));
        }
        Ok(())
    }
}

impl Model {
    /// As [`Model::check_graph`], for more outputs of the encoder and records of the shape `row`.
    ///
    /// # Errors
    /// Those of [`Model::check_graph`].
    pub(crate) fn check_encoder_outputs(
        &self,
        outputs: &[TensorSpec],
        row: &[usize],
    ) -> Result<Option<Vec<Vec<usize>>>, GraphFault> {
        let Some(graph) = &self.graph else {
            return Ok(None);
        };
        let shape = graph.inputs.first().and_then(|input| input.feed(row));
        let Some(shape) = shape else {
            return Ok(None);
        };
        let mut session = self
            .graph_session(graph, outputs)
            .map_err(|error| GraphFault(error.to_string()))?;
        self.check_graph(graph, outputs, &[shape], &mut session)
    }

    /// Checks that the outputs do not depend on random numbers or on the other records of a batch,
    /// unless the model allows it: from the operators, and with a few records whose inputs have the
    /// given shapes. Returns the shapes of the outputs of a record; `None` if the graph fails on
    /// the records.
    ///
    /// # Errors
    /// An output that is not a function of the record, as a phrase.
    pub(crate) fn check_graph(
        &self,
        graph: &GraphFile,
        outputs: &[TensorSpec],
        shapes: &[Vec<usize>],
        session: &mut GraphSession,
    ) -> Result<Option<Vec<Vec<usize>>>, GraphFault> {
        let allowed = self.nondeterminism.is_some();
        let single = match graph.batch() {
            Some(batch) => batch == 1,
            None => (self.runtime.max_batch_records).is_some_and(|max| max.get() == 1),
        };
        if !allowed {
            let fault = outputs.iter().find_map(|output| {
                nondeterminism::fault(
                    &graph.nondeterministic,
                    &output.name,
                    single,
                    Some("outputs"),
                )
            });
            if let Some(fault) = fault {
                return Err(GraphFault(fault.message));
            }
        }
        let values: usize = shapes
            .iter()
            .map(|shape| shape.iter().product::<usize>())
            .sum();
        if values > MAX_VALUES {
            return Ok(None);
        }
        let mut run = |records: [u8; 3]| -> Result<Option<Vec<RecordTensors>>, GraphFault> {
            let Some(inputs) = trial_inputs(graph, shapes, records) else {
                return Ok(None);
            };
            // A fixed batch size of 1 or 2 cannot hold all three records.
            let rows = if graph.batch().is_some_and(|batch| batch < 3) {
                1..2
            } else {
                0..3
            };
            match session.call(&inputs, rows) {
                Ok(found) => Ok(Some(found)),
                Err(GraphError::Output(reason)) => Err(GraphFault(reason)),
                Err(GraphError::Call(_)) => Ok(None),
            }
        };
        let Some(first) = run([0, 1, 0])? else {
            return Ok(None);
        };
        let found = first.iter().map(|output| output.shape.clone()).collect();
        if allowed || graph.batch().is_some_and(|batch| batch < 3) {
            return Ok(Some(found));
        }
        let (Some(other), Some(again)) = (run([2, 1, 2])?, run([0, 1, 0])?) else {
            return Ok(Some(found));
        };
        for (index, output) in outputs.iter().enumerate() {
            let cause = if !same_record(&first[index], &again[index]) {
                "differs between two runs; export the model without random numbers"
            } else if !same_record(&first[index], &other[index]) {
                "depends on the other records of its batch; no operator may combine records, such \
                 as a mean over the first dimension; export the model with a batch size of 1"
            } else {
                continue;
            };
            return Err(GraphFault(format!(
                "the output {output} of a record {cause}, or set `allow_nondeterministic = true`"
            )));
        }
        Ok(Some(found))
    }
}

/// The inputs of three records, each filled with one of three patterns; `None` if Arrow cannot
/// create them.
fn trial_inputs(
    graph: &GraphFile,
    shapes: &[Vec<usize>],
    records: [u8; 3],
) -> Option<Vec<RecordTensors>> {
    let input = |(spec, shape): (&TensorSpec, &Vec<usize>)| {
        let (element, len) = (spec.element.arrow_type()?, shape.iter().product());
        let of = |pattern: u8| trial_values(&element, len, pattern);
        let [one, two, three] = records.map(of);
        let (one, two, three) = (one?, two?, three?);
        Some(RecordTensors {
            shape: shape.clone(),
            values: concat(&[one.as_ref(), two.as_ref(), three.as_ref()]).ok()?,
        })
    };
    graph.inputs.iter().zip(shapes).map(input).collect()
}

/// The values of a record: zeros, or small numbers, of which integers are 0 or 1, since they may be
/// indices.
fn trial_values(element: &DataType, len: usize, pattern: u8) -> Option<ArrayRef> {
    if pattern == 0 {
        return zeros(element, len).ok();
    }
    let mixed = |index: usize| {
        let mixed = (index as u32 + u32::from(pattern)).wrapping_mul(0x9e37_79b1);
        (mixed >> 24) as u8
    };
    let values = (0..len).map(mixed);
    let values: ArrayRef = match element {
        DataType::Utf8 => {
            let texts = values.map(|value| if value % 2 == 0 { "a" } else { "b" });
            Arc::new(StringArray::from_iter_values(texts))
        }
        DataType::Boolean => {
            let bits: Vec<bool> = values.map(|value| value % 2 == 0).collect();
            Arc::new(BooleanArray::from(bits))
        }
        number if number.is_floating() => {
            let scale = f64::from(pattern) / 255.0;
            let floats = values.map(|value| f64::from(value) * scale);
            let floats = Float64Array::from_iter_values(floats);
            return cast(&floats, number).ok();
        }
        integer => {
            let integers = Int64Array::from_iter_values(values.map(|value| i64::from(value % 2)));
            return cast(&integers, integer).ok();
        }
    };
    Some(values)
}

/// Whether the second of three records has the same values in two outputs, up to rounding.
fn same_record(one: &RecordTensors, other: &RecordTensors) -> bool {
    let second = |output: &RecordTensors| {
        let len = output.values.len() / 3;
        output.values.slice(len, len)
    };
    let (one, other) = (second(one), second(other));
    if !one.data_type().is_floating() {
        return one.to_data() == other.to_data();
    }
    let wide = |values: &ArrayRef| cast(values, &DataType::Float64);
    let (Ok(one), Ok(other)) = (wide(&one), wide(&other)) else {
        return false;
    };
    let (one, other) = (
        one.as_primitive::<Float64Type>().values(),
        other.as_primitive::<Float64Type>().values(),
    );
    let finite = one.iter().filter(|value| value.is_finite());
    let largest = finite.fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let same = |(a, b): (&f64, &f64)| {
        a.to_bits() == b.to_bits() || (a - b).abs() <= f64::from(TOLERANCE) * largest
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}
