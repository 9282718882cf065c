//! The reasons that a path of a model cannot take records of a shape.

use std::path::PathBuf;

use thiserror::Error;

use crate::error::StageError;
use crate::error::config_error::ConfigError;

/// The reason that a path of a model cannot take records of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelPathError {
    /// The model has no decoder.
    #[error("the model `{0}` has no decoder")]
    NoDecoder(String),
    /// The records do not fit the input of a file.
    #[error("{}: {message}", .file.display())]
    Shape {
        /// The ONNX file.
        file: PathBuf,
        /// The shapes of the records and of the input.
        message: String,
    },
    /// A trial run with zeros failed.
    #[error("{0}")]
    TrialRun(String),
}

impl ModelPathError {
    /// The fault of the option `key`, which declares a file of the model.
    pub(super) fn at(&self, key: &str) -> ConfigError {
        ConfigError::new(key, self.to_string())
    }
}

impl From<ModelPathError> for StageError {
    fn from(error: ModelPathError) -> Self {
        Self::Model(error.to_string())
    }
}
