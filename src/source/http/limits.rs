//! Limits on the requests of a source: sizes, times and rates.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::server::{ConnectionLimits, HEAD, IDLE, WRITE};
use crate::units::{ByteSize, HumanDuration};

/// Limits on the requests of a source.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct HttpLimits {
    /// Maximum size of the body of a request, of that body after its `Content-Encoding` is decoded,
    /// and of its records in their columns, including the name of their source. Default: 64 MiB.
    pub request: ByteSize,
    /// Maximum number of records of a request, including invalid lines. Default: 1,000,000.
    pub records: NonZeroU32,
    /// Maximum memory of all requests together, from their first byte to the last of their
    /// responses: bodies, decoded and cast records, and responses of `/v1/encode`. Default: 256
    /// MiB.
    pub in_flight: ByteSize,
    /// Maximum time for the body of a request to arrive. Default: 30s.
    pub timeout: HumanDuration,
    /// Maximum time that a response to `ack=committed` waits for the commit, and a response of
    /// `/v1/encode` for its records. Default: 5m.
    #[schemars(extend("x-former-name" = "wait"))]
    pub response_timeout: HumanDuration,
    /// Maximum time for a request to be written to the journal; beyond it, for example if the disk
    /// hangs, the response is 503. Default: 10s.
    pub journal: HumanDuration,
    /// Maximum number of requests that are processed concurrently, including those that wait for a
    /// commit. At most three quarters of the connections. Default: 256.
    pub requests: NonZeroU32,
    /// Maximum number of open connections. Beyond it, the connection that has waited for its client
    /// the longest is closed. Default: 1024, or the source's share of the file descriptors that the
    /// process may open, if that is less.
    pub connections: Option<NonZeroU32>,
    /// Maximum time for the head of a request to arrive. Default: "10s".
    pub head: HumanDuration,
    /// Maximum time between two requests of a connection. Default: "75s".
    pub idle: HumanDuration,
    /// A client that reads less than 64 KiB of a response within this time is disconnected.
    /// Default: "30s".
    pub write: HumanDuration,
    /// Maximum number of requests per second, over all clients. Default: unlimited.
    pub rate: Option<NonZeroU32>,
    /// Maximum size in the journal of acknowledged records that are not durable in every sink;
    /// beyond it, requests are refused with 429. Default: 1 GiB.
    pub backlog: ByteSize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        const REQUESTS: NonZeroU32 = NonZeroU32::new(256).expect("not zero");
        const RECORDS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");
        Self {
            request: ByteSize(64 << 20),
            records: RECORDS,
            in_flight: ByteSize(256 << 20),
            timeout: HumanDuration(Duration::from_secs(30)),
            response_timeout: HumanDuration(Duration::from_secs(300)),
            journal: HumanDuration(Duration::from_secs(10)),
            requests: REQUESTS,
            connections: None,
            head: HEAD,
            idle: IDLE,
            write: WRITE,
            rate: None,
            backlog: ByteSize(1 << 30),
        }
    }
}

impl HttpLimits {
    /// The limits on connections.
    pub(super) fn bounds(&self) -> ConnectionLimits {
        let Self {
            connections,
            head,
            idle,
            write,
            ..
        } = *self;
        ConnectionLimits {
            connections,
            head,
            idle,
            write,
        }
    }
}

/// Admits a number of requests per second on average, and as many in a burst after a pause of one
/// second.
pub(super) struct TokenBucket {
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl TokenBucket {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let per_second = f64::from(per_second.get());
        Self {
            per_second,
            state: Mutex::new((per_second, Instant::now())),
        }
    }

    /// Whether one more request is admitted now.
    pub(super) fn try_acquire(&self) -> bool {
        self.try_acquire_at(Instant::now())
    }

    fn try_acquire_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let left = (state.0
            + now.saturating_duration_since(state.1).as_secs_f64() * self.per_second)
            .min(self.per_second);
        *state = (if left >= 1.0 { left - 1.0 } else { left }, now);
        left >= 1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn token_bucket_admits_a_burst_up_to_its_rate() {
        let rate = TokenBucket::new(NonZeroU32::new(5).unwrap());
        let begun = Instant::now();
        let passed = |at: u64| {
            (0..20)
                .filter(|_| rate.try_acquire_at(begun + Duration::from_millis(at)))
                .count()
        };
        assert_eq!([passed(0), passed(400), passed(10_000)], [5, 2, 5]);
    }
}
