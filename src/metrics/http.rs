//! The metrics of HTTP sources.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of HTTP sources; absent if the pipeline has none.
pub struct HttpMetrics {
    /// Requests that were answered, by route and status code.
    pub requests: IntCounterVec,
    /// Seconds from the head of a request to the start of its response.
    pub request_seconds: HistogramVec,
    /// Requests that are being processed.
    pub in_flight: IntGaugeVec,
    /// Acknowledged records that are not durable in every sink.
    pub backlog_records: IntGaugeVec,
    /// Size of these records in the journal, in bytes.
    pub backlog_bytes: IntGaugeVec,
    /// Size of the backlog from which on requests are refused.
    pub backlog_limit_bytes: IntGaugeVec,
}

impl HttpMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // Buckets from 100 us to 105 s in factors of 2.
        let seconds = (1e-4, 2.0, 21);
        Self {
            requests: maker.counter_vec(
                "http_requests_total",
                "Number of requests that were answered, by route and status code of the response",
                &["stage", "route", "code"],
            ),
            request_seconds: maker.histogram_vec(
                "http_request_seconds",
                "Time from the head of a request to its response, in seconds",
                &["stage", "route"],
                seconds,
            ),
            in_flight: maker.gauge_vec(
                "http_requests_in_flight",
                "Number of requests that are being processed; 0 if there are none",
                &["stage"],
            ),
            backlog_records: maker.gauge_vec(
                "journal_backlog_records",
                "Number of acknowledged records that are not yet durable in every sink; 0 if all \
                 are durable",
                &["stage"],
            ),
            backlog_bytes: maker.gauge_vec(
                "journal_backlog_bytes",
                "Size in the journal of the acknowledged records that are not yet durable in every \
                 sink, in bytes; 0 if all are durable",
                &["stage"],
            ),
            backlog_limit_bytes: maker.gauge_vec(
                "journal_backlog_limit_bytes",
                "Value of journal_backlog_bytes at which further records are refused with status \
                 429, in bytes",
                &["stage"],
            ),
        }
    }
}
