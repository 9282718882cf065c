//! Limits of transfers from and to a store.

use crate::storage::{Location, is_url};

/// Number of objects that are requested together: the next ones arrive while one is read.
pub(crate) const MAX_CONCURRENT_REQUESTS: usize = 16;

/// Maximum memory for reading objects, in bytes: the blocks of one object and the ends of the
/// objects after it, or small objects that are read together.
const READING_BYTES: u64 = 68 << 20;

/// Memory for writing an object, in bytes: the part that is filled and the part that is in flight.
const WRITING_BYTES: u64 = 16 << 20;

/// Memory for reading from `path` in bytes, without the memory of the records.
pub(crate) fn reading_bytes(path: &str) -> u64 {
    if is_url(path) { READING_BYTES } else { 0 }
}

impl Location {
    /// Memory for writing a file here in bytes, without the memory of the caller.
    pub(crate) fn writing_bytes(&self) -> u64 {
        if self.local().is_some() {
            0
        } else {
            WRITING_BYTES
        }
    }
}
