//! How long sinks wait for a store that is out of reach: in a run without an end, until it answers
//! or the run is to stop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

#[cfg(feature = "object-store")]
pub(super) use waiting::{UNREACHABLE, persist};

/// Set while sinks wait; counts those that do.
static WAITING: Mutex<Option<IntGauge>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<IntGauge>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on sinks of this process wait for stores; `waiting` counts them.
pub fn begin_to_wait(waiting: &IntGauge) {
    *lock() = Some(waiting.clone());
}

/// From now on they do not: what a store does not answer is an error.
pub fn stop_waiting() {
    *lock() = None;
    #[cfg(feature = "object-store")]
    waiting::CHANGED.notify_all();
}

#[cfg(feature = "object-store")]
mod waiting {
    use std::fmt;
    use std::io::{self, ErrorKind};
    use std::sync::{Condvar, PoisonError};
    use std::time::Duration;

    use super::lock;

    /// The kind of an error after which the same request may succeed later.
    pub(in super::super) const UNREACHABLE: ErrorKind = ErrorKind::NotConnected;

    /// Notified when sinks no longer wait.
    pub(super) static CHANGED: Condvar = Condvar::new();

    /// Pauses between requests, which the client has repeated already: from the first to the
    /// longest, each twice the last.
    const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

    /// Makes a request about `place`, and makes it again while the store is out of reach and sinks
    /// wait for it.
    ///
    /// # Errors
    /// Those of the request.
    pub(in super::super) fn persist<T>(
        place: &dyn fmt::Display,
        mut request: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut pause, longest) = PAUSES;
        let mut counted = None;
        let outcome = loop {
            let error = match request() {
                Err(error) if error.kind() == UNREACHABLE => error,
                done => break done,
            };
            let waiting = lock();
            let Some(gauge) = waiting.as_ref() else {
                break Err(error);
            };
            counted.get_or_insert_with(|| {
                gauge.inc();
                gauge.clone()
            });
            tracing::warn!("{place}: {error}; tried again in {} s", pause.as_secs());
            let waited = CHANGED.wait_timeout_while(waiting, pause, |waiting| waiting.is_some());
            if waited.unwrap_or_else(PoisonError::into_inner).0.is_none() {
                break Err(error);
            }
            pause = (pause * 2).min(longest);
        };
        if let Some(gauge) = counted {
            gauge.dec();
            if outcome.is_ok() {
                tracing::info!("{place}: the store answers again");
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
            let unreachable = || io::Error::new(UNREACHABLE, "silence");
            let mut asked = 0;
            let mut refused = || {
                asked += 1;
                Err::<(), _>(unreachable())
            };
            assert!(persist(&"s3://b", &mut refused).is_err());
            assert_eq!(asked, 1);

            let gauge = prometheus::IntGauge::new("waiting", "sinks").expect("a gauge");
            begin_to_wait(&gauge);
            let mut answers = vec![Ok(gauge.get() + 5), Err(unreachable())];
            let answered = persist(&"s3://b", || answers.pop().unwrap_or(Ok(0)));
            assert_eq!((answered.ok(), gauge.get()), (Some(5), 0));
            assert!(persist(&"s3://b", || Err::<(), _>(io::Error::other("refused"))).is_err());
            stop_waiting();
            assert!(persist(&"s3://b", || Err::<(), _>(unreachable())).is_err());
        }
    }
}
