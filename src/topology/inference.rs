//! The queue of inference requests, whose records workers process before batches for sinks and send
//! to no sink.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::budget::InFlightBudget;
use super::generation::Generation;
use super::messages::{Destination, WorkItem};
use super::poison_records::PoisonRecordTracker;
use crate::plan::Footprint;
use crate::source::InferenceRequest;

/// Sends inference requests to the workers.
#[derive(Clone)]
pub(super) struct InferenceQueue {
    pub(super) requests: async_channel::Sender<WorkItem>,
    /// A budget separate from that of the sinks' batches, so that these cannot block requests.
    pub(super) budget: Arc<InFlightBudget>,
    pub(super) footprint: Footprint,
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    /// Requests wait while a record is processed alone.
    pub(super) poison_records: Arc<PoisonRecordTracker>,
}

impl InferenceQueue {
    /// Spawns a task that sends the requests of a source to the workers until the source closes its
    /// channel or the workers have ended.
    pub(super) fn serve(&self, source: usize, mut inbox: mpsc::Receiver<InferenceRequest>) {
        let queue = self.clone();
        tokio::spawn(async move {
            while let Some(InferenceRequest { batch, reply }) = inbox.recv().await {
                let Some(permit) = queue.budget.acquire(queue.footprint.of(&batch)).await else {
                    return;
                };
                let permit = permit.with_shared_access(queue.poison_records.shared_access().await);
                let generation = Arc::clone(&queue.generations.borrow());
                let destination = Destination::Caller(reply);
                let work = WorkItem {
                    destination,
                    source,
                    batch,
                    quarantined: None,
                    generation,
                    permit,
                };
                if queue.requests.send(work).await.is_err() {
                    return;
                }
            }
        });
    }
}
