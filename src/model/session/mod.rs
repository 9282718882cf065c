//! Sessions, which run batches in slices of bounded size, pad slices if the file fixes the batch
//! size, and isolate the records on which a model fails.

pub mod chain;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::dynamic_batcher::{DynamicBatcher, RunBatch};
use crate::model::ort_backend::session::OrtSession;
use crate::model::tensor_spec::{TensorSpec, element_count};

/// The maximum number of values of a call: 1 GiB of memory. A batch size that the file fixes can
/// exceed it.
const MAX_CALL_VALUES: usize = 1 << 28;
/// The estimated memory of a call, as a multiple of the memory of its input, which a file does not
/// declare. A convolutional network with 64 feature maps at full resolution holds two sets of maps
/// at a time: 2 * 64 / 3 = 43 times an RGB image.
const ACTIVATION_FACTOR: usize = 48;

/// The assumed number of values of a record if the file does not declare it: an RGB photograph of a
/// third of a megapixel.
pub(crate) const DEFAULT_RECORD_VALUES: usize = 1 << 20;

/// One ONNX file, ready to run on the thread that owns it.
pub struct Session {
    backend: SessionBackend,
    input: TensorSpec,
    limits: InferenceBatchLimits,
    /// Whether the records are pixels, which are rounded and bounded to a uint8 input.
    takes_pixels: bool,
    padded: Vec<f32>,
}

/// The backend that runs the calls of a session.
pub enum SessionBackend {
    /// An ONNX Runtime session that belongs to this session.
    Own(OrtSession),
    /// An ONNX Runtime session that all workers share.
    Shared(Arc<DynamicBatcher<OrtSession>>),
}

impl Session {
    /// Creates a session for the file with the input `input`.
    pub fn new(backend: SessionBackend, input: TensorSpec, limits: InferenceBatchLimits) -> Self {
        Self {
            backend,
            input,
            limits,
            takes_pixels: false,
            padded: Vec::new(),
        }
    }

    /// Runs records of the shape `shape`, which are contiguous in `records`, and appends their
    /// outputs to `out`. Returns the output shape of one record.
    ///
    /// # Errors
    /// When the input cannot hold a value, when the model fails on any record, or when it returns
    /// different shapes. `out` is unchanged then.
    pub(in crate::model) fn run(
        &mut self,
        records: &[f32],
        shape: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let start = out.len();
        let result = self.run_slices(records, shape, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn run_slices(
        &mut self,
        records: &[f32],
        shape: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        self.check_values(records)?;
        let feed = self
            .input
            .feed(shape)
            .ok_or_else(|| shape_mismatch(shape, &self.input))?;
        let len = element_count(&feed)
            .filter(|&len| len > 0)
            .ok_or_else(|| shape_mismatch(shape, &self.input))?;
        let max_values = max_call_rows(self.input.batch(), self.limits, len)? * len;
        let mut output_shape: Option<Vec<usize>> = None;
        for slice in records.chunks(max_values) {
            let rows = slice.len() / len;
            let batch = self.input.batch().unwrap_or(rows);
            let slice = pad(slice, batch * len, &mut self.padded);
            let dims: Vec<usize> = std::iter::once(batch).chain(feed.iter().copied()).collect();
            let row = match &mut self.backend {
                SessionBackend::Own(session) => call(session, &dims, slice, rows, out)?,
                SessionBackend::Shared(shared) => shared.run(&dims, slice, rows, out)?,
            };
            match &output_shape {
                Some(first) if *first != row => {
                    return Err(format!(
                        "the output of the first records has the shape {first:?}, and that of \
                         later records {row:?}"
                    ));
                }
                _ => output_shape = Some(row),
            }
        }
        output_shape.ok_or_else(|| "no records to run".to_owned())
    }

    fn check_values(&self, values: &[f32]) -> Result<(), String> {
        if self.takes_pixels {
            Ok(())
        } else {
            self.input.check_values(values)
        }
    }
}

/// The maximum number of records of `len` values in one call. `batch` is the batch size if the file
/// fixes it.
///
/// # Errors
/// When a call of the fixed size would take too much memory.
pub(super) fn max_call_rows(
    batch: Option<usize>,
    limits: InferenceBatchLimits,
    len: usize,
) -> Result<usize, String> {
    let max_rows = batch.unwrap_or_else(|| limits.rows(len)).max(1);
    let values = max_rows.checked_mul(len);
    match values.filter(|&values| values <= MAX_CALL_VALUES) {
        Some(_) => Ok(max_rows),
        None => Err(format!(
            "{max_rows} records of {len} values are too large for one call; at most \
             {MAX_CALL_VALUES} values are supported"
        )),
    }
}

/// Runs one call. A panic fails only this call, as with a shared session.
fn call(
    session: &mut OrtSession,
    dims: &[usize],
    values: &[f32],
    rows: usize,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        session.run_batch(dims, values, rows, out)
    }));
    result.unwrap_or_else(|_| Err("the session panicked".to_owned()))
}

/// Returns the slice, extended by zeros to `len` values if the file fixes the batch size.
fn pad<'a>(slice: &'a [f32], len: usize, padded: &'a mut Vec<f32>) -> &'a [f32] {
    if slice.len() == len {
        return slice;
    }
    padded.clear();
    padded.extend_from_slice(slice);
    padded.resize(len, 0.0);
    padded
}

/// Estimates the memory of a call with records of `len` values, in bytes, in addition to input and
/// output. `batch` is the batch size if the file fixes it.
pub(crate) fn scratch_bytes(limits: InferenceBatchLimits, len: usize, batch: Option<usize>) -> u64 {
    let rows = batch.unwrap_or_else(|| limits.rows(len));
    (rows as u64)
        .saturating_mul(len as u64)
        .saturating_mul((ACTIVATION_FACTOR * size_of::<f32>()) as u64)
}

/// Estimates the host memory of a shared session in bytes: a call that runs, a call that is being
/// collected, and their output. The memory of the computation is included unless it is on a device.
pub(crate) fn shared_bytes(
    uses_device: bool,
    limits: InferenceBatchLimits,
    input: &TensorSpec,
) -> u64 {
    let (len, batch) = (
        input.row_len().unwrap_or(DEFAULT_RECORD_VALUES),
        input.batch(),
    );
    let rows = batch.unwrap_or_else(|| limits.rows(len));
    let staged = (rows as u64)
        .saturating_mul(len as u64)
        .saturating_mul(3 * size_of::<f32>() as u64);
    if uses_device {
        staged
    } else {
        staged.saturating_add(scratch_bytes(limits, len, batch))
    }
}

/// The error message for records whose shape does not fit the input.
pub(crate) fn shape_mismatch(shape: &[usize], input: &TensorSpec) -> String {
    format!("records of shape {shape:?} do not fit the input {input}")
}

#[cfg(test)]
mod tests;
