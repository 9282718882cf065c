//! The counters of one stage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use crate::batch::Batch;
use crate::batch::reject::RejectCode;
use crate::plan::stage::StageRole;
use crate::sink::CommitStats;
use crate::source::RecordCount;
use crate::source::discovery::skipped_files::{LastSkippedFiles, SkippedFiles};
use crate::topology::telemetry::activity::BatchRange;
use crate::topology::telemetry::reconstruction_error::ReconstructionErrorStats;

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Counters of one stage.
pub struct StageStats {
    /// The name of the stage.
    pub name: Arc<str>,
    /// The kind of the stage.
    pub kind: &'static str,
    /// The role of the stage.
    pub role: StageRole,
    /// The indices of the stages whose output it reads.
    pub inputs: Vec<usize>,
    /// The number of input records. For a source, the number of records that it has read, including
    /// all records that its rejects represent.
    pub records_in: AtomicU64,
    /// For a source, the number of its records that are done: every sink has received the result. A
    /// run that fails also counts the batches that it drops.
    pub records_done: AtomicU64,
    /// The number of output records.
    pub records_out: AtomicU64,
    /// The number of rejected records.
    pub rejects: AtomicU64,
    /// For a source, the number of inputs that could not be read and are left to the next run.
    pub unread: AtomicU64,
    /// The time spent in the stage, in nanoseconds: the sum over all workers, or for a sink the
    /// time of its own thread.
    pub busy: AtomicU64,
    /// For a sink, the time that workers spent in its batch encoder, in nanoseconds.
    pub prepared: AtomicU64,
    /// For a source, the total number of its records.
    pub(crate) total: Mutex<RecordCount>,
    /// For a source, the last batch that it has read.
    pub(super) last_read: Mutex<Option<BatchRange>>,
    /// For a sink, the files, records and bytes that it has committed.
    pub written: Mutex<CommitStats>,
    /// The statistics of the reconstruction error, if the stage computes one.
    pub error: Option<ReconstructionErrorStats>,
    pub(super) codes: Mutex<BTreeMap<RejectCode, u64>>,
    /// For a source that lists files, the files that its last listing skipped.
    pub(super) skipped_files: Option<LastSkippedFiles>,
}

impl StageStats {
    /// The total number of records of the source, once it is known.
    pub fn total(&self) -> Option<u64> {
        self.total.lock().known()
    }

    /// Records the batch that the source has read.
    pub(crate) fn has_read(&self, batch: &Batch) {
        *self.last_read.lock() = BatchRange::new(batch);
    }

    /// For a source, the last batch that it has read.
    pub(crate) fn last_read(&self) -> Option<BatchRange> {
        self.last_read.lock().clone()
    }

    pub(super) fn is_counting(&self) -> bool {
        matches!(*self.total.lock(), RecordCount::Counting(_))
    }

    /// The number of rejected records per reject code.
    pub fn codes(&self) -> BTreeMap<RejectCode, u64> {
        self.codes.lock().clone()
    }

    /// The files that the last listing of the source skipped.
    pub(crate) fn skipped_files(&self) -> SkippedFiles {
        self.skipped_files
            .as_ref()
            .map(LastSkippedFiles::get)
            .unwrap_or_default()
    }

    /// The files, records and bytes that the sink has committed.
    pub fn written(&self) -> CommitStats {
        *self.written.lock()
    }
}
