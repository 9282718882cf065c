//! How the read of a file ends.

use arrow::error::ArrowError;

use crate::error::StageError;
use crate::error::unavailable::UnavailableInput;
use crate::source::discovery::listed_file::{ReadFailure, RecordError};

/// The reason why a file is not read to its end.
pub(crate) enum ReadEnd {
    /// The receiver of batches is gone.
    Cancelled,
    /// The file cannot be read now. The rows that were not sent remain unread.
    Unavailable(UnavailableInput),
    /// The file cannot be used. One reject represents this number of records: all records of the
    /// file, as far as their number is known.
    Rejected(RecordError, u64),
    /// The run cannot continue.
    Failed(StageError),
}

impl From<UnavailableInput> for ReadEnd {
    fn from(unavailable: UnavailableInput) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<ReadFailure> for ReadEnd {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Rejected(refusal) => Self::Rejected(refusal, 1),
            ReadFailure::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<StageError> for ReadEnd {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}

impl From<ArrowError> for ReadEnd {
    fn from(error: ArrowError) -> Self {
        Self::Failed(error.into())
    }
}
