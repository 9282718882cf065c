//! The open connections of a listener, up to its limit. Beyond the limit, the connection that has
//! been idle the longest is closed in favor of a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection_activity::ConnectionActivity;
use crate::metrics::ListenerMetrics;

/// The open connections of a listener.
pub(super) struct Connections {
    limit: usize,
    name: String,
    metrics: Arc<crate::metrics::Metrics>,
    steps: Arc<AtomicU64>,
    open: Mutex<OpenConnections>,
    /// Notifies when a connection was closed, or may be closed.
    changes: Notify,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    activities: HashMap<u64, Arc<ConnectionActivity>>,
}

/// An open connection, which counts until it is dropped.
pub(super) struct Connection {
    all: Arc<Connections>,
    number: u64,
    pub(super) activity: Arc<ConnectionActivity>,
}

impl Connections {
    pub(super) fn new(
        limit: usize,
        name: &str,
        metrics: &Arc<crate::metrics::Metrics>,
    ) -> Arc<Self> {
        let connections = Self {
            limit,
            name: name.to_owned(),
            metrics: Arc::clone(metrics),
            steps: Arc::default(),
            open: Mutex::default(),
            changes: Notify::new(),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        connections
            .listeners()
            .connections_limit
            .with_label_values(&[name])
            .set(limit);
        connections.listeners().evictions.with_label_values(&[name]);
        connections.set_count(0);
        Arc::new(connections)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn listeners(&self) -> &ListenerMetrics {
        &self.metrics.listeners
    }

    fn set_count(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.listeners()
            .connections
            .with_label_values(&[&self.name])
            .set(count);
    }

    /// Waits for a slot for one more connection. At the limit, the connection that has waited for
    /// its client the longest is closed. Requests that are being processed are never interrupted,
    /// so the slot may become free only when one of them is answered.
    pub(super) async fn enter(self: &Arc<Self>) -> Connection {
        loop {
            let changed = self.changes.notified();
            if let Some(connection) = self.try_enter() {
                return connection;
            }
            tokio::select! {
                () = changed => {}
                // A request that was being processed may wait for its client by now.
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Connection> {
        let mut open = self.open.lock();
        if open.activities.len() >= self.limit {
            let activities = || open.activities.values();
            let idle = activities().filter(|activity| !activity.is_working());
            if !activities().any(|activity| activity.is_evicted())
                && let Some(longest) = idle.min_by_key(|activity| activity.last())
            {
                longest.evict();
                self.listeners()
                    .evictions
                    .with_label_values(&[&self.name])
                    .inc();
            }
            return None;
        }
        let (number, activity) = (open.next, ConnectionActivity::new(&self.steps));
        open.next += 1;
        open.activities.insert(number, Arc::clone(&activity));
        self.set_count(open.activities.len());
        Some(Connection {
            all: Arc::clone(self),
            number,
            activity,
        })
    }
}

/// Interval between two searches for a connection to close.
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        open.activities.remove(&self.number);
        self.all.set_count(open.activities.len());
        self.all.changes.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn connection_beyond_the_limit_evicts_the_longest_idle() {
        let all = Connections::new(2, "in", &Arc::default());
        let (first, second) = (all.try_enter().unwrap(), all.try_enter().unwrap());
        first.activity.record_transfer();
        assert!(all.try_enter().is_none());
        assert!(all.try_enter().is_none(), "one eviction is enough");
        assert_eq!(
            [first.activity.is_evicted(), second.activity.is_evicted()],
            [false, true]
        );
        drop(second);
        assert!(all.try_enter().is_some());
        assert_eq!(
            all.listeners().evictions.with_label_values(&["in"]).get(),
            1
        );
    }
}
