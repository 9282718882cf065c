//! Memory that requests reserve before they allocate it, within the common limit
//! `limits.in_flight`.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::http::error_response::ErrorResponse;
use crate::units::ByteSize;

/// Memory is counted in units of 4 KiB.
const UNIT: u64 = 4 << 10;

/// The memory that all requests share.
#[derive(Clone)]
pub(crate) struct MemoryPool {
    units: Arc<Semaphore>,
    bytes: u64,
}

impl MemoryPool {
    /// A pool of `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            bytes,
        }
    }

    /// An empty reservation.
    pub(crate) fn charge(&self) -> MemoryReservation {
        MemoryReservation {
            memory: self.clone(),
            held: None,
        }
    }
}

/// The memory that one request has reserved, which is released on drop.
pub(crate) struct MemoryReservation {
    memory: MemoryPool,
    held: Option<OwnedSemaphorePermit>,
}

impl MemoryReservation {
    /// Sets the reservation to `bytes` in total, which may be more or less than before.
    ///
    /// # Errors
    /// Returns 413 if the pool is smaller than `bytes`, and 429 if other requests have reserved it.
    pub(crate) fn set(&mut self, bytes: u64) -> Result<(), ErrorResponse> {
        let requested = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if requested <= held {
            // The part that is split off is released.
            drop(
                self.held
                    .as_mut()
                    .and_then(|permit| permit.split(held - requested)),
            );
            return Ok(());
        }
        let Some(more) = u32::try_from(requested - held)
            .ok()
            .filter(|_| bytes <= self.memory.bytes)
        else {
            return Err(ErrorResponse::too_large(format!(
                "the request needs {} of memory, but limits.in_flight allows {}; split it into \
                 several requests",
                ByteSize(bytes),
                ByteSize(self.memory.bytes)
            )));
        };
        let permit = Arc::clone(&self.memory.units)
            .try_acquire_many_owned(more)
            .map_err(|_| {
                let message = "all memory for requests is in use (limits.in_flight)";
                ErrorResponse::later(StatusCode::TOO_MANY_REQUESTS, message, 1)
            })?;
        match &mut self.held {
            Some(held_permit) => held_permit.merge(permit),
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
