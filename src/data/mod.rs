//! Prepares data for training and evaluation: reads the declared sources and writes their records
//! into files for random access.

mod column_values;
mod config;
mod image_decoder;
mod labels;
mod list_lengths;
mod manifest;
mod permutation;
mod plan;
pub(crate) mod positioned_read;
mod prepare;
mod record_file;
mod record_id;
mod record_origin;
mod record_writer;
mod source_reader;
mod statistics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::model::input::spec::{InputKind, InputSpec};

use manifest::DatasetManifest;
use plan::DatasetPlan;
use prepare::build_dataset;

pub(crate) use crate::data::plan::stored_names::current_data;
pub use config::{DataSpec, Subset};
pub use permutation::Permutation;
pub(crate) use record_file::RecordFile;
pub use record_file::record::{Record, RecordValues};
pub(crate) use record_origin::RecordOrigin;
pub use statistics::DatasetStatistics;

/// A prepared dataset: the records of the three parts, and counts of the records left out.
#[derive(Debug)]
pub struct PreparedDataset {
    /// Whether the records are images or features.
    pub kind: InputKind,
    /// The training part.
    pub training: RecordFile,
    /// The validation part, which decides when a training stops.
    pub validation: RecordFile,
    /// The test part, for the evaluation of a finished model. It holds all anomalies.
    pub test: RecordFile,
    /// Height, width and channels if they are the same for all records (feature records:
    /// `[1, 1, values]`).
    pub shape: Option<[usize; 3]>,
    /// Features: the names of the columns, in order. Empty for images.
    pub columns: Vec<String>,
    /// Features: the name of each value: that of its column, or `column[index]` for a list. Empty
    /// for images, and for lists that an earlier version has prepared.
    pub value_names: Vec<String>,
    /// The classes that [`Record::label`] indexes, sorted: numerically if all of them are numbers.
    pub labels: Vec<String>,
    /// SHA-256 over all records, their labels and parts. It does not depend on the location of the
    /// data.
    pub digest: String,
    /// The digest that earlier versions computed from features rounded to float32, if it differs
    /// from `digest`.
    pub former_digest: Option<String>,
    /// Number of records that could not be used.
    pub rejects: u64,
    /// Reasons of the first 10 rejects.
    pub reasons: Vec<String>,
    /// Number of records that `keep` left out.
    pub left_out: u64,
    /// Number of anomalies, all of them in the test part.
    pub anomalies: u64,
    /// Number of records without a value in the column of `normal`. They are neither normal nor
    /// anomalies, and in none of the parts.
    pub without_label: u64,
    /// The number of records with a null or NaN, for each feature column where they are rejects.
    pub nulls: BTreeMap<String, u64>,
    /// The sorted categories of the columns whose rules count them; `None` for a column with too
    /// many.
    pub categories: BTreeMap<String, Option<Vec<String>>>,
    /// The values of the column of `normal` with their counts, if no record satisfies the
    /// comparison.
    pub normal_values: Option<String>,
    /// Whether the files of an earlier call were used.
    pub reused: bool,
}

impl PreparedDataset {
    /// Whether the data has this digest, as this version or an earlier one computes it. A digest of
    /// a model card begins with `sha256:`.
    pub(crate) fn has_digest(&self, digest: &str) -> bool {
        let digest = digest.trim_start_matches("sha256:");
        self.digest == digest || self.former_digest.as_deref() == Some(digest)
    }

    /// Returns the records of a part.
    pub fn subset(&self, part: Subset) -> &RecordFile {
        match part {
            Subset::Training => &self.training,
            Subset::Validation => &self.validation,
            Subset::Test => &self.test,
        }
    }
}

impl PreparedDataset {
    /// Whether the length of each record matches its size. Earlier versions could write a record of
    /// a wrong length, which shifts the records after it.
    fn is_intact(&self) -> Result<bool, StageError> {
        Ok(self.training.is_intact()? && self.validation.is_intact()? && self.test.is_intact()?)
    }
}

/// The progress of reading the sources.
#[derive(Debug, Clone, Copy)]
pub struct ReadProgress {
    /// Number of records that were read from all sources.
    pub records: u64,
    /// Number of records of all sources, once it is known.
    pub total: Option<u64>,
}

/// The reason that data cannot be prepared.
#[derive(Debug, Error)]
pub enum DataError {
    /// All faults of the table. Keys are relative to `[data]`, except those that begin with
    /// `input.`, which belong to the model's input.
    #[error(
        "{}",
        .0.iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect::<Vec<_>>()
            .join("\n")
    )]
    Faults(Vec<ConfigError>),
    /// The data cannot be read or written.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Reads all sources of `spec` and writes their records, converted for a model with the input
/// `input`, into files under `folder`. Files that an earlier call has prepared there from the same
/// sources are used again.
///
/// `progress` is called after each batch.
///
/// # Errors
/// Returns all faults of the table, a fault of a source or of the folder, or an error if no record
/// can be used.
pub fn prepare(
    spec: &DataSpec,
    input: &InputSpec,
    folder: &Path,
    progress: &mut dyn FnMut(ReadProgress),
) -> Result<PreparedDataset, DataError> {
    let never = AtomicBool::new(false);
    let prepared = prepare_unless_stopped(spec, input, folder, &never, progress)?;
    prepared.ok_or_else(|| {
        StageError::new(ErrorCode::Stopped, "the reading of the data was stopped").into()
    })
}

/// Prepares data as [`prepare`] does. Returns `None` if `stop` became true before all sources were
/// read.
///
/// # Errors
/// Returns the errors of [`prepare`].
pub(crate) fn prepare_unless_stopped(
    spec: &DataSpec,
    input: &InputSpec,
    folder: &Path,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(ReadProgress),
) -> Result<Option<PreparedDataset>, DataError> {
    let plan = DatasetPlan::new(spec, input)?;
    let keys = plan.keys(spec)?;
    let earlier = keys
        .as_ref()
        .and_then(|keys| DatasetManifest::read(folder).filter(|manifest| manifest.is_of(keys)));
    let is_outdated = |manifest: &DatasetManifest| !manifest.is_current(spec, plan.float64);
    if earlier.as_ref().is_some_and(is_outdated) {
        tracing::info!(
            folder = %folder.display(),
            "the data was prepared by an earlier version or for another scaling; it is prepared \
             again"
        );
    } else if let Some(prepared) = earlier.and_then(|manifest| manifest.open(folder, true).ok())
        && prepared.is_intact()?
    {
        return Ok(Some(prepared));
    }
    match build_dataset(plan, spec, keys, folder, stop, progress)? {
        Some(manifest) => Ok(Some(manifest.open(folder, false)?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
