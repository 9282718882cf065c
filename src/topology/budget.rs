//! Permits, which limit the number of batches in flight and their memory, and so are the
//! backpressure on the sources.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::IntGauge;
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, Semaphore};

use super::telemetry::stats::RunStats;
use crate::metrics::Metrics;

/// Bytes are counted in units of 4 KiB, so that a budget of terabytes fits the semaphore's 32 bits.
const UNIT: u64 = 4 << 10;

/// The limits on the batches in flight: their number and their total memory.
pub(super) struct InFlightBudget {
    memory: Arc<Semaphore>,
    units: u32,
    slots: Arc<Semaphore>,
    gauge: IntGauge,
}

/// The right of one batch to be in flight, until it is dropped.
pub(super) struct InFlightPermit {
    _memory: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
    /// For an inference request: keeps rows that are processed alone waiting.
    _access: Option<OwnedRwLockReadGuard<()>>,
    /// The records that are done when the permit is released.
    records: Option<InFlightRecords>,
    bytes: i64,
    gauge: IntGauge,
}

/// The records of a batch in flight.
struct InFlightRecords {
    stats: Arc<RunStats>,
    /// The index of the source in the plan.
    source: usize,
    count: u64,
}

impl InFlightPermit {
    /// Counts `count` records of a source as done when the permit is released.
    pub(super) fn with_records(mut self, stats: &Arc<RunStats>, source: usize, count: u64) -> Self {
        self.records = Some(InFlightRecords {
            stats: Arc::clone(stats),
            source,
            count,
        });
        self
    }

    /// Attaches a guard of the poison record tracker, which is released together with the permit.
    pub(super) fn with_shared_access(mut self, access: OwnedRwLockReadGuard<()>) -> Self {
        self._access = Some(access);
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

    /// Waits until a batch of `bytes` fits. A batch above the budget waits until no other is in
    /// flight.
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
            _access: None,
            records: None,
            bytes,
            gauge: self.gauge.clone(),
        })
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
        if let Some(InFlightRecords {
            stats,
            source,
            count,
        }) = &self.records
        {
            stats.stages[*source]
                .records_done
                .fetch_add(*count, Relaxed);
        }
    }
}
