//! Calls to disks and object stores that have not returned: the stage, the operation and its start.
//!
//! A thread that may block in a system call records the operation before the call. Other threads
//! only read that record, so none of them waits for a disk.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use prometheus::GaugeVec;

use crate::metrics::factory::MetricFactory;

/// Duration from which on a call to a local disk counts as blocked.
const LOCAL: Duration = Duration::from_secs(5);
/// The same for an object store, and for operations whose duration grows with their size: a
/// transfer over a slow link, or the listing of a large folder, is not blocked.
const LONG: Duration = Duration::from_secs(60);

/// The operation of a thread during a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockingOperation {
    /// Opening an input or an output, and reading the state of earlier runs.
    Open,
    /// Listing a folder, or reading the metadata of files.
    List,
    /// Reading records that have arrived.
    Read,
    /// Reading the next records of an input.
    ReadNext,
    /// Making records durable before they are passed on.
    WriteJournal,
    /// Recording which records are in flight.
    RecordInFlight,
    /// Writing or committing an output.
    Write,
}

impl BlockingOperation {
    fn clause(self) -> &'static str {
        match self {
            Self::Open => "it opens its inputs",
            Self::List => "it lists its folder",
            Self::Read | Self::ReadNext => "it reads its input",
            Self::WriteJournal => "it writes its journal",
            Self::RecordInFlight => "it records which records are in flight",
            Self::Write => "it writes or commits its output",
        }
    }

    /// Whether its duration grows with the amount of data.
    fn is_long(self) -> bool {
        matches!(self, Self::Open | Self::List | Self::ReadNext)
    }

    /// Whether records wait during the operation. Records that were dispatched are tracked
    /// elsewhere.
    fn holds_records(self) -> bool {
        matches!(self, Self::Read | Self::WriteJournal | Self::RecordInFlight)
    }
}

/// A thread of a stage that may block in a call.
#[derive(Debug)]
pub struct BlockingCaller {
    stage: Arc<str>,
    limit: Duration,
    call: Mutex<Option<PendingCall>>,
}

#[derive(Debug, Clone, Copy)]
struct PendingCall {
    operation: BlockingOperation,
    since: Instant,
    began: SystemTime,
}

impl BlockingCaller {
    /// Records the start of a call, or of the next call after the previous one has returned.
    pub fn begin(&self, operation: BlockingOperation) {
        *self.call.lock() = Some(PendingCall {
            operation,
            since: Instant::now(),
            began: SystemTime::now(),
        });
    }

    /// Records that the thread waits for work or for other threads.
    pub fn end(&self) {
        *self.call.lock() = None;
    }

    /// Runs `work` as a call of the kind `operation`. Afterwards the previous call, if any, starts
    /// again.
    pub(crate) fn during<T>(&self, operation: BlockingOperation, work: impl FnOnce() -> T) -> T {
        let before = self.call.lock().map(|call| call.operation);
        self.begin(operation);
        let result = work();
        match before {
            Some(previous) => self.begin(previous),
            None => self.end(),
        }
        result
    }

    /// Waits for other threads, during which the thread is not in a call.
    pub fn outside<T>(&self, wait: impl FnOnce() -> T) -> T {
        let before = self.call.lock().take().map(|call| call.operation);
        let result = wait();
        if let Some(previous) = before {
            self.begin(previous);
        }
        result
    }

    fn blocked(&self, now: Instant) -> Option<BlockedCall> {
        let PendingCall {
            operation,
            since,
            began,
        } = (*self.call.lock())?;
        let age = now.saturating_duration_since(since);
        let limit = if operation.is_long() {
            LONG
        } else {
            self.limit
        };
        (age >= limit).then(|| BlockedCall {
            stage: Arc::clone(&self.stage),
            operation,
            age,
            began,
        })
    }
}

/// A stage whose call takes too long; its `Display` is a sentence.
#[derive(Debug, Clone)]
pub(crate) struct BlockedCall {
    /// The stage.
    pub stage: Arc<str>,
    operation: BlockingOperation,
    age: Duration,
    began: SystemTime,
}

impl fmt::Display for BlockedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, began) = (
            self.age.as_secs(),
            humantime::format_rfc3339_seconds(self.began),
        );
        write!(
            f,
            "{}: blocked for {seconds} s, since {began}, while {}",
            self.stage,
            self.operation.clause()
        )
    }
}

/// All threads that may block in a call.
pub struct BlockingCalls {
    callers: Mutex<Vec<Arc<BlockingCaller>>>,
    seconds: GaugeVec,
}

impl BlockingCalls {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let seconds = maker.gauge_vec_f64(
            "stage_blocked_seconds",
            "Duration of the current call of a stage to its disk or store, in seconds; 0 outside \
             of a call",
            &["stage"],
        );
        Self {
            callers: Mutex::default(),
            seconds,
        }
    }

    /// Registers a thread of a stage; it is removed once the result is dropped.
    pub fn caller(&self, stage: &str, is_local: bool) -> Arc<BlockingCaller> {
        let limit = if is_local { LOCAL } else { LONG };
        let caller = Arc::new(BlockingCaller {
            stage: Arc::from(stage),
            limit,
            call: Mutex::default(),
        });
        let mut callers = self.callers.lock();
        callers.retain(|registered| Arc::strong_count(registered) > 1);
        callers.push(Arc::clone(&caller));
        caller
    }

    /// Age of the oldest call in which a thread holds records; `None` if no thread holds any.
    pub(crate) fn oldest_record(&self) -> Option<Duration> {
        let callers = self.callers.lock();
        let held = |caller: &Arc<BlockingCaller>| {
            (*caller.call.lock()).filter(|call| call.operation.holds_records())
        };
        callers
            .iter()
            .filter_map(held)
            .map(|call| call.since.elapsed())
            .max()
    }

    /// The blocked stages.
    pub(crate) fn blocked_stages(&self) -> Vec<BlockedCall> {
        let now = Instant::now();
        self.callers
            .lock()
            .iter()
            .filter_map(|caller| caller.blocked(now))
            .collect()
    }

    /// Sets the gauge of each stage to the age of its oldest call.
    pub(crate) fn measure(&self) {
        let callers = self.callers.lock();
        for caller in callers.iter() {
            let ages = callers.iter().filter(|other| other.stage == caller.stage);
            let ages =
                ages.filter_map(|other| (*other.call.lock()).map(|call| call.since.elapsed()));
            let age = ages.max().unwrap_or(Duration::ZERO);
            self.seconds
                .with_label_values(&[&caller.stage])
                .set(age.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn calls() -> BlockingCalls {
        BlockingCalls::new(&MetricFactory::new())
    }

    #[test]
    fn call_longer_than_the_limit_reports_its_stage() {
        let calls = calls();
        let caller = calls.caller("out", true);
        let later = || Instant::now() + LOCAL;
        assert!(caller.blocked(later()).is_none());
        caller.begin(BlockingOperation::Write);
        assert!(calls.blocked_stages().is_empty());
        let text = caller.blocked(later()).unwrap().to_string();
        assert!(text.starts_with("out: blocked for 5 s, since "), "{text}");
        assert!(
            text.ends_with("while it writes or commits its output"),
            "{text}"
        );
        caller.end();
        assert!(caller.blocked(later()).is_none());
    }

    #[test]
    fn call_to_a_store_has_a_higher_limit_than_to_a_disk() {
        let calls = calls();
        let caller = calls.caller("out", false);
        caller.begin(BlockingOperation::Write);
        assert!(caller.blocked(Instant::now() + LOCAL).is_none());
        assert!(caller.blocked(Instant::now() + LONG).is_some());
    }

    #[test]
    fn waiting_for_other_threads_is_not_a_call() {
        let calls = calls();
        let caller = calls.caller("in", true);
        caller.begin(BlockingOperation::Read);
        assert!(calls.oldest_record().is_some());
        caller.outside(|| assert!(calls.oldest_record().is_none()));
        assert!(calls.oldest_record().is_some());
        caller.during(BlockingOperation::List, || {
            assert!(calls.oldest_record().is_none())
        });
        assert!(calls.oldest_record().is_some());
    }

    #[test]
    fn ended_thread_is_removed() {
        let calls = calls();
        drop(calls.caller("a", true));
        let _b = calls.caller("b", true);
        assert_eq!(calls.callers.lock().len(), 1);
    }
}
