//! The results of the records of a request.

use arrow::array::RecordBatch;

use crate::source::http::ack_waiters::RejectedRecord;
use crate::source::http::body::memory_reservation::MemoryReservation;

/// The results of a request's records.
pub(super) struct InferenceResult {
    /// Number of submitted records.
    pub(super) total: usize,
    /// The requested columns of the records that passed the graph, with the position of each record
    /// in the request.
    pub(super) parts: Vec<(RecordBatch, Vec<usize>)>,
    /// Rejected records; `row` is the position in the request.
    pub(super) rejected: Vec<RejectedRecord>,
    /// Size of all results in bytes.
    pub(super) held: u64,
    pub(super) charge: MemoryReservation,
}

/// Number of copies of the records in memory: as received, combined with others, and cut into
/// batches.
pub(super) const COPIES: u64 = 3;

/// Bytes of the response for each record, in addition to its values.
pub(super) const PER_RECORD: u64 = 96;

/// Bytes of a rejected record, in addition to its stage and reason.
pub(crate) const PER_REJECT: u64 = 128;
