//! The dispatcher, which reads batches from the sources, cuts them at the edges of the sinks'
//! coverage, numbers them, acquires their permits, and sends them to the workers. While it waits
//! for a permit, it reads no further batch, which is the backpressure on the sources.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::ack_tracker::AckTracker;
use super::budget::InFlightBudget;
use super::generation::Generation;
use super::inference::InferenceQueue;
use super::messages::{Destination, FailureSignal, WorkItem, WorkerMessage};
use super::poison_records::PoisonRecordTracker;
use super::source_readers::{OpenedSource, SourceEvent, SourceReaders, SourceSlot};
use super::telemetry::stats::RunStats;
use crate::batch::SourceBatch;
use crate::batch::reject::rejected_records;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::unavailable::UnreadInputs;
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::plan::Footprint;
use crate::plan::pipeline::RejectLimits;
use crate::topology::poison_records::isolation::Isolation;
use crate::units::ByteSize;

/// Why reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DispatchEnd {
    /// Every source has ended.
    Exhausted,
    /// The requested number of records has been read.
    Limited,
    /// A shutdown was requested.
    ShutdownRequested,
    /// More records were rejected than the pipeline allows. The text names the limit.
    Rejected(String),
    /// A stage failed.
    Failed,
}

impl DispatchEnd {
    /// Logs the end of the run, unless it is a failure, which is reported as an error. `limit` is
    /// the requested number of records.
    pub(super) fn log(&self, limit: Option<u64>) {
        match self {
            Self::Exhausted => tracing::info!("the run ends: all sources have ended"),
            Self::Limited => {
                let limit = limit.unwrap_or(0);
                tracing::info!(limit, "the run ends: the record limit (--limit) is reached");
            }
            Self::ShutdownRequested => tracing::info!("the run ends: a shutdown was requested"),
            Self::Rejected(reason) => {
                tracing::error!(%reason, "the run ends: too many records were rejected");
            }
            Self::Failed => {}
        }
    }
}

/// Runs `work` and adds its duration to a counter of nanoseconds.
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
    /// Sends the inference requests of the sources to the workers.
    pub(super) inference: InferenceQueue,
    /// Each resolves when a source has sent the last responses to its clients.
    pub(super) closing: Vec<oneshot::Receiver<()>>,
    /// Reports the calls of the dispatcher that may block.
    pub(super) caller: Arc<BlockingCaller>,
    /// The maximum number and share of rejected records.
    pub(super) reject_limits: RejectLimits,
    /// The number of records that may still be read. `None`: no limit.
    pub(super) left: Option<u64>,
}

impl Dispatcher {
    /// Reads until the sources end, the limit is reached, `shutdown` resolves or a stage fails. In
    /// each case the end is first sent to the reorder stage, and then the channel of the workers
    /// closes.
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
            () = shutdown => DispatchEnd::ShutdownRequested,
            ended = self.read_all(sources, &mut numbers) => ended,
        };
        // The reorder stage outlives the dispatcher. Sending fails only if it has panicked, which
        // fails the run.
        let _ = self.done.send(WorkerMessage::End { numbers }).await;
        (ended, self.closing)
    }

    async fn read_all(&mut self, sources: Vec<SourceSlot>, numbers: &mut u64) -> DispatchEnd {
        let (mut readers, stats) = (
            SourceReaders::read(sources, &self.resume, self.stats.calls()),
            Arc::clone(&self.stats),
        );
        let mut incomplete: Option<(Arc<str>, UnreadInputs)> = None;
        while let Some(event) = timed(&stats.source_wait_nanos, readers.next()).await {
            match event {
                SourceEvent::Opened { stage, opened } => {
                    let OpenedSource {
                        total,
                        acks,
                        inference_requests,
                        shutdown_complete,
                    } = opened;
                    let source = &self.stats.stages[stage];
                    let skipped = source.skipped_files();
                    if !skipped.is_empty() {
                        tracing::info!(stage = &*source.name, %skipped, "the source skips files");
                    }
                    *source.total.lock() = total;
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

    /// Sends the uncommitted parts of a batch to the workers. Returns a reason if reading ends.
    async fn dispatch(
        &mut self,
        source: usize,
        batch: SourceBatch,
        numbers: &mut u64,
    ) -> Option<DispatchEnd> {
        self.stats.stages[source].has_read(&batch.batch);
        for mut part in self.resume.uncommitted_ranges(&batch.batch.provenance) {
            if let Some(left) = &mut self.left {
                part.end = part.end.min(part.start + *left);
                *left -= part.end - part.start;
                if part.is_empty() {
                    return Some(DispatchEnd::Limited);
                }
            }
            // Rows without a record cannot crash the process, and one reject may represent millions
            // of them.
            let parts = match batch.batch.row_ordinals.is_empty() {
                true => vec![(part, Isolation::None)],
                false => self.poison_records.parts(&batch.batch.provenance, part),
            };
            for (rows, isolation) in parts {
                let is_complete = rows == (0..batch.batch.provenance.len());
                let batch = if is_complete {
                    batch.clone()
                } else {
                    batch.slice(rows)
                };
                if let Some(ended) = self.send(source, batch, isolation, numbers).await {
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
        isolation: Isolation,
        numbers: &mut u64,
    ) -> Option<DispatchEnd> {
        let permit = self.budget.acquire(self.footprint.of(&batch));
        let permit = timed(&self.stats.backpressure_nanos, permit).await?;
        let provenance = Arc::clone(&batch.batch.provenance);
        let bytes = batch.batch.records.get_array_memory_size() as u64;
        let records = batch.batch.records.num_rows() as u64 + rejected_records(&batch.rejects);
        let permit = permit.with_records(&self.stats, source, records);
        let quarantined = match isolation {
            Isolation::Quarantined(reason) => Some(reason),
            Isolation::None | Isolation::Single => None,
        };
        let output = if quarantined.is_some() {
            batch.batch.records.slice(0, 0)
        } else {
            batch.batch.records.clone()
        };
        self.stats
            .batch(source, (records, bytes), Some(&output), Duration::ZERO);
        self.stats.rejected(source, &batch.rejects);
        self.acks.begin(source, &provenance);
        let exclusive = if isolation == Isolation::Single {
            self.poison_records.wait_idle(*numbers).await;
            let exclusive = self.poison_records.exclusive_access().await;
            if let Some((split, row)) = provenance.row(0) {
                let memory = ByteSize(self.footprint.of(&batch));
                tracing::info!(
                    split = split.name(),
                    row,
                    %memory,
                    "a row that may have crashed the process is processed alone"
                );
            }
            self.caller.during(BlockingOperation::RecordInFlight, || {
                self.poison_records.record_single(Some(&provenance))
            });
            Some(exclusive)
        } else {
            None
        };
        self.caller.during(BlockingOperation::RecordInFlight, || {
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
        if isolation == Isolation::Single {
            self.poison_records.wait_idle(*numbers).await;
            self.poison_records.record_single(None);
            drop(exclusive);
        }
        self.stats
            .exceeded(&self.reject_limits, self.stats.expected_total())
            .map(DispatchEnd::Rejected)
    }
}
