//! Bounds on the connections of a listener: how many are open, and how long a client may take.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::units::HumanDuration;

/// How long the head of a request may take, where the pipeline does not say.
pub const HEAD: HumanDuration = HumanDuration(Duration::from_secs(10));
/// How long a connection may stay open between two requests, where the pipeline does not say.
pub const IDLE: HumanDuration = HumanDuration(Duration::from_secs(75));
/// How long a client may take nothing of an answer, where the pipeline does not say.
pub const WRITE: HumanDuration = HumanDuration(Duration::from_secs(30));

/// Bounds on the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ConnectionLimits {
    /// Connections that are open at the same time. Beyond them, the connection that has stood still
    /// for the longest time is closed. Default: 128, or an eighth of the file descriptors that the
    /// process may open, if that is less.
    pub connections: Option<NonZeroU32>,
    /// How long the head of a request may take to arrive. Default: "10s".
    pub head: HumanDuration,
    /// How long a connection may stay open between two requests. Default: "75s".
    pub idle: HumanDuration,
    /// A client that takes less than 64 KiB of an answer within this time is cut off. Default:
    /// "30s".
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
    /// Spans that would close every connection; keys are relative to the bounds.
    pub fn faults(&self) -> Vec<ConfigError> {
        let spans = [
            ("head", self.head),
            ("idle", self.idle),
            ("write", self.write),
        ];
        let zero = spans.into_iter().filter(|(_, span)| span.0.is_zero());
        zero.map(|(key, _)| {
            ConfigError::new(
                key,
                "a span of 0 closes every connection; write a longer one, such as \"10s\"",
            )
        })
        .collect()
    }
}

/// Connections of the admin listener, where the pipeline does not say.
const ADMIN: u64 = 128;
/// Connections of a source, where the pipeline does not say.
const SOURCE: u64 = 1024;

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// The listener for operators.
    Admin,
    /// One of so many sources.
    Source(usize),
}

/// How many connections a listener may have open: the number `written`, or the default, and at most
/// the listener's share of the `descriptors` that the process may open. Half of those are kept for
/// the pipeline; an eighth is for the admin listener, and the rest is divided among the sources.
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
    let wanted = written.map_or(default, |written| u64::from(written.get()));
    usize::try_from(wanted.min(share).max(1)).unwrap_or(usize::MAX)
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
    fn spans_of_zero_are_faults() {
        let bounds = ConnectionLimits {
            idle: HumanDuration(Duration::ZERO),
            ..ConnectionLimits::default()
        };
        assert_eq!(bounds.faults().len(), 1);
        assert!(ConnectionLimits::default().faults().is_empty());
    }
}
