//! Sessions at work: batches cut into bounded slices, padded where the file fixes the batch, and
//! the bad rows found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::dynamic_batcher::{DynamicBatcher, RunBatch};
use crate::model::ort_backend::OrtSession;
use crate::model::tensor_spec::{TensorSpec, values};

/// Values that a batch may have whose size the file fixes: 1 GiB of memory.
const MAX_CALL_VALUES: usize = 1 << 28;
/// Memory that a call takes, as a multiple of its input: a guess, since a file doesn't say it.
/// Convolutional networks with 64 feature maps at full resolution hold two of these at a time: 2 *
/// 64 / 3 = 43 times a colour image.
const ACTIVATION_FACTOR: usize = 48;

/// Values of a record where the file does not tell: a photograph of a third of a megapixel.
const DEFAULT_RECORD_VALUES: usize = 1 << 20;

/// One ONNX file, ready to run on the thread that owns it.
pub struct Session {
    runner: SessionBackend,
    input: TensorSpec,
    limits: InferenceBatchLimits,
    padded: Vec<f32>,
}

/// Who runs the calls of a session.
pub enum SessionBackend {
    /// An engine of this session's own.
    Own(OrtSession),
    /// One for all.
    Shared(Arc<DynamicBatcher<OrtSession>>),
}

impl Session {
    /// A session for the file whose input is `input`.
    pub fn new(runner: SessionBackend, input: TensorSpec, limits: InferenceBatchLimits) -> Self {
        Self {
            runner,
            input,
            limits,
            padded: Vec::new(),
        }
    }

    /// Runs records of `shape`, laid one after the other in `records`, and appends their outputs to
    /// `out`. Returns the shape of one record's output.
    ///
    /// # Errors
    /// When the model fails on any of them, or gives them different shapes; `out` is as before
    /// then.
    pub fn run(
        &mut self,
        records: &[f32],
        shape: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let start = out.len();
        let given = self.run_slices(records, shape, out);
        if given.is_err() {
            out.truncate(start);
        }
        given
    }

    fn run_slices(
        &mut self,
        records: &[f32],
        shape: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let feed = self
            .input
            .feed(shape)
            .ok_or_else(|| shape_mismatch(shape, &self.input))?;
        let len = values(&feed)
            .filter(|&len| len > 0)
            .ok_or_else(|| shape_mismatch(shape, &self.input))?;
        let most = self
            .input
            .batch()
            .unwrap_or_else(|| self.limits.rows(len))
            .max(1);
        let most_values = most
            .checked_mul(len)
            .filter(|&values| values <= MAX_CALL_VALUES);
        let most_values = most_values
            .ok_or_else(|| format!("{most} records of {len} values are too many for one call"))?;
        let mut given: Option<Vec<usize>> = None;
        for slice in records.chunks(most_values) {
            let rows = slice.len() / len;
            let batch = self.input.batch().unwrap_or(rows);
            let slice = pad(slice, batch * len, &mut self.padded);
            let dims: Vec<usize> = std::iter::once(batch).chain(feed.iter().copied()).collect();
            let row = match &mut self.runner {
                SessionBackend::Own(engine) => call(engine, &dims, slice, rows, out)?,
                SessionBackend::Shared(shared) => shared.run(&dims, slice, rows, out)?,
            };
            match &given {
                Some(given) if *given != row => {
                    return Err(format!(
                        "the output of a record has the shape {given:?} at first, and {row:?} later"
                    ));
                }
                _ => given = Some(row),
            }
        }
        given.ok_or_else(|| "no records to run".to_owned())
    }
}

/// Runs one call. A panic is a failure of this call alone, as it is where a session is shared.
fn call(
    engine: &mut OrtSession,
    dims: &[usize],
    values: &[f32],
    rows: usize,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, String> {
    let called = catch_unwind(AssertUnwindSafe(|| {
        engine.run_batch(dims, values, rows, out)
    }));
    called.unwrap_or_else(|_| Err("the session panicked".to_owned()))
}

/// Zero records, to fill a batch whose size the file fixes.
fn pad<'a>(slice: &'a [f32], len: usize, padded: &'a mut Vec<f32>) -> &'a [f32] {
    if slice.len() == len {
        return slice;
    }
    padded.clear();
    padded.extend_from_slice(slice);
    padded.resize(len, 0.0);
    padded
}

/// Bytes that running records of `len` values takes beside input and output, `batch` of them at a
/// time where that is fixed.
pub fn scratch_bytes(limits: InferenceBatchLimits, len: usize, batch: Option<usize>) -> u64 {
    let rows = batch.unwrap_or_else(|| limits.rows(len));
    (rows as u64)
        .saturating_mul(len as u64)
        .saturating_mul((ACTIVATION_FACTOR * size_of::<f32>()) as u64)
}

/// Bytes that a session which workers share takes here: a call that runs, one that is gathered, and
/// what comes out; and what it computes with, unless that lies on a device.
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

/// Why a record does not go in.
pub fn shape_mismatch(shape: &[usize], input: &TensorSpec) -> String {
    format!("records of shape {shape:?} do not fit the input {input}")
}

/// Sessions through which a record goes one after the other: an encoder and its decoder, or one
/// alone.
pub struct SessionChain {
    sessions: Vec<Session>,
}

/// A record on which a model failed.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFailure {
    /// Its place among the records that were given.
    pub row: usize,
    /// What went wrong.
    pub reason: String,
}

impl SessionChain {
    /// Sessions, in the order in which they run.
    pub fn new(sessions: Vec<Session>) -> Self {
        Self { sessions }
    }

    /// Records of `len` values to give at a time: what one call takes, or several whole ones where
    /// the file fixes their size.
    pub fn slice_rows(&self, len: usize) -> usize {
        let rows = |session: &Session| {
            session
                .limits
                .rows(len)
                .next_multiple_of(session.input.batch().unwrap_or(1).max(1))
        };
        self.sessions.first().map_or(1, rows)
    }

    /// Runs records through all sessions; as [`Session::run`].
    ///
    /// # Errors
    /// When a model fails on any of them.
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
            let mut passed = Vec::new();
            shape = session.run(&records, &shape, &mut passed)?;
            records = passed.into();
        }
        last.run(&records, &shape, out)
    }

    /// Runs records and appends `len` values for each to `out`, zeros for those that fail: when a
    /// batch fails, its records run one by one, so that only the culprits are lost.
    pub fn run_rows(
        &mut self,
        records: &[f32],
        shape: &[usize],
        len: usize,
        out: &mut Vec<f32>,
    ) -> Vec<RowFailure> {
        let row_len = values(shape).unwrap_or_default().max(1);
        let rows = records.len() / row_len;
        if rows == 0 || self.run_exact(records, shape, len, out).is_ok() {
            return Vec::new();
        }
        let mut failures = Vec::new();
        for (row, record) in records.chunks_exact(row_len).enumerate() {
            if let Err(reason) = self.run_exact(record, shape, len, out) {
                out.resize(out.len() + len, 0.0);
                failures.push(RowFailure { row, reason });
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
        let given = self.run(records, shape, out)?;
        if values(&given) == Some(len) {
            return Ok(());
        }
        out.truncate(start);
        Err(format!(
            "the model gave the shape {given:?} for a record of shape {shape:?}; expected {len} values"
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
        let mut chain = open(written).unwrap().chain(ModelPath::Whole).unwrap();
        chain.run(records, shape, &mut out).map(|_| out)
    }

    #[test]
    fn a_batch_of_any_length_comes_out_whole() {
        let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
        for rows in [1, 2, OWN_RECORDS - 1, OWN_RECORDS, 2 * OWN_RECORDS + 5] {
            let records: Vec<f32> = (0..rows).flat_map(|row| [row as f32; 4]).collect();
            assert_eq!(run(autoencoder, &records, &[4]).unwrap(), records);
        }
    }

    #[test]
    fn a_fixed_batch_is_padded_and_the_padding_cut_off() {
        let records: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let codes = run("model = 'fixed_batch.onnx'", &records, &[4]).unwrap();
        assert_eq!(codes, [1.0, 5.0, 9.0, 13.0, 17.0, 21.0, 25.0, 29.0]);
    }

    #[test]
    fn slices_hold_whole_batches_where_the_file_fixes_their_size() {
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
    fn bytes_go_in_rounded_and_clamped_and_come_out_as_numbers() {
        let records = [
            0.4, 0.6, -3.0, 254.5, 400.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
        ];
        let out = run("model = 'bytes.onnx'", &records, &[2, 2, 3]).unwrap();
        assert_eq!(
            out,
            [
                0.0, 1.0, 0.0, 255.0, 255.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0
            ]
        );
    }

    #[test]
    fn halves_go_in_and_come_out_as_floats() {
        let records = [1.0, 2.0, 0.25, 1.0 / 3.0];
        let out = run("model = 'float16.onnx'", &records, &[4]).unwrap();
        // A third is 0.33325195 in halves; the sum lies between two of them, and goes to the even
        // one.
        assert_eq!(out, [3.0, 0.583_007_8]);
    }

    #[test]
    fn one_session_for_all_gives_each_what_is_its_own() {
        let autoencoder = "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'";
        let runtime = RuntimeSpec {
            sessions: Some(SessionMode::Shared),
            ..RuntimeSpec::default()
        };
        let model = open_with(autoencoder, &runtime).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let mut chain = model.chain(ModelPath::Whole).unwrap();
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
    fn the_named_output_is_taken() {
        assert_eq!(
            run("model = 'two_outputs.onnx'", &[1.0, 2.0], &[2]).unwrap(),
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
    fn weights_beside_the_file_are_found() {
        assert_eq!(
            run("model = 'external.onnx'", &[1.0, 2.0, 3.0, 4.0], &[4]).unwrap(),
            [3.0, 7.0]
        );
    }

    #[test]
    fn only_the_record_that_fails_is_lost() {
        let mut chain = open("model = 'picky.onnx'")
            .unwrap()
            .chain(ModelPath::Whole)
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
    fn an_output_of_another_size_than_planned_is_a_failure() {
        let mut chain = open("model = 'encoder.onnx'")
            .unwrap()
            .chain(ModelPath::Whole)
            .unwrap();
        let mut out = Vec::new();
        let failures = chain.run_rows(&[0.0; 4], &[4], 3, &mut out);
        let expected =
            "the model gave the shape [2] for a record of shape [4]; expected 3 values".to_owned();
        assert_eq!(
            failures,
            [RowFailure {
                row: 0,
                reason: expected
            }]
        );
        assert_eq!(out, [0.0; 3]);
    }
}
