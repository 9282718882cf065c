//! The reasons that a file of a model cannot be used.

use thiserror::Error;

/// The reason that a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum FrameworkConfigError {
    /// The text is not JSON, or a key has a value of another type.
    #[error("is not the configuration of a preprocessor: {0}")]
    Invalid(String),
    /// A key has a value that is not supported.
    #[error("`{key}`: {reason}; write the steps instead")]
    Unsupported {
        /// The key.
        key: String,
        /// The reason.
        reason: String,
    },
}

/// The error of a key with an unsupported value.
pub(super) fn unsupported(key: &str, reason: impl Into<String>) -> FrameworkConfigError {
    FrameworkConfigError::Unsupported {
        key: key.to_owned(),
        reason: reason.into(),
    }
}
