//! The error of a call of a model.

use thiserror::Error;

/// The error of a call: the message of ONNX Runtime, or the limit that the records exceed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InferenceError(pub(super) String);
