//! The failure of a stage, with its name.

use std::sync::Arc;

use thiserror::Error;

use crate::error::StageError;

/// The error that ended a stage, and thereby the run.
#[derive(Debug, Error)]
#[error("{stage}: {error}")]
pub struct StageFailure {
    /// The name of the stage, or of a part of the program such as `workers`.
    pub stage: Arc<str>,
    /// The reason.
    pub error: StageError,
}

impl StageFailure {
    /// The failure of a stage.
    pub fn new(stage: impl Into<Arc<str>>, error: StageError) -> Self {
        Self {
            stage: stage.into(),
            error,
        }
    }

    /// For `map_err`: adds the name of the stage.
    pub fn of(stage: &Arc<str>) -> impl Fn(StageError) -> Self {
        move |error| Self::new(Arc::clone(stage), error)
    }
}
