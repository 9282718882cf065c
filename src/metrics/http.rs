//! The metrics of sources that are asked over HTTP.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of sources that are asked over HTTP; absent where there is none.
pub struct HttpMetrics {
    /// Requests that were answered, by what they asked for and the answer's code.
    pub requests: IntCounterVec,
    /// Seconds from a request's head to its answer.
    pub request_seconds: HistogramVec,
    /// Requests that are being answered.
    pub in_flight: IntGaugeVec,
    /// Records that were acknowledged and are not durable in every sink.
    pub backlog_records: IntGaugeVec,
    /// Their bytes in the journal.
    pub backlog_bytes: IntGaugeVec,
    /// Bytes from which on nothing more is taken.
    pub backlog_limit_bytes: IntGaugeVec,
}

impl HttpMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // 100 us to 105 s by factors of 2.
        let seconds = (1e-4, 2.0, 21);
        Self {
            requests: maker.counter_vec(
                "http_requests_total",
                "Requests that were answered, by what they asked for and the status of the answer",
                &["stage", "route", "code"],
            ),
            request_seconds: maker.histogram_vec(
                "http_request_seconds",
                "Seconds from the head of a request to its answer",
                &["stage", "route"],
                seconds,
            ),
            in_flight: maker.gauge_vec(
                "http_requests_in_flight",
                "Requests that are being answered",
                &["stage"],
            ),
            backlog_records: maker.gauge_vec(
                "journal_backlog_records",
                "Records that were acknowledged and are not durable in every sink",
                &["stage"],
            ),
            backlog_bytes: maker.gauge_vec(
                "journal_backlog_bytes",
                "Bytes of the journal of such records",
                &["stage"],
            ),
            backlog_limit_bytes: maker.gauge_vec(
                "journal_backlog_limit_bytes",
                "Bytes of such records from which on no more are taken",
                &["stage"],
            ),
        }
    }
}
