//! What the parts of a running pipeline say to each other, apart from those who say it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};

use super::budget::InFlightPermit;
use super::generation::Generation;
use super::poison_records::QuarantineReason;
use crate::batch::{Batch, Reject, SourceBatch};
use crate::error::StageError;
use crate::source::InferenceResponse;

/// From the dispatcher to a worker: carry this through the graph.
pub(super) struct WorkItem {
    /// What it is carried for.
    pub(super) destination: Destination,
    /// The place of its source in the plan.
    pub(super) source: usize,
    pub(super) batch: SourceBatch,
    /// What its records did to the process before: they are refused, and not carried.
    pub(super) quarantined: Option<QuarantineReason>,
    /// The graph that it goes through.
    pub(super) generation: Arc<Generation>,
    pub(super) permit: InFlightPermit,
}

/// What a batch is carried for.
pub(super) enum Destination {
    /// For the sinks; the number is its place in every output.
    Sinks(u64),
    /// For somebody who waits for it, and for no sink.
    Caller(oneshot::Sender<Result<InferenceResponse, String>>),
}

/// From workers and the dispatcher to the reorder buffer.
pub(super) enum WorkerMessage {
    /// A batch has been through the graph.
    Batch {
        number: u64,
        result: Box<ProcessedBatch>,
        generation: Arc<Generation>,
        permit: InFlightPermit,
    },
    /// A batch could not be carried: no later one may reach a sink.
    Failed { number: u64 },
    /// So many numbers were given out; there will be no more.
    End { numbers: u64 },
}

/// What became of a batch.
pub(super) struct ProcessedBatch {
    /// For each sink of the plan, in order, what it is to keep; the rejects come last, where they
    /// are kept.
    pub(super) outputs: Vec<Batch>,
    /// What was refused, and by which stage.
    pub(super) rejected: Vec<(Arc<str>, Reject)>,
}

/// From the reorder buffer to a sink.
pub(super) enum SinkMessage {
    /// The next batch. The permit goes back when every sink has let go of it.
    Batch {
        number: u64,
        batch: Batch,
        generation: Arc<Generation>,
        permit: Arc<InFlightPermit>,
    },
    /// Time goes by: commit what has waited for too long.
    Tick,
    /// There will be no more: commit.
    End,
}

/// The stage that failed, and why.
type Failure = (Arc<str>, StageError);

/// Why a run stops before its input ends; shared by all who may find out.
#[derive(Clone)]
pub(super) struct FailureSignal {
    reason: Arc<Mutex<Option<Failure>>>,
    raised: Arc<watch::Sender<bool>>,
}

impl FailureSignal {
    pub(super) fn new() -> Self {
        Self {
            reason: Arc::default(),
            raised: Arc::new(watch::Sender::new(false)),
        }
    }

    /// A stage failed. The first failure is the one that is told.
    pub(super) fn fail(&self, stage: &Arc<str>, error: StageError) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_none() {
            *reason = Some((Arc::clone(stage), error));
        }
        self.raised.send_replace(true);
    }

    /// Waits until a stage has failed.
    pub(super) async fn failed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.raised.subscribe().wait_for(|&raised| raised).await;
    }

    /// What failed first.
    pub(super) fn take(&self) -> Option<(Arc<str>, StageError)> {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
