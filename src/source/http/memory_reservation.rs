//! Memory that requests reserve before they take it: each for itself, all together within
//! `limits.in_flight`.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::http::error_response::ErrorResponse;
use crate::units::ByteSize;

/// Memory is counted in units of 4 KiB.
const UNIT: u64 = 4 << 10;

/// The memory that all requests may take.
#[derive(Clone)]
pub(super) struct MemoryPool {
    units: Arc<Semaphore>,
    bytes: u64,
}

impl MemoryPool {
    /// So many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            bytes,
        }
    }

    /// A reservation of nothing yet.
    pub(super) fn charge(&self) -> MemoryReservation {
        MemoryReservation {
            memory: self.clone(),
            held: None,
        }
    }
}

/// What one request has reserved; it is released when this is dropped.
pub(super) struct MemoryReservation {
    memory: MemoryPool,
    held: Option<OwnedSemaphorePermit>,
}

impl MemoryReservation {
    /// Reserves so many bytes in all, more or fewer than before.
    ///
    /// # Errors
    /// 413 where all requests together may not take as much, 429 where others have reserved it.
    pub(super) fn set(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        let wanted = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= held {
            // What is split off is released.
            drop(
                self.held
                    .as_mut()
                    .and_then(|permit| permit.split(held - wanted)),
            );
            return Ok(());
        }
        let Some(more) = u32::try_from(wanted - held)
            .ok()
            .filter(|_| bytes <= self.memory.bytes)
        else {
            return Err(ErrorResponse::too_large(format!(
                "the request takes {} of memory, and limits.in_flight allows {}; send its records in several requests",
                ByteSize(bytes),
                ByteSize(self.memory.bytes)
            )));
        };
        let permit = Arc::clone(&self.memory.units)
            .try_acquire_many_owned(more)
            .map_err(|_| {
                let message = "requests take as much memory as limits.in_flight allows";
                ErrorResponse::later(StatusCode::TOO_MANY_REQUESTS, message, 1)
            })?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn charge_beyond_all_memory_is_413_and_beyond_the_rest_429() {
        let memory = MemoryPool::new(10 * UNIT);
        let (mut one, mut two) = (memory.charge(), memory.charge());
        assert_eq!(
            one.set(11 * UNIT).unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(
            one.set(u64::MAX).unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        one.set(6 * UNIT).unwrap();
        assert_eq!(
            two.set(5 * UNIT).unwrap_err().status,
            StatusCode::TOO_MANY_REQUESTS
        );
        two.set(4 * UNIT).unwrap();
        one.set(UNIT + 1).unwrap();
        assert_eq!(
            memory.units.available_permits(),
            4,
            "2 and 4 of 10 are held"
        );
        two.set(8 * UNIT).unwrap();
        drop((one, two));
        assert_eq!(memory.units.available_permits(), 10);
    }
}
