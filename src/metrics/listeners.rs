//! The metrics of listeners: connections, certificates and tokens.

use prometheus::{IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of listeners; the label is the name of the stage, or `admin`.
pub struct ListenerMetrics {
    /// Open connections.
    pub connections: IntGaugeVec,
    /// Maximum number of open connections.
    pub connections_limit: IntGaugeVec,
    /// Connections that were closed in favor of a new one because they had waited for their client
    /// the longest.
    pub evictions: IntCounterVec,
    /// Time at which the certificate in use expires.
    pub certificate_expiry: IntGaugeVec,
    /// Certificates and tokens that were replaced after their files had changed.
    pub rotations: IntCounterVec,
    /// 1 while the changed files of a certificate or a token cannot be used and the previous one
    /// stays in use.
    pub rotation_refused: IntGaugeVec,
}

impl ListenerMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let listener = &["listener"];
        let credential = &["listener", "credential"];
        Self {
            connections: maker.gauge_vec(
                "listener_connections",
                "Number of open connections; 0 if there are none",
                listener,
            ),
            connections_limit: maker.gauge_vec(
                "listener_connections_limit",
                "Maximum number of open connections",
                listener,
            ),
            evictions: maker.counter_vec(
                "listener_evictions_total",
                "Number of connections that were closed at the limit in favor of a new one, \
                 because they had waited for their client the longest",
                listener,
            ),
            certificate_expiry: maker.gauge_vec(
                "certificate_expiry_timestamp_seconds",
                "Time at which the certificate in use expires, in seconds since 1970; absent \
                 without TLS",
                listener,
            ),
            rotations: maker.counter_vec(
                "credential_rotations_total",
                "Number of certificates and tokens that were replaced after their files had \
                 changed",
                credential,
            ),
            rotation_refused: maker.gauge_vec(
                "credential_rotation_refused",
                "1 while the changed files of a certificate or a token cannot be used and the \
                 previous one stays in use; 0 otherwise",
                credential,
            ),
        }
    }
}
