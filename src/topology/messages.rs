//! The messages between dispatcher, workers, reorder stage and sinks, and the failure signal.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::budget::InFlightPermit;
use super::generation::Generation;
use crate::batch::reject::Reject;
use crate::batch::{Batch, SourceBatch};
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::source::InferenceResponse;
use crate::topology::poison_records::isolation::QuarantineReason;

/// A batch that the dispatcher or the inference queue sends to a worker.
pub(crate) struct WorkItem {
    /// The receiver of the result.
    pub(super) destination: Destination,
    /// The index of its source in the plan.
    pub(super) source: usize,
    pub(super) batch: SourceBatch,
    /// Set if its records crashed the process before: they are rejected without being processed.
    pub(super) quarantined: Option<QuarantineReason>,
    /// The generation that processes the batch.
    pub(super) generation: Arc<Generation>,
    pub(super) permit: InFlightPermit,
}

/// The receiver of a processed batch.
pub(super) enum Destination {
    /// The sinks. The number is the position of the batch in every output.
    Sinks(u64),
    /// The caller of an inference request. No sink receives the batch.
    Caller(oneshot::Sender<Result<InferenceResponse, String>>),
}

/// A message from the workers and the dispatcher to the reorder stage.
pub(super) enum WorkerMessage {
    /// A batch has been processed.
    Batch {
        number: u64,
        result: Box<ProcessedBatch>,
        generation: Arc<Generation>,
        permit: InFlightPermit,
    },
    /// A batch failed. No later batch may reach a sink.
    Failed { number: u64 },
    /// The input has ended after this number of batches.
    End { numbers: u64 },
}

/// The result of a batch.
pub(super) struct ProcessedBatch {
    /// The records for each sink of the plan, in order. If rejects are stored, they are the last
    /// entry.
    pub(super) outputs: Vec<Batch>,
    /// The rejects, each with the name of its stage.
    pub(super) rejected: Vec<(Arc<str>, Reject)>,
}

/// A message from the reorder stage to a sink.
pub(super) enum SinkMessage {
    /// The next batch. The permit is released when every sink has dropped it.
    Batch {
        number: u64,
        batch: Batch,
        generation: Arc<Generation>,
        permit: Arc<InFlightPermit>,
    },
    /// Commit if the oldest uncommitted record exceeds the maximum age.
    Tick,
    /// The input has ended: commit.
    End,
}

/// The failure that ends a run. All threads and tasks of the topology share it.
#[derive(Clone)]
pub(super) struct FailureSignal {
    reason: Arc<Mutex<Option<StageFailure>>>,
    raised: Arc<watch::Sender<bool>>,
}

impl FailureSignal {
    pub(super) fn new() -> Self {
        Self {
            reason: Arc::default(),
            raised: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Records the failure of a stage. Only the first failure is kept and reported.
    pub(super) fn fail(&self, stage: &Arc<str>, error: StageError) {
        let mut reason = self.reason.lock();
        if reason.is_none() {
            *reason = Some(StageFailure::new(Arc::clone(stage), error));
        }
        self.raised.send_replace(true);
    }

    /// Waits until a stage has failed.
    pub(super) async fn failed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.raised.subscribe().wait_for(|&raised| raised).await;
    }

    /// Removes and returns the first failure.
    pub(super) fn take(&self) -> Option<StageFailure> {
        self.reason.lock().take()
    }
}
