//! The sessions of a model in their order, and the isolation of rows that fail.

use crate::batch::reject::RejectCode;
use crate::model::inference_error::InferenceError;
use crate::model::session::Session;
use crate::model::tensor_spec::element_count;

/// Sessions that run in sequence: an encoder and its decoder, or a single one.
pub struct SessionChain {
    pub(super) sessions: Vec<Session>,
}

/// A record on which a model failed, or that its input cannot hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RowFailure {
    /// The index of the record in the batch.
    pub row: usize,
    /// The cause of the failure: `Model` or `Mismatch`.
    pub code: RejectCode,
    /// The reason of the failure.
    pub reason: String,
}

impl SessionChain {
    /// Creates a chain from sessions, in the order in which they run.
    pub fn new(sessions: Vec<Session>) -> Self {
        Self { sessions }
    }

    /// Sets whether the records are pixels. The values of pixels are rounded and bounded to a uint8
    /// input; other values that it cannot hold are refused. Default: false.
    #[must_use]
    pub(crate) fn with_pixels(mut self, takes_pixels: bool) -> Self {
        if let Some(first) = self.sessions.first_mut() {
            first.takes_pixels = takes_pixels;
        }
        self
    }

    /// The number of records of `len` values that should be run at a time: the size of one call, or
    /// a multiple of the batch size if the file fixes it.
    pub(crate) fn slice_rows(&self, len: usize) -> usize {
        let rows = |session: &Session| {
            session
                .limits
                .rows(len)
                .next_multiple_of(session.input.batch().unwrap_or(1).max(1))
        };
        self.sessions.first().map_or(1, rows)
    }

    /// Runs records through all sessions, as [`Session::run`].
    ///
    /// # Errors
    /// When a model fails on any record.
    pub fn run(
        &mut self,
        records: &[f32],
        shape: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, InferenceError> {
        let Some((last, before)) = self.sessions.split_last_mut() else {
            out.extend_from_slice(records);
            return Ok(shape.to_vec());
        };
        let (mut records, mut shape) = (std::borrow::Cow::Borrowed(records), shape.to_vec());
        for session in before {
            let mut outputs = Vec::new();
            shape = session
                .run(&records, &shape, &mut outputs)
                .map_err(InferenceError)?;
            records = outputs.into();
        }
        last.run(&records, &shape, out).map_err(InferenceError)
    }

    /// Runs records and appends `len` values per record to `out`, zeros for a record that fails. If
    /// the batch fails, its records are run one at a time, so that only the failing ones are lost.
    /// Records that the input cannot hold are replaced by zeros.
    pub(crate) fn run_rows(
        &mut self,
        records: &[f32],
        shape: &[usize],
        len: usize,
        out: &mut Vec<f32>,
    ) -> Vec<RowFailure> {
        let row_len = element_count(shape).unwrap_or_default().max(1);
        let unfit = self.unfit_rows(records, row_len);
        if unfit.is_empty() {
            return self.run_fitting_rows(records, shape, len, out);
        }
        let (mut fitting, start) = (records.to_vec(), out.len());
        for failure in &unfit {
            fitting[failure.row * row_len..][..row_len].fill(0.0);
        }
        let mut failures = self.run_fitting_rows(&fitting, shape, len, out);
        for failure in &unfit {
            out[start + failure.row * len..][..len].fill(0.0);
        }
        failures.retain(|failure| unfit.iter().all(|other| other.row != failure.row));
        failures.extend(unfit);
        failures.sort_by_key(|failure| failure.row);
        failures
    }

    /// The records with a value that the input cannot hold.
    fn unfit_rows(&self, records: &[f32], row_len: usize) -> Vec<RowFailure> {
        let Some(first) = self.sessions.first() else {
            return Vec::new();
        };
        if first.check_values(records).is_ok() {
            return Vec::new();
        }
        let unfit = |(row, record): (usize, &[f32])| {
            let reason = first.check_values(record).err()?;
            Some(RowFailure {
                row,
                code: RejectCode::Mismatch,
                reason,
            })
        };
        let rows = records.chunks_exact(row_len).enumerate();
        rows.filter_map(unfit).collect()
    }

    fn run_fitting_rows(
        &mut self,
        records: &[f32],
        shape: &[usize],
        len: usize,
        out: &mut Vec<f32>,
    ) -> Vec<RowFailure> {
        let row_len = element_count(shape).unwrap_or_default().max(1);
        let rows = records.len() / row_len;
        if rows == 0 || self.run_exact(records, shape, len, out).is_ok() {
            return Vec::new();
        }
        let mut failures = Vec::new();
        for (row, record) in records.chunks_exact(row_len).enumerate() {
            if let Err(reason) = self.run_exact(record, shape, len, out) {
                out.resize(out.len() + len, 0.0);
                failures.push(RowFailure {
                    row,
                    code: RejectCode::Model,
                    reason,
                });
            }
        }
        failures
    }

    fn run_exact(
        &mut self,
        records: &[f32],
        shape: &[usize],
        len: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), String> {
        let start = out.len();
        let output_shape = self
            .run(records, shape, out)
            .map_err(|InferenceError(message)| message)?;
        if element_count(&output_shape) == Some(len) {
            return Ok(());
        }
        out.truncate(start);
        Err(format!(
            "the model returned the shape {output_shape:?} for a record of shape {shape:?}; \
             expected {len} values"
        ))
    }
}
