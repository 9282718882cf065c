//! How a run ended.

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::failure::StageFailure;
use crate::topology::dispatcher::DispatchEnd;

/// How a run ended.
#[derive(Debug)]
pub enum RunOutcome {
    /// Every source ended, or the requested number of records was read; all of them are committed.
    Finished,
    /// Stopped on request before the end of the input. All records that were read are committed,
    /// and the next run resumes after them.
    Drained,
    /// Stopped before the end of the input because more records were rejected than the pipeline
    /// allows.
    Rejected,
    /// A stage failed. Earlier commits remain.
    Failed(StageFailure),
}

impl RunOutcome {
    pub(super) fn new(failed: Option<StageFailure>, ended: DispatchEnd) -> Self {
        match (failed, ended) {
            (Some(failure), _) => Self::Failed(failure),
            (None, DispatchEnd::ShutdownRequested) => Self::Drained,
            (None, DispatchEnd::Rejected(_)) => Self::Rejected,
            (None, DispatchEnd::Exhausted | DispatchEnd::Limited) => Self::Finished,
            (None, DispatchEnd::Failed) => {
                let error = StageError::new(
                    ErrorCode::Internal,
                    "all worker threads exited unexpectedly",
                );
                Self::Failed(StageFailure::new("workers", error))
            }
        }
    }
}
