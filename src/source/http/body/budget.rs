//! The memory of a body while it is parsed.

use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::limits::HttpLimits;
use crate::units::ByteSize;

/// The limits on the records of a request, and the memory that they have reserved.
pub(crate) struct BodyBudget<'a> {
    /// Maximum number of bytes of the records in their columns, including the names of their
    /// sources.
    pub(crate) bytes: u64,
    /// Maximum number of records, including invalid lines.
    pub(crate) records: u64,
    /// Bytes of the name of the source, which each record repeats.
    pub(crate) name: u64,
    pub(crate) charge: &'a mut MemoryReservation,
    counted: u64,
    pub(super) held: u64,
}

impl<'a> BodyBudget<'a> {
    /// The limits of a request, before any memory is reserved.
    pub(crate) fn new(
        limits: &HttpLimits,
        source: &str,
        charge: &'a mut MemoryReservation,
    ) -> Self {
        let records = u64::from(limits.records.get());
        Self {
            bytes: limits.request.0,
            records,
            name: name_bytes(source),
            charge,
            counted: 0,
            held: 0,
        }
    }

    /// Reserves memory that is about to be allocated.
    pub(crate) fn hold(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        self.held = self.held.saturating_add(bytes);
        self.charge.set(self.held)
    }

    /// Releases memory that was freed.
    pub(crate) fn free(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        self.held = self.held.saturating_sub(bytes);
        self.charge.set(self.held)
    }

    /// Bytes that are reserved.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Counts additional records.
    pub(crate) fn count(&mut self, records: u64) -> Result<(), ErrorResponse> {
        self.counted = self.counted.saturating_add(records);
        if self.counted > self.records {
            let limit = self.records;
            return Err(ErrorResponse::too_large(format!(
                "the body has more than {limit} records (limits.records)"
            )));
        }
        Ok(())
    }

    /// Checks the total size of the records in their columns.
    pub(crate) fn weigh(&self, bytes: u64) -> Result<(), ErrorResponse> {
        let bytes = bytes.saturating_add(self.counted.saturating_mul(self.name));
        if bytes > self.bytes {
            let (size, limit) = (ByteSize(bytes), ByteSize(self.bytes));
            let message = format!(
                "the records need {size} in their columns, but limits.request allows {limit}; \
                 split them into several requests"
            );
            return Err(ErrorResponse::too_large(message));
        }
        Ok(())
    }
}

/// Maximum length in bytes of a name that a client gives to its records.
pub(crate) const NAME: usize = 256;

/// Bytes of the name of its source in a record.
pub(crate) fn name_bytes(source: &str) -> u64 {
    // The text and its offset.
    source.len() as u64 + 4
}
