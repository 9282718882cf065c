//! Carries records that somebody waits for: ahead of those that sinks wait for, and into no sink.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::budget::InFlightBudget;
use super::generation::Generation;
use super::messages::{Destination, WorkItem};
use super::poison_records::PoisonRecordTracker;
use crate::plan::Footprint;
use crate::source::InferenceRequest;

/// The way to the workers for what is asked.
#[derive(Clone)]
pub(super) struct InferenceQueue {
    pub(super) requests: async_channel::Sender<WorkItem>,
    /// Of its own, so that what sinks wait for leaves room.
    pub(super) budget: Arc<InFlightBudget>,
    pub(super) footprint: Footprint,
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    /// Where a record runs alone, what is asked waits.
    pub(super) poison_records: Arc<PoisonRecordTracker>,
}

impl InferenceQueue {
    /// Has workers answer what a source asks, until it asks no more or the workers are gone.
    pub(super) fn serve(&self, source: usize, mut asks: mpsc::Receiver<InferenceRequest>) {
        let asking = self.clone();
        tokio::spawn(async move {
            while let Some(InferenceRequest { batch, reply }) = asks.recv().await {
                let Some(permit) = asking.budget.acquire(asking.footprint.of(&batch)).await else {
                    return;
                };
                let permit = permit.with_turn(asking.poison_records.turn().await);
                let generation = Arc::clone(&asking.generations.borrow());
                let destination = Destination::Caller(reply);
                let work = WorkItem {
                    destination,
                    source,
                    batch,
                    quarantined: None,
                    generation,
                    permit,
                };
                if asking.requests.send(work).await.is_err() {
                    return;
                }
            }
        });
    }
}
