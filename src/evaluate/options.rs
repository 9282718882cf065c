//! What an evaluation is given, what it reports while it runs, and how it fails.

use std::path::PathBuf;

use thiserror::Error;

use crate::corruption::spec::CorruptionSpec;
use crate::data::{PreparedDataset, ReadProgress, Subset};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;

/// Options of an evaluation.
#[derive(Debug, Default)]
pub struct EvaluateOptions {
    /// The parts whose records are scored. If empty, the test part if it has normal records, or
    /// else the validation part and the anomalies of the test part.
    pub parts: Vec<Subset>,
    /// Corruptions to measure denoising with, each separately. If empty, those that the model was
    /// trained with.
    pub corruptions: Vec<CorruptionSpec>,
}

/// The reason that a model cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// Faults of the corruptions.
    #[error("{}", fault_lines(.0, "corruption"))]
    Faults(Vec<ConfigError>),
    /// An argument is invalid, or the model or the data that it names cannot be used.
    #[error("{0}")]
    Argument(String),
    /// The model or the data failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl EvaluateError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Faults(_) | Self::Argument(_) => ErrorCode::ArgumentInvalid,
            Self::Stage(error) => error.code(),
        }
    }
}

/// Formats faults, one per line, with their keys below `table`.
pub(crate) fn fault_lines(faults: &[ConfigError], table: &str) -> String {
    let line = |fault: &ConfigError| {
        let ConfigError { key, message, .. } = fault.clone().within(table);
        if key.is_empty() {
            message
        } else {
            format!("{key}: {message}")
        }
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The events of an evaluation, which are reported to the caller.
#[derive(Debug)]
pub enum EvaluateEvent<'a> {
    /// The sources are being read.
    Reading(ReadProgress),
    /// The data is ready.
    Prepared(&'a PreparedDataset),
    /// A step has processed some of its records.
    Step {
        /// The name of the step.
        name: &'a str,
        /// Number of processed records.
        done: usize,
        /// Number of all records of the step.
        total: usize,
    },
}

/// Receives the name of a step, the number of records that it has processed, and the number of all
/// its records. An error ends the evaluation.
pub(super) type Progress<'a> = dyn FnMut(&str, usize, usize) -> Result<(), StageError> + 'a;

/// The data of an evaluation, and its options, as a user gives them.
#[derive(Debug, Clone, Default)]
pub struct EvaluationRequest {
    /// The folder of the training data, if it has moved since the training.
    pub data: Option<PathBuf>,
    /// Other data than that of the training: paths, or source tables.
    pub sources: Vec<String>,
    /// Overrides of keys of the `[data]` table, such as `label=species`.
    pub set: Vec<String>,
    /// The parts whose records are scored. If empty, those that [`EvaluateOptions`] describes, or
    /// all records of other data if the model has no code.
    pub parts: Vec<Subset>,
    /// Corruptions to measure denoising with, such as `gaussian:25`.
    pub corruptions: Vec<String>,
    /// The folders of other models that take the same input: the detection of anomalies by the mean
    /// of their errors is measured as well.
    pub ensemble: Vec<PathBuf>,
    /// Whether to measure the distance between full and scaled decoding of JPEGs.
    pub compare_decode: bool,
    /// Whether to accept a model whose output depends on random numbers or on other records.
    pub allow_nondeterministic: bool,
    /// The folder of the prepared records, which later evaluations use again. Default: a temporary
    /// one.
    pub prepared: Option<PathBuf>,
}
