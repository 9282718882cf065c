//! The metrics of how busy stages and workers are, and of what waits.

use prometheus::{CounterVec, GaugeVec, IntGauge, IntGaugeVec};

use crate::metrics::factory::MetricFactory;
use crate::system;

/// How busy stages and workers are, what waits, and what memory is taken.
pub struct UtilizationMetrics {
    /// Records per second that a stage took in of late.
    pub records_per_second: GaugeVec,
    /// Share of the time of late in which a stage was at work, over all workers for a transform.
    pub stage_utilization: GaugeVec,
    /// Share of the time of late in which a worker was at work.
    pub worker_utilization: GaugeVec,
    /// Seconds in which a worker was at work.
    pub worker_busy_seconds: CounterVec,
    /// Batches that wait, by queue.
    pub queue_batches: IntGaugeVec,
    /// Batches that may wait, by queue.
    pub queue_limit: IntGaugeVec,
    /// Bytes that batches in flight hold.
    pub memory_bytes: IntGauge,
    /// Bytes that batches in flight may hold.
    pub memory_limit_bytes: IntGauge,
    /// Bytes of memory that the process may use.
    pub machine_memory_bytes: IntGauge,
    /// Workers that run.
    pub workers: IntGauge,
}

impl UtilizationMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let load = Self {
            records_per_second: maker.gauge_vec_f64(
                "records_per_second",
                "Records per second that a stage took in over the last seconds",
                &["stage", "kind"],
            ),
            stage_utilization: maker.gauge_vec_f64(
                "stage_utilization_ratio",
                "Share of the last seconds in which a stage was at work; of all workers' time for a transform",
                &["stage", "kind"],
            ),
            worker_utilization: maker.gauge_vec_f64(
                "worker_utilization_ratio",
                "Share of the last seconds in which a worker was at work",
                &["worker"],
            ),
            worker_busy_seconds: maker.counter_vec_f64(
                "worker_busy_seconds_total",
                "Seconds in which a worker was at work",
                &["worker"],
            ),
            queue_batches: maker.gauge_vec("queue_batches", "Batches that wait in a queue", &["queue"]),
            queue_limit: maker.gauge_vec("queue_limit_batches", "Batches that may wait in a queue", &["queue"]),
            memory_bytes: maker.gauge("memory_reserved_bytes", "Bytes that batches in flight have reserved"),
            memory_limit_bytes: maker.gauge("memory_limit_bytes", "Bytes that batches in flight may reserve"),
            machine_memory_bytes: maker.gauge(
                "machine_memory_bytes",
                "Bytes of memory that the process may use: those of the machine, or the limit of its control group",
            ),
            workers: maker.gauge("workers", "Workers that run"),
        };
        load.machine_memory_bytes
            .set(i64::try_from(system::memory_limit()).unwrap_or(i64::MAX));
        load
    }
}
