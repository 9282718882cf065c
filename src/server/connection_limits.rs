//! Limits on the connections of a listener: their number, and the time that a client may take.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::units::HumanDuration;

/// Default of the maximum time for the head of a request.
pub const HEAD: HumanDuration = HumanDuration(Duration::from_secs(10));
/// Default of the maximum time between two requests of a connection.
pub(crate) const IDLE: HumanDuration = HumanDuration(Duration::from_secs(75));
/// Default of the maximum time in which a client must read a part of its response.
pub(crate) const WRITE: HumanDuration = HumanDuration(Duration::from_secs(30));

/// Limits on the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ConnectionLimits {
    /// Maximum number of open connections. Beyond it, the connection that has waited for its client
    /// the longest is closed. Default: 128, or an eighth of the file descriptors that the process
    /// may open, if that is less.
    pub connections: Option<NonZeroU32>,
    /// Maximum time for the head of a request to arrive. Default: "10s".
    pub head: HumanDuration,
    /// Maximum time between two requests of a connection. Default: "75s".
    pub idle: HumanDuration,
    /// A client that reads less than 64 KiB of a response within this time is disconnected.
    /// Default: "30s".
    pub write: HumanDuration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: None,
            head: HEAD,
            idle: IDLE,
            write: WRITE,
        }
    }
}

impl ConnectionLimits {
    /// Durations that would close every connection; keys are relative to the table of limits.
    pub fn faults(&self) -> Vec<ConfigError> {
        let durations = [
            ("head", self.head),
            ("idle", self.idle),
            ("write", self.write),
        ];
        let zero = durations
            .into_iter()
            .filter(|(_, duration)| duration.0.is_zero());
        zero.map(|(key, _)| {
            ConfigError::new(
                key,
                "a duration of 0 closes every connection; expected a longer one, such as \"10s\"",
            )
        })
        .collect()
    }
}

/// Default of the maximum number of connections of the admin listener.
const ADMIN: u64 = 128;
/// Default of the maximum number of connections of a source.
const SOURCE: u64 = 1024;

/// The role of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// The listener for operators.
    Admin,
    /// The listener of a source; the number is that of all sources that listen.
    Source(usize),
}

/// Maximum number of open connections of a listener: the number `written` in the pipeline or the
/// default, and at most the listener's share of the `descriptors` that the process may open. Half
/// of those are reserved for the pipeline; an eighth is for the admin listener, and the rest is
/// divided among the sources.
pub(super) fn connections(
    written: Option<NonZeroU32>,
    listener: ListenerRole,
    descriptors: Option<u64>,
) -> usize {
    let descriptors = descriptors.unwrap_or(u64::MAX);
    let admin = descriptors / 8;
    let (default, share) = match listener {
        ListenerRole::Admin => (ADMIN, admin),
        ListenerRole::Source(count) => (SOURCE, (descriptors / 2 - admin) / count.max(1) as u64),
    };
    let requested = written.map_or(default, |written| u64::from(written.get()));
    usize::try_from(requested.min(share).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_half_of_the_descriptors() {
        let of = |listener, limit| connections(None, listener, limit);
        assert_eq!(
            [
                of(ListenerRole::Admin, None),
                of(ListenerRole::Source(1), None)
            ],
            [128, 1024]
        );
        assert_eq!(
            [
                of(ListenerRole::Admin, Some(1024)),
                of(ListenerRole::Source(1), Some(1024))
            ],
            [128, 384]
        );
        assert_eq!(
            [
                of(ListenerRole::Admin, Some(256)),
                of(ListenerRole::Source(3), Some(256))
            ],
            [32, 32]
        );
        assert_eq!(
            [
                of(ListenerRole::Admin, Some(3)),
                of(ListenerRole::Source(9), Some(3))
            ],
            [1, 1]
        );
        assert_eq!(
            connections(NonZeroU32::new(500), ListenerRole::Source(1), Some(1024)),
            384
        );
        assert_eq!(
            connections(NonZeroU32::new(5), ListenerRole::Source(1), Some(1024)),
            5
        );
    }

    #[test]
    fn durations_of_zero_are_faults() {
        let bounds = ConnectionLimits {
            idle: HumanDuration(Duration::ZERO),
            ..ConnectionLimits::default()
        };
        let keys: Vec<String> = bounds.faults().into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["idle"]);
        assert!(ConnectionLimits::default().faults().is_empty());
    }
}
