//! The metrics of what sinks make durable.

use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounterVec, IntGauge};

use crate::metrics::factory::MetricFactory;

/// What sinks make durable: how much, how long it takes, what waits for it, and how much room is
/// left.
pub struct CommitMetrics {
    /// Files committed, by sink.
    pub files: IntCounterVec,
    /// Bytes committed, by sink.
    pub bytes: IntCounterVec,
    /// Seconds that a commit took, by sink.
    pub seconds: HistogramVec,
    /// When a sink last committed.
    pub last: GaugeVec,
    /// For how long the oldest record has waited that is not durable yet.
    pub oldest_uncommitted: Gauge,
    /// Sinks that wait for an object store that does not answer.
    pub waiting_for_store: IntGauge,
    /// Bytes that are free on the disk that a sink writes to.
    pub free_bytes: GaugeVec,
    /// Bytes of that disk.
    pub size_bytes: GaugeVec,
}

impl CommitMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // 100 us to 52 s by factors of 2.
        let seconds = (1e-4, 2.0, 20);
        Self {
            files: maker.counter_vec("files_committed_total", "Files that a sink committed", &["stage"]),
            bytes: maker.counter_vec("file_bytes_committed_total", "Bytes that a sink committed", &["stage"]),
            seconds: maker.histogram_vec("commit_seconds", "Seconds that a commit took", &["stage"], seconds),
            last: maker.gauge_vec_f64(
                "last_commit_timestamp_seconds",
                "When a sink last committed, in seconds since 1970",
                &["stage"],
            ),
            oldest_uncommitted: maker.gauge_f64(
                "oldest_uncommitted_seconds",
                "For how long the oldest record that was read has waited to be durable in every sink; 0 where none waits",
            ),
            waiting_for_store: maker.gauge(
                "sinks_waiting_for_store",
                "Sinks that wait for an object store that does not answer, in a run without an end",
            ),
            free_bytes: maker.gauge_vec_f64(
                "output_free_bytes",
                "Bytes that are free on the file system that a sink writes to",
                &["stage"],
            ),
            size_bytes: maker.gauge_vec_f64(
                "output_size_bytes",
                "Bytes of the file system that a sink writes to",
                &["stage"],
            ),
        }
    }
}
