//! Sessions, which run batches in slices of bounded size, pad slices if the file fixes the batch
//! size, and isolate the records on which a model fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::batch::RejectCode;
use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::dynamic_batcher::{DynamicBatcher, RunBatch};
use crate::model::ort_backend::OrtSession;
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
const DEFAULT_RECORD_VALUES: usize = 1 << 20;

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
    pub fn run(
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
        let max_rows = self
            .input
            .batch()
            .unwrap_or_else(|| self.limits.rows(len))
            .max(1);
        let max_values = max_rows
            .checked_mul(len)
            .filter(|&values| values <= MAX_CALL_VALUES);
        let max_values = max_values.ok_or_else(|| {
            format!(
                "{max_rows} records of {len} values are too large for one call; at most \
                 {MAX_CALL_VALUES} values are supported"
            )
        })?;
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
pub fn scratch_bytes(limits: InferenceBatchLimits, len: usize, batch: Option<usize>) -> u64 {
    let rows = batch.unwrap_or_else(|| limits.rows(len));
    (rows as u64)
        .saturating_mul(len as u64)
        .saturating_mul((ACTIVATION_FACTOR * size_of::<f32>()) as u64)
}

/// Estimates the host memory of a shared session in bytes: a call that runs, a call that is being
/// collected, and their output. The memory of the computation is included unless it is on a device.
pub fn shared_bytes(uses_device: bool, limits: InferenceBatchLimits, input: &TensorSpec) -> u64 {
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
pub fn shape_mismatch(shape: &[usize], input: &TensorSpec) -> String {
    format!("records of shape {shape:?} do not fit the input {input}")
}

/// Sessions that run in sequence: an encoder and its decoder, or a single one.
pub struct SessionChain {
    sessions: Vec<Session>,
}

/// A record on which a model failed, or that its input cannot hold.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFailure {
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
    pub fn with_pixels(mut self, takes_pixels: bool) -> Self {
        if let Some(first) = self.sessions.first_mut() {
            first.takes_pixels = takes_pixels;
        }
        self
    }

    /// The number of records of `len` values that should be run at a time: the size of one call, or
    /// a multiple of the batch size if the file fixes it.
    pub fn slice_rows(&self, len: usize) -> usize {
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
    ) -> Result<Vec<usize>, String> {
        let Some((last, before)) = self.sessions.split_last_mut() else {
            out.extend_from_slice(records);
            return Ok(shape.to_vec());
        };
        let (mut records, mut shape) = (std::borrow::Cow::Borrowed(records), shape.to_vec());
        for session in before {
            let mut outputs = Vec::new();
            shape = session.run(&records, &shape, &mut outputs)?;
            records = outputs.into();
        }
        last.run(&records, &shape, out)
    }

    /// Runs records and appends `len` values per record to `out`, zeros for a record that fails. If
    /// the batch fails, its records are run one at a time, so that only the failing ones are lost.
    /// Records that the input cannot hold are replaced by zeros.
    pub fn run_rows(
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
        let output_shape = self.run(records, shape, out)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::ModelPath;
    use crate::model::batch_limits::OWN_RECORDS;
    use crate::model::config::{RuntimeSpec, SessionMode};
    use crate::model::testing::{open, open_with};

    fn run(written: &str, records: &[f32], shape: &[usize]) -> Result<Vec<f32>, String> {
        let mut out = Vec::new();
        let mut chain = open(written)
            .unwrap()
            .chain(ModelPath::Reconstruct)
            .unwrap();
        chain.run(records, shape, &mut out).map(|_| out)
    }

    #[test]
    fn batch_of_any_length_returns_all_records() {
        let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
        for rows in [1, 2, OWN_RECORDS - 1, OWN_RECORDS, 2 * OWN_RECORDS + 5] {
            let records: Vec<f32> = (0..rows).flat_map(|row| [row as f32; 4]).collect();
            assert_eq!(run(autoencoder, &records, &[4]).unwrap(), records);
        }
    }

    #[test]
    fn fixed_batch_is_padded_and_padding_is_removed() {
        let records: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let codes = run("model = 'fixed_batch.onnx'", &records, &[4]).unwrap();
        assert_eq!(codes, [1.0, 5.0, 9.0, 13.0, 17.0, 21.0, 25.0, 29.0]);
    }

    #[test]
    fn slices_are_multiples_of_a_fixed_batch_size() {
        let rows = |written: &str| {
            open(written)
                .unwrap()
                .chain(ModelPath::Encode)
                .unwrap()
                .slice_rows(4)
        };
        assert_eq!(
            rows("encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'"),
            OWN_RECORDS
        );
        assert_eq!(
            rows("model = 'fixed_batch.onnx'"),
            OWN_RECORDS.next_multiple_of(3)
        );
    }

    #[test]
    fn pixels_of_uint8_input_are_rounded_and_bounded() {
        let records = [
            0.4, 0.6, -3.0, 254.5, 400.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
        ];
        let model = open("model = 'bytes.onnx'").unwrap();
        let mut chain = model
            .chain(ModelPath::Reconstruct)
            .unwrap()
            .with_pixels(true);
        let mut out = Vec::new();
        chain.run(&records, &[2, 2, 3], &mut out).unwrap();
        assert_eq!(
            out,
            [
                0.0, 1.0, 0.0, 255.0, 255.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0
            ]
        );
    }

    #[test]
    fn record_that_uint8_input_cannot_hold_is_a_mismatch() {
        let mut records: Vec<f32> = (0..36_u8).map(f32::from).collect();
        records[13] = 256.0;
        let model = open("model = 'bytes.onnx'").unwrap();
        let mut chain = model.chain(ModelPath::Reconstruct).unwrap();
        let mut out = vec![9.0];
        let failures = chain.run_rows(&records, &[2, 2, 3], 12, &mut out);
        let reason = "value 2 of the record is 256, but the input `x` of the model is uint8, which \
                      holds whole numbers from 0 to 255";
        assert_eq!(
            failures,
            [RowFailure {
                row: 1,
                code: RejectCode::Mismatch,
                reason: reason.to_owned()
            }]
        );
        records[12..24].fill(0.0);
        assert_eq!(out[1..], records);
    }

    #[test]
    fn float16_input_and_output_are_converted() {
        let records = [1.0, 2.0, 0.25, 1.0 / 3.0];
        let out = run("model = 'float16.onnx'", &records, &[4]).unwrap();
        // A third is 0.33325195 in float16. The sum is halfway between two float16 values and is
        // rounded to the even one.
        assert_eq!(out, [3.0, 0.583_007_8]);
    }

    #[test]
    fn shared_session_returns_each_caller_its_own_records() {
        let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
        let runtime = RuntimeSpec {
            sessions: Some(SessionMode::Shared),
            ..RuntimeSpec::default()
        };
        let model = open_with(autoencoder, &runtime).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let mut chain = model.chain(ModelPath::Reconstruct).unwrap();
                scope.spawn(move || {
                    for rows in [1, 3, OWN_RECORDS + 1] {
                        let records: Vec<f32> = (0..rows)
                            .flat_map(|row| [(worker * 10_000 + row) as f32; 4])
                            .collect();
                        let mut out = Vec::new();
                        chain.run(&records, &[4], &mut out).unwrap();
                        assert_eq!(out, records);
                    }
                });
            }
        });
    }

    #[test]
    fn named_output_is_selected() {
        assert_eq!(
            run(
                "model = 'two_outputs.onnx'\noutput = 'minus'",
                &[1.0, 2.0],
                &[2]
            )
            .unwrap(),
            [-1.0, -2.0]
        );
        assert_eq!(
            run(
                "model = 'two_outputs.onnx'\noutput = 'twice'",
                &[1.0, 2.0],
                &[2]
            )
            .unwrap(),
            [2.0, 4.0]
        );
    }

    #[test]
    fn external_data_next_to_the_file_is_loaded() {
        assert_eq!(
            run("model = 'external.onnx'", &[1.0, 2.0, 3.0, 4.0], &[4]).unwrap(),
            [3.0, 7.0]
        );
    }

    #[test]
    fn only_the_failing_record_is_lost() {
        let mut chain = open("model = 'picky.onnx'")
            .unwrap()
            .chain(ModelPath::Reconstruct)
            .unwrap();
        let mut out = vec![9.0];
        let failures = chain.run_rows(&[1.0, 2.0, 3.0, 70.0, 5.0, 0.0], &[2], 2, &mut out);
        assert_eq!(out, [9.0, 1.0, 2.0, 0.0, 0.0, 5.0, 0.0]);
        assert_eq!(
            failures
                .iter()
                .map(|failure| failure.row)
                .collect::<Vec<_>>(),
            [1]
        );
        assert!(
            failures[0].reason.contains("Gather"),
            "{}",
            failures[0].reason
        );
    }

    #[test]
    fn output_of_unplanned_size_is_a_failure() {
        let mut chain = open("model = 'encoder.onnx'")
            .unwrap()
            .chain(ModelPath::Reconstruct)
            .unwrap();
        let mut out = Vec::new();
        let failures = chain.run_rows(&[0.0; 4], &[4], 3, &mut out);
        let expected =
            "the model returned the shape [2] for a record of shape [4]; expected 3 values"
                .to_owned();
        assert_eq!(
            failures,
            [RowFailure {
                row: 0,
                code: RejectCode::Model,
                reason: expected
            }]
        );
        assert_eq!(out, [0.0; 3]);
    }
}
