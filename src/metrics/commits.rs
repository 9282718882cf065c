//! The metrics of commits: files, bytes, duration, delay, and free disk space.

use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounterVec, IntGauge};

use crate::metrics::factory::MetricFactory;

/// The metrics of commits: their size and duration, the records that wait for one, and the free
/// disk space.
pub struct CommitMetrics {
    /// Committed files, by sink.
    pub files: IntCounterVec,
    /// Committed bytes, by sink.
    pub bytes: IntCounterVec,
    /// Duration of a commit in seconds, by sink.
    pub seconds: HistogramVec,
    /// Time of a sink's last commit.
    pub last: GaugeVec,
    /// Age of the oldest record that is not durable in every sink.
    pub oldest_uncommitted: Gauge,
    /// Sinks that wait for an object store that does not respond.
    pub waiting_for_store: IntGauge,
    /// Free bytes of the disk that a sink writes to.
    pub free_bytes: GaugeVec,
    /// Size of that disk in bytes.
    pub size_bytes: GaugeVec,
}

impl CommitMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // Buckets from 100 us to 52 s in factors of 2.
        let seconds = (1e-4, 2.0, 20);
        Self {
            files: maker.counter_vec(
                "files_committed_total",
                "Number of files that a sink committed",
                &["stage"],
            ),
            bytes: maker.counter_vec(
                "file_bytes_committed_total",
                "Size of the files that a sink committed, in bytes",
                &["stage"],
            ),
            seconds: maker.histogram_vec(
                "commit_seconds",
                "Duration of a commit, in seconds",
                &["stage"],
                seconds,
            ),
            last: maker.gauge_vec_f64(
                "last_commit_timestamp_seconds",
                "Time at which a sink last committed, in seconds since 1970; 0 or absent before \
                 the first commit",
                &["stage"],
            ),
            oldest_uncommitted: maker.gauge_f64(
                "oldest_uncommitted_seconds",
                "Age of the oldest record that was read and is not yet durable in every sink, in \
                 seconds; 0 if all records are durable",
            ),
            waiting_for_store: maker.gauge(
                "sinks_waiting_for_store",
                "Number of sinks that wait for an object store that does not respond; 0 if none \
                 waits, and in a run with an end, which fails instead",
            ),
            free_bytes: maker.gauge_vec_f64(
                "output_free_bytes",
                "Free space on the file system that a sink writes to, in bytes",
                &["stage"],
            ),
            size_bytes: maker.gauge_vec_f64(
                "output_size_bytes",
                "Size of the file system that a sink writes to, in bytes",
                &["stage"],
            ),
        }
    }
}
