//! The metrics of listeners: their connections, certificates and tokens.

use prometheus::{IntCounterVec, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// The metrics of listeners, by the name of the stage, or `admin`.
pub struct ListenerMetrics {
    /// Connections that are open.
    pub connections: IntGaugeVec,
    /// Connections that may be open.
    pub connections_limit: IntGaugeVec,
    /// Connections that were closed, since they stood still the longest and another one came.
    pub evictions: IntCounterVec,
    /// When the certificate in use expires.
    pub certificate_expiry: IntGaugeVec,
    /// Certificates and tokens that were exchanged for changed ones.
    pub rotations: IntCounterVec,
    /// 1 while the files hold a certificate or a token that cannot be used, so that the former one
    /// stays.
    pub rotation_refused: IntGaugeVec,
}

impl ListenerMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let listener = &["listener"];
        let credential = &["listener", "credential"];
        Self {
            connections: maker.gauge_vec("listener_connections", "Connections that are open", listener),
            connections_limit: maker.gauge_vec("listener_connections_limit", "Connections that may be open", listener),
            evictions: maker.counter_vec(
                "listener_evictions_total",
                "Connections that were closed, since they stood still the longest and another one came",
                listener,
            ),
            certificate_expiry: maker.gauge_vec(
                "certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970",
                listener,
            ),
            rotations: maker.counter_vec(
                "credential_rotations_total",
                "Certificates and tokens that were exchanged, since their files had changed",
                credential,
            ),
            rotation_refused: maker.gauge_vec(
                "credential_rotation_refused",
                "1 while the files hold a certificate or a token that cannot be used, so that the former one stays in use",
                credential,
            ),
        }
    }
}
