//! Data for training and evaluation: declared sources become files of records that are read at
//! random.

mod prepare;
mod image_decoder;
mod labels;
mod manifest;
mod record_id;
mod plan;
mod record_file;
mod permutation;
mod config;
mod statistics;
#[cfg(test)]
mod tests;
mod record_writer;

use std::path::Path;

use thiserror::Error;

pub use config::{DataSpec, Subset};
pub use permutation::Permutation;
pub use record_file::{Record, RecordFile, RecordValues};
pub use statistics::DatasetStatistics;

use crate::error::{ConfigError, StageError};
use crate::model::input::{InputKind, InputSpec};
use manifest::DatasetManifest;
use plan::DatasetPlan;
use prepare::build_dataset;

/// Records that are ready, and what became of the others.
#[derive(Debug)]
pub struct PreparedDataset {
    /// What the records are.
    pub kind: InputKind,
    /// What the model learns from.
    pub training: RecordFile,
    /// What says when to stop.
    pub validation: RecordFile,
    /// What is looked at when all is done, anomalies among them.
    pub test: RecordFile,
    /// Height, width and channels where all records have the same (feature records:
    /// `[1, 1, values]`).
    pub shape: Option<[usize; 3]>,
    /// Features: the columns that were taken, in order. For images none.
    pub columns: Vec<String>,
    /// Features: whether each column gives one value. Where one is a list, a card cannot name the
    /// columns.
    pub columns_are_values: bool,
    /// The classes that [`Record::label`] counts, sorted: by number where all are numbers.
    pub labels: Vec<String>,
    /// SHA-256 over all records, their labels and parts: the same data has the same digest wherever
    /// it lies.
    pub digest: String,
    /// Records that could not be used.
    pub rejects: u64,
    /// Why, for the first of them.
    pub reasons: Vec<String>,
    /// Records that `keep` left out.
    pub left_out: u64,
    /// Records of the test part that are not normal.
    pub anomalies: u64,
    /// Whether an earlier call had prepared the same already.
    pub reused: bool,
}

impl PreparedDataset {
    /// The records of a part.
    pub fn subset(&self, part: Subset) -> &RecordFile {
        match part {
            Subset::Training => &self.training,
            Subset::Validation => &self.validation,
            Subset::Test => &self.test,
        }
    }
}

impl PreparedDataset {
    /// Whether each record is as long as its size. Earlier versions could write a record that
    /// shifts those behind it.
    fn is_whole(&self) -> Result<bool, StageError> {
        Ok(self.training.are_whole()? && self.validation.are_whole()? && self.test.are_whole()?)
    }
}

/// Why data cannot be prepared.
#[derive(Debug, Error)]
pub enum DataError {
    /// What is wrong with the table: every fault at once. Keys are relative to `[data]`, but for
    /// those that begin with `input.`, which belong to the model's input.
    #[error("{}", .0.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<ConfigError>),
    /// The data cannot be read or written.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Reads all sources of `spec` and keeps their records as a model of `input` takes them in files
/// under `folder`. What an earlier call has prepared there from the same sources is used again.
///
/// `progress` is told how many records were read so far.
///
/// # Errors
/// Every fault of the table; or what the system said; or that there is no record at all.
pub fn prepare(
    spec: &DataSpec,
    input: &InputSpec,
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PreparedDataset, DataError> {
    let plan = DatasetPlan::new(spec, input).map_err(DataError::Faults)?;
    let keys = plan.keys(spec)?;
    let earlier = keys
        .as_ref()
        .and_then(|keys| DatasetManifest::read(folder).filter(|manifest| manifest.is_of(keys)));
    if let Some(prepared) = earlier.and_then(|manifest| manifest.open(folder, true).ok())
        && prepared.is_whole()?
    {
        return Ok(prepared);
    }
    Ok(build_dataset(plan, spec, keys, folder, progress)?.open(folder, false)?)
}
