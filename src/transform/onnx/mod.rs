//! The transform `onnx`: runs any ONNX graph, whose inputs are columns and whose outputs become
//! columns.

pub(crate) mod config;
mod input_columns;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::take;

use super::Transform;
use super::rows::{RejectedRows, positions_in_order, with_columns};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::model::graph::{GraphOutputs, GraphSession, RecordTensors};
use crate::model::session::chain::RowFailure;
use crate::transform::onnx::plan::OnnxParams;
use crate::transform::tensor_column::feed::FedInput;

struct OnnxTransform {
    params: Arc<OnnxParams>,
    session: GraphSession,
}

impl Transform for OnnxTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let params = Arc::clone(&self.params);
        let mut rejected = RejectedRows::default();
        let inputs = params
            .feeds
            .iter()
            .map(|feed| feed.read(&batch.records, &mut rejected))
            .collect::<Result<Vec<FedInput>, _>>()?;
        let usable: Vec<usize> = (0..batch.records.num_rows())
            .filter(|&row| !rejected.contains(row))
            .collect();
        let mut failed = RejectedRows::default();
        let results = self.run(&inputs, &usable, &mut failed)?;
        failed.check_model(usable.len())?;
        rejected.extend(failed, |row| row);
        let order = positions_in_order(&results.rows);
        let mut added = Vec::with_capacity(params.columns.len());
        for column in &params.columns {
            let array = column.array(&results.calls[column.output])?;
            added.push(match &order {
                Some(order) => take(&array, order, None)?,
                None => array,
            });
        }
        let kept = rejected.remove_from(batch, rejects)?;
        with_columns(kept, &params.schema, added)
    }
}

/// The outputs of records in the order in which they were computed.
struct GroupedResults {
    /// The rows of the batch.
    rows: Vec<usize>,
    /// For each output of the session, the number of records of each call and their values.
    calls: Vec<Vec<(usize, RecordTensors)>>,
}

impl OnnxTransform {
    /// Runs the records of each combination of shapes together.
    fn run(
        &mut self,
        inputs: &[FedInput],
        usable: &[usize],
        failed: &mut RejectedRows,
    ) -> Result<GroupedResults, StageError> {
        let mut groups: BTreeMap<Vec<&[usize]>, Vec<usize>> = BTreeMap::new();
        for &row in usable {
            let shapes = inputs.iter().map(|input| input.rows[row].1.as_slice());
            groups.entry(shapes.collect()).or_default().push(row);
        }
        let mut results = GroupedResults {
            rows: Vec::with_capacity(usable.len()),
            calls: vec![Vec::new(); self.params.tensors.len()],
        };
        for rows in groups.values() {
            let tensors = inputs
                .iter()
                .map(|input| input.gather(rows))
                .collect::<Result<Vec<_>, _>>()?;
            let GraphOutputs { calls, failures } = self.session.run(&tensors, rows.len());
            for RowFailure { row, code, reason } in failures {
                failed.add(rows[row], (code, reason));
            }
            for (of_call, outputs) in calls {
                let of_call = &rows[of_call];
                if let Err(reason) = self.check_shapes(&outputs) {
                    for &row in of_call {
                        failed.add(row, (RejectCode::Model, reason.clone()));
                    }
                    continue;
                }
                results.rows.extend_from_slice(of_call);
                for (all, tensor) in results.calls.iter_mut().zip(outputs) {
                    all.push((of_call.len(), tensor));
                }
            }
        }
        Ok(results)
    }

    fn check_shapes(&self, outputs: &[RecordTensors]) -> Result<(), String> {
        let mut columns = self.params.columns.iter();
        columns.try_for_each(|column| column.check(&outputs[column.output].shape))
    }
}

#[cfg(test)]
mod tests;
