//! Permits: how many batches, and how many bytes of them, may be in flight.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Bytes are counted in units of 4 KiB, so that a budget of terabytes fits the semaphore's 32 bits.
const UNIT: u64 = 4 << 10;

/// What batches in flight may take together.
pub(super) struct InFlightBudget {
    memory: Arc<Semaphore>,
    units: u32,
    slots: Arc<Semaphore>,
    gauge: IntGauge,
}

/// Lets one batch be in flight until it is dropped.
pub(super) struct InFlightPermit {
    _memory: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
    /// The share of the process that work beside the numbered batches has.
    _turn: Option<OwnedRwLockReadGuard<()>>,
    bytes: i64,
    gauge: IntGauge,
}

impl InFlightPermit {
    /// The same, with a share of the process that returns with it.
    pub(super) fn with_turn(mut self, turn: OwnedRwLockReadGuard<()>) -> Self {
        self._turn = Some(turn);
        self
    }
}

impl InFlightBudget {
    pub(super) fn new(bytes: u64, slots: usize, metrics: &Metrics) -> Self {
        let units = u32::try_from((bytes / UNIT).max(1)).unwrap_or(u32::MAX);
        Self {
            memory: Arc::new(Semaphore::new(units as usize)),
            units,
            slots: Arc::new(Semaphore::new(slots)),
            gauge: metrics.utilization.memory_bytes.clone(),
        }
    }

    /// Waits until a batch of so many bytes may go. One above the whole budget waits until it is
    /// alone.
    pub(super) async fn acquire(&self, bytes: u64) -> Option<InFlightPermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .clamp(1, self.units);
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let memory = Arc::clone(&self.memory)
            .acquire_many_owned(units)
            .await
            .ok()?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.gauge.add(bytes);
        Some(InFlightPermit {
            _memory: memory,
            _slot: slot,
            _turn: None,
            bytes,
            gauge: self.gauge.clone(),
        })
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}
