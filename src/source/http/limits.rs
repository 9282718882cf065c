//! What clients may ask of a source: sizes, times, rates.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::server::{ConnectionLimits, HEAD, IDLE, WRITE};
use crate::units::{ByteSize, HumanDuration};

/// Bounds on what clients may ask.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct HttpLimits {
    /// Bytes of a request's body, of that body without its `Content-Encoding`, and of its records
    /// in their columns, with the name of their source. Default: 64 MiB.
    pub request: ByteSize,
    /// Records of a request, and lines of it that are none. Default: 1,000,000.
    pub records: NonZeroU32,
    /// Bytes that all requests take together, from their first byte to the last of their answers:
    /// bodies, what is decoded and cast, and answers of `/v1/encode`. Default: 256 MiB.
    pub in_flight: ByteSize,
    /// How long the body of a request may take to arrive.
    pub timeout: HumanDuration,
    /// How long an answer to `ack=committed` waits for the commit, and one of `/v1/encode` for its
    /// records. Default: 5m.
    pub response_timeout: HumanDuration,
    /// How long a request waits to be written to the journal; then it is answered with 503, as when
    /// the disk hangs. Default: 10s.
    pub journal: HumanDuration,
    /// Requests that are answered at the same time; those that wait for a commit count, too. At
    /// most three quarters of the connections.
    pub requests: NonZeroU32,
    /// Connections that are open at the same time. Beyond them, the connection that has waited for
    /// its client the longest is closed. Default: 1024, or the source's share of the file
    /// descriptors that the process may open, if that is less.
    pub connections: Option<NonZeroU32>,
    /// How long the head of a request may take to arrive. Default: "10s".
    pub head: HumanDuration,
    /// How long a connection may stay open between two requests. Default: "75s".
    pub idle: HumanDuration,
    /// A client that takes less than 64 KiB of an answer within this time is cut off. Default:
    /// "30s".
    pub write: HumanDuration,
    /// Requests per second, over all clients. Default: any number.
    pub rate: Option<NonZeroU32>,
    /// Bytes of records that are acknowledged and not durable in every sink.
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
    /// The bounds on connections among them.
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

/// Lets so many requests through per second, and as many at once after a while without any.
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

    /// Whether one more may pass now.
    pub(super) fn try_acquire(&self) -> bool {
        self.try_acquire_at(Instant::now())
    }

    fn try_acquire_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_burst_is_let_through_up_to_the_rate() {
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
