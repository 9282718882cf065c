//! The calls of a graph: slices of bounded size, padding to a fixed batch size, and the isolation
//! of records on which the graph fails.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat;
use parking_lot::Mutex;

use crate::batch::reject::RejectCode;
use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::ort_backend::graph_session::{GraphError, OrtGraphSession, RecordTensors};
use crate::model::ort_backend::tensor_values::zeros;
use crate::model::session::chain::RowFailure;
use crate::model::session::max_call_rows;

/// The backend that runs the calls.
pub(super) enum GraphBackend {
    /// A session that belongs to one worker.
    Own(OrtGraphSession),
    /// A session that all workers share.
    Shared(Arc<Mutex<OrtGraphSession>>),
}

/// A session of a graph, ready to run on the thread that owns it.
pub(crate) struct GraphSession {
    backend: GraphBackend,
    batch: Option<usize>,
    limits: InferenceBatchLimits,
}

/// The outputs of records of one shape.
#[derive(Default)]
pub(crate) struct GraphOutputs {
    /// The records of each call, and their outputs in the order of the selection.
    pub(crate) calls: Vec<(Range<usize>, Vec<RecordTensors>)>,
    /// The records on which the graph failed.
    pub(crate) failures: Vec<RowFailure>,
}

impl GraphSession {
    pub(super) fn new(
        backend: GraphBackend,
        batch: Option<usize>,
        limits: InferenceBatchLimits,
    ) -> Self {
        Self {
            backend,
            batch,
            limits,
        }
    }

    /// Runs `rows` records, whose inputs are in the order of the graph. If a call fails, its records
    /// are run one at a time, so that only the failing ones are lost.
    pub(crate) fn run(&mut self, inputs: &[RecordTensors], rows: usize) -> GraphOutputs {
        let mut outputs = GraphOutputs::default();
        let len = inputs
            .iter()
            .map(|input| input.values.len() / rows.max(1))
            .sum();
        let slice_rows = match max_call_rows(self.batch, self.limits, len) {
            Ok(slice_rows) => slice_rows,
            Err(reason) => {
                let failure = |row| failure(row, reason.clone());
                outputs.failures.extend((0..rows).map(failure));
                return outputs;
            }
        };
        for first in (0..rows).step_by(slice_rows) {
            let slice = first..rows.min(first + slice_rows);
            if let Ok(found) = self.call(inputs, slice.clone()) {
                outputs.calls.push((slice, found));
                continue;
            }
            for row in slice {
                match self.call(inputs, row..row + 1) {
                    Ok(found) => outputs.calls.push((row..row + 1, found)),
                    Err(GraphError::Call(reason) | GraphError::Output(reason)) => {
                        outputs.failures.push(failure(row, reason));
                    }
                }
            }
        }
        outputs
    }

    /// Runs one call. A panic fails only this call.
    pub(super) fn call(
        &mut self,
        inputs: &[RecordTensors],
        rows: Range<usize>,
    ) -> Result<Vec<RecordTensors>, GraphError> {
        let batch = self.batch.unwrap_or(rows.len());
        let slices = inputs
            .iter()
            .map(|input| slice(input, &rows, batch))
            .collect::<Result<Vec<_>, _>>()?;
        let run = |session: &mut OrtGraphSession| {
            let result = catch_unwind(AssertUnwindSafe(|| session.run(&slices, batch, rows.len())));
            result.unwrap_or_else(|_| Err(GraphError::Call("the session panicked".to_owned())))
        };
        match &mut self.backend {
            GraphBackend::Own(session) => run(session),
            GraphBackend::Shared(session) => run(&mut session.lock()),
        }
    }
}

/// The records `rows` of an input, extended by zeros to `batch` records.
fn slice(
    input: &RecordTensors,
    rows: &Range<usize>,
    batch: usize,
) -> Result<RecordTensors, GraphError> {
    let len = input.shape.iter().product::<usize>();
    let values = input.values.slice(rows.start * len, rows.len() * len);
    let missing = (batch - rows.len().min(batch)) * len;
    let padded = match missing {
        0 => Ok(values),
        missing => zeros(values.data_type(), missing)
            .and_then(|padding| concat(&[values.as_ref(), padding.as_ref()])),
    };
    Ok(RecordTensors {
        shape: input.shape.clone(),
        values: padded.map_err(|error| GraphError::Call(error.to_string()))?,
    })
}

fn failure(row: usize, reason: String) -> RowFailure {
    RowFailure {
        row,
        code: RejectCode::Model,
        reason,
    }
}
