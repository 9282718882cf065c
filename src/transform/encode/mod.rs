//! The transform `encode`: runs the encoder to convert a tensor column to a latent, and optionally
//! the decoder to compute the reconstruction error.

pub(crate) mod config;
mod extra_outputs;
mod input;
pub(crate) mod plan;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::compute::take;

use super::model_columns::{reject_model_failures, reject_not_finite};
use super::rows::{RejectedRows, positions_in_order};
use super::{ImagePreview, Transform};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::image::PixelFormat;
use crate::model::inference_error::InferenceError;
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::tensor::{all_finite, fixed_column, fixed_values};
use crate::transform::encode::input::{RecordColumn, RecordGroup};
use crate::transform::encode::plan::{EncodeParams, ReconstructionMode};

struct EncodeTransform {
    params: Arc<EncodeParams>,
    encoder: SessionChain,
    /// Whether the output of `encoder` is the code, followed by the reconstruction.
    returns_both: bool,
    decoder: Option<SessionChain>,
    /// The reconstructions of the current slice.
    decoded: Vec<f32>,
}

impl Transform for EncodeTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let plan = Arc::clone(&self.params);
        let (batch, groups) = plan.records.read(batch, rejects)?;
        let rows = batch.records.num_rows();
        let (mut rejected, mut order) = (RejectedRows::default(), Vec::with_capacity(rows));
        let mut results = EncodedRows {
            codes: Vec::with_capacity(rows * plan.records.code),
            extras: vec![Vec::new(); plan.extras.columns.len()],
            ..EncodedRows::default()
        };
        for group in &groups {
            let mut of_group = RejectedRows::default();
            self.run(group, &mut results, &mut of_group);
            rejected.extend(of_group, |row| group.rows[row]);
            order.extend_from_slice(&group.rows);
        }
        rejected.check_model(rows)?;
        let added = results.columns(&plan, &order)?;
        let kept = plan
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)));
        let encoded = RecordBatch::try_new(Arc::clone(&plan.schema), kept.chain(added).collect())?;
        rejected.remove_from(batch.with_records(encoded), rejects)
    }

    fn preview(&mut self, input: &Batch, output: &Batch) -> Option<ImagePreview> {
        let plan = Arc::clone(&self.params);
        if plan.reconstruct == ReconstructionMode::No {
            return None;
        }
        // The first record that was not rejected. Its reconstruction is computed again, because it
        // is not kept.
        let ordinal = *output.row_ordinals.first()?;
        let index = input
            .row_ordinals
            .iter()
            .position(|&origin| origin == ordinal)?;
        let (column, row) = (plan.records.index, plan.records.row.as_ref()?);
        let format = PixelFormat::from_field(input.records.schema_ref().field(column))?;
        let len = element_count(row)?;
        let before =
            fixed_values(input.records.column(column))?.get(index * len..(index + 1) * len)?;
        let mut code = Vec::new();
        self.encoder.run(before, row, &mut code).ok()?;
        let mut after = code.split_off(plan.records.code.min(code.len()));
        match &mut self.decoder {
            Some(decoder) => {
                after.clear();
                decoder
                    .run(&code, &[plan.records.code], &mut after)
                    .map(|_| ())
                    .ok()?;
            }
            None if self.returns_both => after.truncate(len),
            None => after = code,
        }
        ImagePreview::new(ordinal, &format, row, [before, &after])
    }

    fn warm_up(&mut self) -> Result<(), StageError> {
        let name = self.params.model.name().to_owned();
        self.run_zeros().map_err(|reason| {
            StageError::Model(format!("the model `{name}` fails on zeros: {reason}"))
        })
    }
}

impl EncodeTransform {
    fn run_zeros(&mut self) -> Result<(), InferenceError> {
        let RecordColumn { row, code, .. } = &self.params.records;
        // The benefit depends on the shapes of the records, which are unknown.
        let Some(row) = row else { return Ok(()) };
        let zeros = vec![0.0; element_count(row).unwrap_or_default()];
        let mut codes = Vec::new();
        self.encoder.run(&zeros, row, &mut codes)?;
        codes.truncate(*code);
        match &mut self.decoder {
            Some(decoder) => decoder.run(&codes, &[*code], &mut Vec::new()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Runs the model slice by slice, so that a record stays in the cache from its code to its
    /// error, and that discarded reconstructions take little memory.
    fn run(&mut self, group: &RecordGroup, results: &mut EncodedRows, rejected: &mut RejectedRows) {
        let plan = Arc::clone(&self.params);
        let len = element_count(&group.shape).unwrap_or_default().max(1);
        let slice_rows = self.encoder.slice_rows(len);
        for (slice, slice_records) in group.values().chunks(slice_rows * len).enumerate() {
            let (first, start) = (slice * slice_rows, results.codes.len());
            self.encode(slice_records, &group.shape, first, results, rejected);
            let codes = &results.codes[start..];
            reject_not_finite(codes, plan.records.code, "code", first, rejected);
            if plan.reconstruct != ReconstructionMode::No {
                self.decode(codes, first, rejected);
                self.compare(slice_records, first, &mut results.errors, rejected);
            }
            if plan.reconstruct == ReconstructionMode::Keep {
                results.reconstructions.extend_from_slice(&self.decoded);
            }
        }
    }

    /// Appends the codes and the extra outputs of a slice to the results. A model that returns the
    /// reconstructions as well writes them into `self.decoded`.
    fn encode(
        &mut self,
        records: &[f32],
        shape: &[usize],
        first: usize,
        results: &mut EncodedRows,
        rejected: &mut RejectedRows,
    ) {
        let plan = Arc::clone(&self.params);
        let code = plan.records.code;
        if !self.returns_both && plan.extras.columns.is_empty() {
            let failures = self
                .encoder
                .run_rows(records, shape, code, &mut results.codes);
            return reject_model_failures(failures, first, rejected);
        }
        let record_len = element_count(shape).unwrap_or_default();
        let reconstruction = if self.returns_both { record_len } else { 0 };
        let all_len = code + reconstruction + plan.extras.lens().sum::<usize>();
        let mut all = Vec::with_capacity(records.len() / record_len.max(1) * all_len);
        let failures = self.encoder.run_rows(records, shape, all_len, &mut all);
        reject_model_failures(failures, first, rejected);
        self.decoded.clear();
        for (row, output) in all.chunks_exact(all_len).enumerate() {
            let (of_code, output) = output.split_at(code);
            results.codes.extend_from_slice(of_code);
            let (decoded, mut extras) = output.split_at(reconstruction);
            self.decoded.extend_from_slice(decoded);
            for (index, len) in plan.extras.lens().enumerate() {
                let (extra, rest) = extras.split_at(len);
                results.extras[index].extend_from_slice(extra);
                let what = || format!("value of the output `{}`", plan.extras.tensors[index].name);
                if !all_finite(extra) {
                    reject_not_finite(extra, len, &what(), first + row, rejected);
                }
                extras = rest;
            }
        }
    }

    /// Decodes a slice into `self.decoded`, unless the encoder has returned its reconstructions.
    fn decode(&mut self, codes: &[f32], first: usize, rejected: &mut RejectedRows) {
        if self.returns_both {
            return;
        }
        let len = self.record_len();
        self.decoded.clear();
        match &mut self.decoder {
            Some(decoder) => {
                let code = self.params.records.code;
                let failures = decoder.run_rows(codes, &[code], len, &mut self.decoded);
                reject_model_failures(failures, first, rejected);
            }
            None => self.decoded.extend_from_slice(codes),
        }
    }

    /// The number of values of a record of fixed shape, which a reconstruction requires.
    fn record_len(&self) -> usize {
        let row = self.params.records.row.as_deref();
        row.and_then(element_count).unwrap_or_default().max(1)
    }

    /// Appends the error of each record of a decoded slice to `errors`.
    fn compare(
        &self,
        records: &[f32],
        first: usize,
        errors: &mut Vec<f32>,
        rejected: &mut RejectedRows,
    ) {
        let (loss, len) = (self.params.model.loss(), self.record_len());
        for (row, (target, output)) in records
            .chunks_exact(len)
            .zip(self.decoded.chunks_exact(len))
            .enumerate()
        {
            let error = loss.error(target, output) as f32;
            if !error.is_finite() {
                let reason = "the reconstruction error is not finite".to_owned();
                rejected.add(first + row, (RejectCode::NotFinite, reason));
            }
            errors.push(error);
        }
    }
}

/// The results of a batch, in the order in which the records ran.
#[derive(Default)]
struct EncodedRows {
    codes: Vec<f32>,
    errors: Vec<f32>,
    reconstructions: Vec<f32>,
    /// The values of each extra output.
    extras: Vec<Vec<f32>>,
}

impl EncodedRows {
    /// The new columns in the order of the rows. `order` has the row of each record that ran.
    fn columns(self, plan: &EncodeParams, order: &[usize]) -> Result<Vec<ArrayRef>, StageError> {
        let mut added = vec![fixed_column(plan.records.code, self.codes)?];
        if plan.reconstruct != ReconstructionMode::No {
            added.push(Arc::new(Float32Array::from(self.errors)) as ArrayRef);
        }
        if plan.reconstruct == ReconstructionMode::Keep {
            let row = plan.records.row.as_deref().and_then(element_count);
            added.push(fixed_column(row.unwrap_or_default(), self.reconstructions)?);
        }
        for (column, values) in plan.extras.columns.iter().zip(self.extras) {
            added.push(column.array_of(Arc::new(Float32Array::from(values)))?);
        }
        let Some(positions) = positions_in_order(order) else {
            return Ok(added);
        };
        let ordered = added.iter().map(|column| take(column, &positions, None));
        Ok(ordered.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests;
