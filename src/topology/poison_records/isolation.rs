//! How a batch is processed after a crash, and the reasons of quarantine.

use crate::batch::reject::RejectCode;
use crate::topology::poison_records::crash_state::{MEMORY_KILLS, OTHER_KILLS};

/// How a part of a batch is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::topology) enum Isolation {
    /// Concurrently with other batches.
    None,
    /// While no other record is in flight: if the process crashes, this row is the cause.
    Single,
    /// Not at all: it is rejected.
    Quarantined(QuarantineReason),
}

/// Why a row is rejected without being processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::topology) enum QuarantineReason {
    /// The process aborted, or was killed [`OTHER_KILLS`] times, while the row was processed alone.
    Crashed,
    /// The kernel killed the process for lack of memory [`MEMORY_KILLS`] times.
    TooLarge,
}

impl QuarantineReason {
    pub(in crate::topology) fn code(self) -> RejectCode {
        match self {
            Self::Crashed => RejectCode::Crashed,
            Self::TooLarge => RejectCode::TooLarge,
        }
    }

    pub(in crate::topology) fn reason(self) -> String {
        match self {
            Self::Crashed => format!(
                "the process crashed when only this record was in flight: a native library \
                 aborted, or the process was killed {OTHER_KILLS} times"
            ),
            Self::TooLarge => format!(
                "the kernel killed the process for lack of memory {MEMORY_KILLS} times while only \
                 this record was in flight; replay it with a higher memory limit"
            ),
        }
    }
}
