//! A buffer whose memory is reserved before it is taken.

use std::io::{self, Write};

use crate::source::http::error_response::ErrorResponse;
use crate::source::http::memory_reservation::MemoryReservation;

/// Bytes that are reserved before they are written.
pub(super) struct MeteredBuffer {
    pub(super) bytes: Vec<u8>,
    /// Bytes that the request holds besides.
    others: u64,
    pub(super) charge: MemoryReservation,
    refusal: Option<ErrorResponse>,
}

/// Bytes that are reserved at a time.
const STEP: usize = 256 << 10;

impl MeteredBuffer {
    /// Bytes beside `others`, which the request holds.
    pub(super) fn new(others: u64, charge: MemoryReservation) -> Self {
        Self {
            bytes: Vec::new(),
            others,
            charge,
            refusal: None,
        }
    }

    /// What a writer says of an error; the refusal that caused it, where one did.
    pub(super) fn failed(&mut self, error: impl ToString) -> ErrorResponse {
        self.refusal
            .take()
            .unwrap_or_else(|| ErrorResponse::failed(error))
    }

    /// The bytes, with the charge for them alone.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, MemoryReservation), ErrorResponse> {
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
