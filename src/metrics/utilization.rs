//! The metrics of utilization: throughput, busy time, queues and memory.

use prometheus::{CounterVec, GaugeVec, IntGauge, IntGaugeVec};

use crate::metrics::factory::MetricFactory;
use crate::system;

/// Utilization of stages and workers, length of queues, and memory.
pub struct UtilizationMetrics {
    /// Records per second that a stage received, over the last 5 seconds.
    pub records_per_second: GaugeVec,
    /// Fraction of the last 5 seconds in which a stage was busy; averaged over all workers for a
    /// transform, and not set for sources.
    pub stage_utilization: GaugeVec,
    /// Fraction of the last 5 seconds in which a worker was busy.
    pub worker_utilization: GaugeVec,
    /// Seconds in which a worker was busy.
    pub worker_busy_seconds: CounterVec,
    /// Batches in a queue.
    pub queue_batches: IntGaugeVec,
    /// Maximum number of batches in a queue.
    pub queue_limit: IntGaugeVec,
    /// Bytes that batches in flight have reserved.
    pub memory_bytes: IntGauge,
    /// Maximum number of bytes that batches in flight may reserve.
    pub memory_limit_bytes: IntGauge,
    /// Bytes of memory that the process may use.
    pub machine_memory_bytes: IntGauge,
    /// Number of workers.
    pub workers: IntGauge,
}

impl UtilizationMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let load = Self {
            records_per_second: maker.gauge_vec_f64(
                "records_per_second",
                "Records per second that a stage received, averaged over the last 5 s; 0 if it \
                 received none",
                &["stage", "kind"],
            ),
            stage_utilization: maker.gauge_vec_f64(
                "stage_utilization_ratio",
                "Fraction of the last 5 s in which a stage was busy, from 0 (idle) to 1; averaged \
                 over all workers for a transform; not set for sources; if no stage is near 1, the \
                 source is the bottleneck",
                &["stage", "kind"],
            ),
            worker_utilization: maker.gauge_vec_f64(
                "worker_utilization_ratio",
                "Fraction of the last 5 s in which a worker was busy, from 0 (idle) to 1",
                &["worker"],
            ),
            worker_busy_seconds: maker.counter_vec_f64(
                "worker_busy_seconds_total",
                "Time in which a worker was busy, in seconds",
                &["worker"],
            ),
            queue_batches: maker.gauge_vec(
                "queue_batches",
                "Number of batches in a queue; 0 if it is empty",
                &["queue"],
            ),
            queue_limit: maker.gauge_vec(
                "queue_limit_batches",
                "Maximum number of batches in a queue",
                &["queue"],
            ),
            memory_bytes: maker.gauge(
                "memory_reserved_bytes",
                "Memory that batches in flight have reserved, in bytes; 0 if none is in flight",
            ),
            memory_limit_bytes: maker.gauge(
                "memory_limit_bytes",
                "Maximum memory that batches in flight may reserve, in bytes",
            ),
            machine_memory_bytes: maker.gauge(
                "machine_memory_bytes",
                "Memory that the process may use, in bytes: that of the machine, or the limit of \
                 its control group",
            ),
            workers: maker.gauge("workers", "Number of workers"),
        };
        load.machine_memory_bytes
            .set(i64::try_from(system::memory_limit()).unwrap_or(i64::MAX));
        load
    }
}
