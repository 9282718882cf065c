//! Faults of a pipeline file.

use std::io::ErrorKind;

use crate::error::code::ErrorCode;
use crate::error::{ErrorClass, StageError};

/// A fault of a pipeline, found before the run starts.
///
/// `key` is a dotted path, relative to the table that was checked (`""` for the table itself).
/// Callers add their own prefix with [`ConfigError::within`], so that the path finally starts at
/// the top of the file, where its line is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the faulty key.
    pub key: String,
    /// The value that was met, the expected value and the remedy; lower case, no period at the end.
    pub message: String,
    /// The stable code: that of the error that occurred during planning, otherwise
    /// [`ErrorCode::PipelineInvalid`].
    pub code: ErrorCode,
    /// Whether the environment is at fault rather than the pipeline: the same pipeline may be valid
    /// later.
    pub is_of_environment: bool,
}

impl ConfigError {
    /// A fault at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            code: ErrorCode::PipelineInvalid,
            is_of_environment: false,
        }
    }

    /// An error that occurred during planning, as a fault at `key`.
    pub fn from_error(key: impl Into<String>, error: &StageError) -> Self {
        // A response of a store can concern the pipeline as well: a bucket may not exist.
        let is_of_environment = match error {
            StageError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    ErrorKind::NotConnected | ErrorKind::PermissionDenied
                ) || !ErrorClass::of(source).concerns_file()
            }
            error => error.is_of_environment(),
        };
        Self {
            code: error.code(),
            is_of_environment,
            ..Self::new(key, error.to_string())
        }
    }

    /// The same fault, with its key relative to the table that holds `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        if self.key.is_empty() {
            self.key = prefix.to_owned();
        } else if !prefix.is_empty() {
            self.key = format!("{prefix}.{}", self.key);
        }
        self
    }
}

/// Records the faults of several checks, so that a user sees all of them together.
pub(crate) trait RecordFaults {
    /// Returns the value of a check, or records its fault.
    fn record<T>(&mut self, result: Result<T, ConfigError>) -> Option<T>;

    /// Returns the value of a check, or records its faults.
    fn record_all<T>(&mut self, result: Result<T, Vec<ConfigError>>) -> Option<T>;

    /// As [`RecordFaults::record_all`], for a check of the table that `prefix` holds.
    fn record_all_within<T>(
        &mut self,
        prefix: &str,
        result: Result<T, Vec<ConfigError>>,
    ) -> Option<T>;
}
