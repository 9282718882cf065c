//! A buffer whose memory is reserved before it is allocated.

use std::io::{self, Write};

use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::error_response::ErrorResponse;

/// Output bytes, whose memory is reserved before they are written.
pub(crate) struct MeteredBuffer {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that the request holds in addition.
    others: u64,
    pub(crate) charge: MemoryReservation,
    refusal: Option<ErrorResponse>,
}

/// Minimum number of bytes that are reserved in one step.
const STEP: usize = 256 << 10;

impl MeteredBuffer {
    /// Creates a buffer for a request that already holds `others` bytes.
    pub(crate) fn new(others: u64, charge: MemoryReservation) -> Self {
        Self {
            bytes: Vec::new(),
            others,
            charge,
            refusal: None,
        }
    }

    /// Converts the error of a writer; returns the refusal of memory if that was the cause.
    pub(crate) fn failed(&mut self, error: impl ToString) -> ErrorResponse {
        self.refusal
            .take()
            .unwrap_or_else(|| ErrorResponse::failed(error))
    }

    /// The bytes, with the charge reduced to their size.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, MemoryReservation), ErrorResponse> {
        self.charge.set(self.bytes.capacity() as u64)?;
        Ok((self.bytes, self.charge))
    }
}

impl Write for MeteredBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.bytes.len() + bytes.len();
        if length > self.bytes.capacity() {
            let capacity = length.max(self.bytes.capacity() / 2 * 3).max(STEP);
            if let Err(refusal) = self.charge.set(self.others + capacity as u64) {
                let message = refusal.message.clone();
                self.refusal = Some(refusal);
                return Err(io::Error::other(message));
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
