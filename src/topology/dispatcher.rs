//! Takes batches as they arrive from the sources, cuts them where outputs differ in what they have,
//! numbers them, waits for room, and hands them to the workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::ack_tracker::AckTracker;
use super::budget::InFlightBudget;
use super::generation::Generation;
use super::inference::InferenceQueue;
use super::messages::{Destination, FailureSignal, WorkItem, WorkerMessage};
use super::poison_records::{Isolation, PoisonRecordTracker};
use super::source_readers::{OpenedSource, SourceEvent, SourceReaders, SourceSlot};
use super::stats::RunStats;
use crate::batch::{SourceBatch, rejected_records};
use crate::coverage::ResumeState;
use crate::error::{StageError, UnreadInputs};
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::plan::{Footprint, RejectLimits};
use crate::units::ByteSize;

/// Why reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DispatchEnd {
    /// Every source has given all that it has.
    Exhausted,
    /// As many records as were asked for have been read.
    Limited,
    /// Somebody asked to stop.
    Asked,
    /// More records were rejected than the pipeline allows, and which limit that was.
    Rejected(String),
    /// A stage failed.
    Failed,
}

impl DispatchEnd {
    /// Logs it, where no error does. `limit`: records that were asked for.
    pub(super) fn log(&self, limit: Option<u64>) {
        match self {
            Self::Exhausted => tracing::info!("the run ends: all sources are at their end"),
            Self::Limited => {
                tracing::info!("the run ends: --limit {} is reached", limit.unwrap_or(0))
            }
            Self::Asked => tracing::info!("the run ends: it was asked to stop"),
            Self::Rejected(why) => tracing::error!("the run ends: {why}"),
            Self::Failed => {}
        }
    }
}

/// Adds how long `work` takes to a counter of nanoseconds.
async fn timed<T>(counter: &AtomicU64, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    counter.fetch_add(
        u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
        Relaxed,
    );
    done
}

pub(super) struct Dispatcher {
    pub(super) resume: ResumeState,
    pub(super) footprint: Footprint,
    pub(super) budget: InFlightBudget,
    pub(super) work: async_channel::Sender<WorkItem>,
    pub(super) done: async_channel::Sender<WorkerMessage>,
    pub(super) stats: Arc<RunStats>,
    pub(super) poison_records: Arc<PoisonRecordTracker>,
    pub(super) acks: Arc<AckTracker>,
    /// The models of the next batch.
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    pub(super) stop: FailureSignal,
    /// Carries what sources ask for at once.
    pub(super) inference: InferenceQueue,
    /// Resolve when sources have told all that they have to tell.
    pub(super) closing: Vec<oneshot::Receiver<()>>,
    /// Says when it is in a call that may not return.
    pub(super) caller: Arc<BlockingCaller>,
    /// How many records may be rejected.
    pub(super) reject_limits: RejectLimits,
    /// Records that may still be read; `None`: all.
    pub(super) left: Option<u64>,
}

impl Dispatcher {
    /// Reads until the sources end, the limit is reached, `shutdown` resolves or a stage fails. The
    /// end is said to the reorder buffer in every case; only then the workers' channel closes.
    pub(super) async fn run(
        mut self,
        sources: Vec<SourceSlot>,
        shutdown: impl Future<Output = ()>,
    ) -> (DispatchEnd, Vec<oneshot::Receiver<()>>) {
        let mut numbers = 0;
        let stop = self.stop.clone();
        let ended = tokio::select! {
            biased;
            () = stop.failed() => DispatchEnd::Failed,
            () = shutdown => DispatchEnd::Asked,
            ended = self.read_all(sources, &mut numbers) => ended,
        };
        // The reorder buffer outlives the dispatcher; if it is gone all the same, the run has
        // failed already.
        let _ = self.done.send(WorkerMessage::End { numbers }).await;
        (ended, self.closing)
    }

    async fn read_all(&mut self, sources: Vec<SourceSlot>, numbers: &mut u64) -> DispatchEnd {
        let (mut arrivals, stats) = (
            SourceReaders::read(sources, &self.resume, self.stats.calls()),
            Arc::clone(&self.stats),
        );
        let mut incomplete: Option<(Arc<str>, UnreadInputs)> = None;
        while let Some(arrival) = timed(&stats.source_wait_nanos, arrivals.next()).await {
            match arrival {
                SourceEvent::Opened { stage, opened } => {
                    let OpenedSource {
                        total,
                        acks,
                        inference_requests,
                        shutdown_complete,
                    } = opened;
                    let opened = &self.stats.stages[stage];
                    let passed_over = opened.skipped_files();
                    if !passed_over.is_empty() {
                        tracing::info!("{} passes over {passed_over}", opened.name);
                    }
                    *opened.total.lock().unwrap_or_else(PoisonError::into_inner) = total;
                    if let Some(acks) = acks {
                        self.acks.subscribe(stage, acks);
                    }
                    if let Some(inference_requests) = inference_requests {
                        self.inference.serve(stage, inference_requests);
                    }
                    self.closing.extend(shutdown_complete);
                }
                SourceEvent::Batch { stage, batch } => {
                    if let Some(ended) = self.dispatch(stage, batch, numbers).await {
                        return ended;
                    }
                }
                SourceEvent::Incomplete {
                    stage,
                    name,
                    unread,
                } => {
                    self.stats.left_unread(stage, unread.count());
                    match &mut incomplete {
                        Some((_, all)) => all.append(unread),
                        None => incomplete = Some((name, unread)),
                    }
                }
                SourceEvent::Failed { name, error } => {
                    self.stop.fail(&name, error);
                    return DispatchEnd::Failed;
                }
            }
        }
        match incomplete {
            None => DispatchEnd::Exhausted,
            Some((name, unread)) => {
                self.stop.fail(&name, StageError::Unread(unread));
                DispatchEnd::Failed
            }
        }
    }

    /// Sends what is new in a batch on its way; says why there should be no more, if so.
    async fn dispatch(
        &mut self,
        source: usize,
        batch: SourceBatch,
        numbers: &mut u64,
    ) -> Option<DispatchEnd> {
        for mut part in self.resume.uncommitted_ranges(&batch.batch.provenance) {
            if let Some(left) = &mut self.left {
                part.end = part.end.min(part.start + *left);
                *left -= part.end - part.start;
                if part.is_empty() {
                    return Some(DispatchEnd::Limited);
                }
            }
            // Rows without a record do nothing to the process, and one reject may stand for very
            // many.
            let parts = match batch.batch.row_ordinals.is_empty() {
                true => vec![(part, Isolation::None)],
                false => self.poison_records.parts(&batch.batch.provenance, part),
            };
            for (part, care) in parts {
                let whole = part == (0..batch.batch.provenance.len());
                let batch = if whole {
                    batch.clone()
                } else {
                    batch.slice(part)
                };
                if let Some(ended) = self.send(source, batch, care, numbers).await {
                    return Some(ended);
                }
            }
        }
        (self.left == Some(0)).then_some(DispatchEnd::Limited)
    }

    async fn send(
        &mut self,
        source: usize,
        batch: SourceBatch,
        care: Isolation,
        numbers: &mut u64,
    ) -> Option<DispatchEnd> {
        let room = self.budget.acquire(self.footprint.of(&batch));
        let permit = timed(&self.stats.backpressure_nanos, room).await?;
        let provenance = Arc::clone(&batch.batch.provenance);
        let bytes = batch.batch.records.get_array_memory_size() as u64;
        let records = batch.batch.records.num_rows() as u64 + rejected_records(&batch.rejects);
        let quarantined = match care {
            Isolation::Quarantined(guilt) => Some(guilt),
            Isolation::None | Isolation::Single => None,
        };
        let given = if quarantined.is_some() {
            batch.batch.records.slice(0, 0)
        } else {
            batch.batch.records.clone()
        };
        self.stats
            .batch(source, (records, bytes), Some(&given), Duration::ZERO);
        self.stats.rejected(source, &batch.rejects);
        self.acks.begin(source, &provenance);
        let whole = if care == Isolation::Single {
            self.poison_records.wait_idle(*numbers).await;
            let whole = self.poison_records.whole().await;
            if let Some((split, row)) = provenance.row(0) {
                let bytes = ByteSize(self.footprint.of(&batch));
                tracing::info!(
                    "row {row} of {} runs alone; it may take {bytes} of memory",
                    split.name()
                );
            }
            self.caller.during(BlockingOperation::Notes, || {
                self.poison_records.alone(Some(&provenance))
            });
            Some(whole)
        } else {
            None
        };
        self.caller.during(BlockingOperation::Notes, || {
            self.poison_records.begin(*numbers, &provenance)
        });
        let generation = Arc::clone(&self.generations.borrow());
        let work = WorkItem {
            destination: Destination::Sinks(*numbers),
            source,
            batch,
            quarantined,
            generation,
            permit,
        };
        if self.work.send(work).await.is_err() {
            return Some(DispatchEnd::Failed);
        }
        *numbers += 1;
        if care == Isolation::Single {
            self.poison_records.wait_idle(*numbers).await;
            self.poison_records.alone(None);
            drop(whole);
        }
        self.stats
            .exceeded(&self.reject_limits, self.stats.expected_total())
            .map(DispatchEnd::Rejected)
    }
}
