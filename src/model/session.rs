//! Sessions at work: batches cut into bounded slices, padded where the file fixes the batch, and the bad rows found.

use crate::model::onnx::Engine;
use crate::model::port::{Port, values};

/// Values that go into one call at most: 32 colour images of 64x64. ONNX Runtime keeps the most memory that a call ever
/// took, and larger batches gain next to nothing.
const SLICE_VALUES: usize = 32 * 3 * 64 * 64;
/// Records that go into one call at most: dense networks gain nothing beyond.
const SLICE_ROWS: usize = 1024;
/// Memory that a call takes, as a multiple of its input: a guess, since a file doesn't say it. Convolutional networks with
/// 64 feature maps at full resolution hold two of these at a time: 2 * 64 / 3 = 43 times a colour image.
const ACTIVATION_FACTOR: usize = 48;

/// One ONNX file, ready to run on the thread that owns it.
pub struct Session {
    engine: Engine,
    input: Port,
    padded: Vec<f32>,
}

impl Session {
    /// A session for the file whose input is `input`.
    pub fn new(engine: Engine, input: Port) -> Self {
        Self { engine, input, padded: Vec::new() }
    }

    /// Runs records of `shape`, laid one after the other in `records`, and appends their outputs to `out`.
    /// Returns the shape of one record's output.
    ///
    /// # Errors
    /// When the model fails on any of them, or gives them different shapes; `out` is as before then.
    pub fn run(&mut self, records: &[f32], shape: &[usize], out: &mut Vec<f32>) -> Result<Vec<usize>, String> {
        let start = out.len();
        let given = self.run_slices(records, shape, out);
        if given.is_err() {
            out.truncate(start);
        }
        given
    }

    fn run_slices(&mut self, records: &[f32], shape: &[usize], out: &mut Vec<f32>) -> Result<Vec<usize>, String> {
        let feed = self.input.feed(shape).ok_or_else(|| misfit(shape, &self.input))?;
        let len = values(&feed).filter(|&len| len > 0).ok_or_else(|| misfit(shape, &self.input))?;
        let mut given: Option<Vec<usize>> = None;
        for slice in records.chunks(self.input.batch().unwrap_or_else(|| slice_rows(len)).max(1) * len) {
            let rows = slice.len() / len;
            let batch = self.input.batch().unwrap_or(rows);
            let slice = pad(slice, batch * len, &mut self.padded);
            let dims: Vec<usize> = std::iter::once(batch).chain(feed.iter().copied()).collect();
            let row = self.engine.call(&dims, slice, rows, out)?;
            match &given {
                Some(given) if *given != row => {
                    return Err(format!("the output of a record has the shape {given:?} at first, and {row:?} later"));
                }
                _ => given = Some(row),
            }
        }
        given.ok_or_else(|| "no records to run".to_owned())
    }
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

/// Records of `len` values that go into one call.
pub fn slice_rows(len: usize) -> usize {
    (SLICE_VALUES / len.max(1)).clamp(1, SLICE_ROWS)
}

/// Bytes that running records of `len` values takes beside input and output, `batch` of them at a time where that is fixed.
pub fn scratch_bytes(len: usize, batch: Option<usize>) -> u64 {
    let rows = batch.unwrap_or_else(|| slice_rows(len));
    (rows as u64).saturating_mul(len as u64).saturating_mul((ACTIVATION_FACTOR * size_of::<f32>()) as u64)
}

/// Why a record does not go in.
pub fn misfit(shape: &[usize], input: &Port) -> String {
    format!("records of shape {shape:?} do not fit the input {input}")
}

/// Sessions through which a record goes one after the other: an encoder and its decoder, or one alone.
pub struct Chain {
    sessions: Vec<Session>,
}

/// A record on which a model failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its place among the records that were given.
    pub row: usize,
    /// What went wrong.
    pub reason: String,
}

impl Chain {
    /// Sessions, in the order in which they run.
    pub fn new(sessions: Vec<Session>) -> Self {
        Self { sessions }
    }

    /// Runs records through all sessions; as [`Session::run`].
    ///
    /// # Errors
    /// When a model fails on any of them.
    pub fn run(&mut self, records: &[f32], shape: &[usize], out: &mut Vec<f32>) -> Result<Vec<usize>, String> {
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

    /// Runs records and appends `len` values for each to `out`, zeros for those that fail: when a batch fails, its records
    /// run one by one, so that only the culprits are lost.
    pub fn run_rows(&mut self, records: &[f32], shape: &[usize], len: usize, out: &mut Vec<f32>) -> Vec<Failure> {
        let row_len = values(shape).unwrap_or_default().max(1);
        let rows = records.len() / row_len;
        if rows == 0 || self.run_exact(records, shape, len, out).is_ok() {
            return Vec::new();
        }
        let mut failures = Vec::new();
        for (row, record) in records.chunks_exact(row_len).enumerate() {
            if let Err(reason) = self.run_exact(record, shape, len, out) {
                out.resize(out.len() + len, 0.0);
                failures.push(Failure { row, reason });
            }
        }
        failures
    }

    fn run_exact(&mut self, records: &[f32], shape: &[usize], len: usize, out: &mut Vec<f32>) -> Result<(), String> {
        let start = out.len();
        let given = self.run(records, shape, out)?;
        if values(&given) == Some(len) {
            return Ok(());
        }
        out.truncate(start);
        Err(format!("the model gave the shape {given:?} for a record of shape {shape:?}; expected {len} values"))
    }
}
