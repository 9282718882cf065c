//! Calls to disks and stores that have not returned: which stage is in one, what it does, and since
//! when.
//!
//! A thread that may be stuck in a system call says so before the call. Others read that, so none
//! of them waits for a disk.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus::GaugeVec;

use crate::metrics::factory::MetricFactory;

/// A stage is blocked when a call to a disk of this machine takes longer than this.
const LOCAL: Duration = Duration::from_secs(5);
/// The same for a store, and for what takes long where there is much of it: a transfer over a slow
/// link, or a listing of a large folder, is not blocked.
const LONG: Duration = Duration::from_secs(60);

/// What a thread does in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockingOperation {
    /// It opens an input or an output, and reads what earlier runs did.
    Opens,
    /// It lists a folder, or looks at files.
    Lists,
    /// It reads records that have arrived.
    Reads,
    /// It reads the next records of an input.
    ReadsOn,
    /// It makes records durable before they go on their way.
    Journals,
    /// It notes which records are on their way.
    Notes,
    /// It writes or commits an output.
    Writes,
}

impl BlockingOperation {
    fn clause(self) -> &'static str {
        match self {
            Self::Opens => "it opens its inputs",
            Self::Lists => "it lists its folder",
            Self::Reads | Self::ReadsOn => "it reads its input",
            Self::Journals => "it writes its journal",
            Self::Notes => "it notes which records are on their way",
            Self::Writes => "it writes or commits its output",
        }
    }

    /// Whether it takes long where there is much to do.
    fn is_long(self) -> bool {
        matches!(self, Self::Opens | Self::Lists | Self::ReadsOn)
    }

    /// Whether records wait while it does so. Records that were dispatched are followed elsewhere.
    fn holds_records(self) -> bool {
        matches!(self, Self::Reads | Self::Journals | Self::Notes)
    }
}

/// A thread of a stage that may be stuck in a call.
#[derive(Debug)]
pub struct BlockingCaller {
    stage: Arc<str>,
    patience: Duration,
    call: Mutex<Option<PendingCall>>,
}

#[derive(Debug, Clone, Copy)]
struct PendingCall {
    operation: BlockingOperation,
    since: Instant,
    began: SystemTime,
}

impl BlockingCaller {
    fn call(&self) -> MutexGuard<'_, Option<PendingCall>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins, or the one before has returned and the next begins.
    pub fn begin(&self, operation: BlockingOperation) {
        *self.call() = Some(PendingCall {
            operation,
            since: Instant::now(),
            began: SystemTime::now(),
        });
    }

    /// The thread waits for something to do, or for others.
    pub fn end(&self) {
        *self.call() = None;
    }

    /// Does `work`, during which the thread is in a call; what it did before goes on then, anew.
    pub fn during<T>(&self, doing: BlockingOperation, work: impl FnOnce() -> T) -> T {
        let before = self.call().map(|call| call.operation);
        self.begin(doing);
        let done = work();
        match before {
            Some(doing) => self.begin(doing),
            None => self.end(),
        }
        done
    }

    /// Waits for others, during which the thread is in no call.
    pub fn outside<T>(&self, wait: impl FnOnce() -> T) -> T {
        let before = self.call().take().map(|call| call.operation);
        let done = wait();
        if let Some(doing) = before {
            self.begin(doing);
        }
        done
    }

    fn blocked(&self, now: Instant) -> Option<BlockedCall> {
        let PendingCall {
            operation,
            since,
            began,
        } = (*self.call())?;
        let age = now.saturating_duration_since(since);
        let patience = if operation.is_long() {
            LONG
        } else {
            self.patience
        };
        (age >= patience).then(|| BlockedCall {
            stage: Arc::clone(&self.stage),
            operation,
            age,
            began,
        })
    }
}

/// A stage whose call takes too long; printed, it is a sentence.
#[derive(Debug, Clone)]
pub struct BlockedCall {
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

/// All threads that may be stuck.
pub struct BlockingCalls {
    callers: Mutex<Vec<Arc<BlockingCaller>>>,
    seconds: GaugeVec,
}

impl BlockingCalls {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let seconds = maker.gauge_vec_f64(
            "stage_blocked_seconds",
            "For how long a stage has been in one call to its disk or store; 0 where it is in none",
            &["stage"],
        );
        Self {
            callers: Mutex::default(),
            seconds,
        }
    }

    fn callers(&self) -> MutexGuard<'_, Vec<Arc<BlockingCaller>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread of a stage begins; it is forgotten when it lets go of the result.
    pub fn caller(&self, stage: &str, is_local: bool) -> Arc<BlockingCaller> {
        let patience = if is_local { LOCAL } else { LONG };
        let caller = Arc::new(BlockingCaller {
            stage: Arc::from(stage),
            patience,
            call: Mutex::default(),
        });
        let mut callers = self.callers();
        callers.retain(|caller| Arc::strong_count(caller) > 1);
        callers.push(Arc::clone(&caller));
        caller
    }

    /// For how long the records have waited that a thread holds in a call; `None` where none waits.
    pub fn oldest_record(&self) -> Option<Duration> {
        let callers = self.callers();
        let held = |caller: &Arc<BlockingCaller>| {
            (*caller.call()).filter(|call| call.operation.holds_records())
        };
        callers
            .iter()
            .filter_map(held)
            .map(|call| call.since.elapsed())
            .max()
    }

    /// The stages that are blocked.
    pub fn blocked_stages(&self) -> Vec<BlockedCall> {
        let now = Instant::now();
        self.callers()
            .iter()
            .filter_map(|caller| caller.blocked(now))
            .collect()
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        let callers = self.callers();
        for caller in callers.iter() {
            let ages = callers.iter().filter(|other| other.stage == caller.stage);
            let ages = ages.filter_map(|other| (*other.call()).map(|call| call.since.elapsed()));
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
    fn call_beyond_the_patience_names_its_stage() {
        let calls = calls();
        let caller = calls.caller("out", true);
        let later = || Instant::now() + LOCAL;
        assert!(caller.blocked(later()).is_none());
        caller.begin(BlockingOperation::Writes);
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
    fn store_has_more_patience_than_a_disk() {
        let calls = calls();
        let caller = calls.caller("out", false);
        caller.begin(BlockingOperation::Writes);
        assert!(caller.blocked(Instant::now() + LOCAL).is_none());
        assert!(caller.blocked(Instant::now() + LONG).is_some());
    }

    #[test]
    fn waiting_for_others_is_no_call() {
        let calls = calls();
        let caller = calls.caller("in", true);
        caller.begin(BlockingOperation::Reads);
        assert!(calls.oldest_record().is_some());
        caller.outside(|| assert!(calls.oldest_record().is_none()));
        assert!(calls.oldest_record().is_some());
        caller.during(BlockingOperation::Lists, || {
            assert!(calls.oldest_record().is_none())
        });
        assert!(calls.oldest_record().is_some());
    }

    #[test]
    fn thread_that_ended_is_forgotten() {
        let calls = calls();
        drop(calls.caller("a", true));
        let _b = calls.caller("b", true);
        assert_eq!(calls.callers().len(), 1);
    }
}
