//! The waiting of sinks for an unreachable store: a run without an end waits until the store
//! responds or the run is stopped.

use parking_lot::Mutex;
use prometheus::IntGauge;

pub(super) use waiting::{UNREACHABLE, retry_while_unavailable};

/// The gauge of waiting sinks; `None` if sinks do not wait.
static WAITING: Mutex<Option<IntGauge>> = Mutex::new(None);

/// Makes the sinks of this process wait for unreachable stores; `waiting` counts them.
pub(crate) fn begin_to_wait(waiting: &IntGauge) {
    *WAITING.lock() = Some(waiting.clone());
}

/// Makes the sinks of this process fail if a store is unreachable, and wakes the waiting ones.
pub(crate) fn stop_waiting() {
    *WAITING.lock() = None;
    waiting::CHANGED.notify_all();
}

mod waiting {
    use std::fmt;
    use std::io::{self, ErrorKind};
    use std::time::Duration;

    use parking_lot::Condvar;

    use super::WAITING;

    /// The error kind after which the same request may succeed later.
    pub(in super::super) const UNREACHABLE: ErrorKind = ErrorKind::NotConnected;

    /// Notified by [`super::stop_waiting`].
    pub(super) static CHANGED: Condvar = Condvar::new();

    /// The first and the maximum pause between requests, each of which the client has already
    /// repeated. A pause is twice the previous one.
    const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

    /// Makes a request for `location`, and repeats it while the store is unreachable and sinks wait
    /// for stores.
    ///
    /// # Errors
    /// Those of the request.
    pub(in super::super) fn retry_while_unavailable<T>(
        location: &dyn fmt::Display,
        mut request: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut pause, longest) = PAUSES;
        let mut counted = None;
        let outcome = loop {
            let error = match request() {
                Err(error) if error.kind() == UNREACHABLE => error,
                done => break done,
            };
            let mut waiting = WAITING.lock();
            let Some(gauge) = waiting.as_ref() else {
                break Err(error);
            };
            counted.get_or_insert_with(|| {
                gauge.inc();
                gauge.clone()
            });
            tracing::warn!(
                %location, %error, retry_in_s = pause.as_secs(),
                "the store is unreachable; the request will be repeated"
            );
            CHANGED.wait_while_for(&mut waiting, |waiting| waiting.is_some(), pause);
            if waiting.is_none() {
                break Err(error);
            }
            pause = (pause * 2).min(longest);
        };
        if let Some(gauge) = counted {
            gauge.dec();
            if outcome.is_ok() {
                tracing::info!(%location, "the store is reachable again");
            }
        }
        outcome
    }

    #[cfg(test)]
    mod tests {
        use super::super::{begin_to_wait, stop_waiting};
        use super::*;

        #[test]
        fn request_is_repeated_only_while_sinks_wait() {
            let unreachable = || io::Error::new(UNREACHABLE, "no response");
            let mut requests = 0;
            let mut refused = || {
                requests += 1;
                Err::<(), _>(unreachable())
            };
            assert!(retry_while_unavailable(&"s3://b", &mut refused).is_err());
            assert_eq!(requests, 1);

            let gauge = prometheus::IntGauge::new("waiting", "sinks").expect("valid metric name");
            begin_to_wait(&gauge);
            let mut answers = vec![Ok(gauge.get() + 5), Err(unreachable())];
            let answered = retry_while_unavailable(&"s3://b", || answers.pop().unwrap_or(Ok(0)));
            assert_eq!((answered.ok(), gauge.get()), (Some(5), 0));
            assert!(
                retry_while_unavailable(&"s3://b", || Err::<(), _>(io::Error::other("refused")))
                    .is_err()
            );
            stop_waiting();
            assert!(retry_while_unavailable(&"s3://b", || Err::<(), _>(unreachable())).is_err());
        }
    }
}
