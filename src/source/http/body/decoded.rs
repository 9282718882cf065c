//! The records of a body.

use arrow::array::RecordBatch;

/// The records of a body, and their memory.
pub(crate) struct DecodedBody {
    /// Columns without `source` and `row`.
    pub(crate) columns: RecordBatch,
    /// Bytes that are held as long as the columns are.
    pub(crate) held: u64,
}
