//! A worker, which owns one instance of every transform and processes one batch at a time through
//! all stages of the graph.

pub(crate) mod output;
pub(crate) mod transforms;

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::ack_tracker::AckTracker;
use super::generation::{Generation, Transforms, WorkerGraph};
use super::messages::{Destination, FailureSignal, ProcessedBatch, WorkItem, WorkerMessage};
use super::poison_records::PoisonRecordTracker;
use super::telemetry::activity::WorkerActivity;
use super::telemetry::stats::RunStats;
use super::telemetry::tap::REJECTS;
use crate::batch::SourceBatch;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::failure::StageFailure;
use crate::source::InferenceResponse;
use crate::topology::work_queues::{NextWork, WorkQueues, next};
use crate::topology::worker::output::GraphOutput;

/// The state that all workers share.
pub(super) struct WorkerShared {
    stats: Arc<RunStats>,
    poison_records: Arc<PoisonRecordTracker>,
    acks: Arc<AckTracker>,
    stop: FailureSignal,
}

impl WorkerShared {
    pub(super) fn new(
        stats: &Arc<RunStats>,
        poison_records: &Arc<PoisonRecordTracker>,
        acks: &Arc<AckTracker>,
        stop: &FailureSignal,
    ) -> Self {
        let (stats, poison_records) = (Arc::clone(stats), Arc::clone(poison_records));
        Self {
            stats,
            poison_records,
            acks: Arc::clone(acks),
            stop: stop.clone(),
        }
    }
}

/// Runs the worker with this number until the channel of batches closes. All instances that the
/// worker owns are built here, on its own thread, and warmed up before the first batch.
pub(super) fn work(
    number: usize,
    shared: &WorkerShared,
    mut generations: watch::Receiver<Arc<Generation>>,
    queues: &WorkQueues,
    done: &async_channel::Sender<WorkerMessage>,
    runtime: &Handle,
) {
    let WorkerShared { stats, stop, .. } = shared;
    let first = Arc::clone(&generations.borrow_and_update());
    let mut worker = match Worker::new(&first, stats, &stats.activity[number]) {
        Ok(worker) => worker,
        Err(StageFailure { stage: name, error }) => return stop.fail(&name, error),
    };
    drop(first);
    stats.worker_is_ready();
    loop {
        match runtime.block_on(next(queues, &mut generations)) {
            NextWork::Work(work) => {
                let begun = Instant::now();
                let sent = worker.process(*work, shared, done);
                stats.add_worker_time(number, begun.elapsed());
                if !sent {
                    return;
                }
            }
            // An idle worker switches to the newer models, so that the old ones can be freed.
            NextWork::Generation(generation) => {
                if let Err(StageFailure { stage: name, error }) = worker.held.change(&generation) {
                    return stop.fail(&name, error);
                }
            }
            NextWork::End => return,
        }
    }
}

pub(super) struct Worker<'a> {
    held: WorkerGraph,
    stats: &'a RunStats,
    activity: &'a WorkerActivity,
    /// Whether the rejects of the present batch count as rejects of the run.
    counts_rejects: bool,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        generation: &Arc<Generation>,
        stats: &'a RunStats,
        activity: &'a WorkerActivity,
    ) -> Result<Self, StageFailure> {
        Ok(Self {
            held: WorkerGraph::new(generation)?,
            stats,
            activity,
            counts_rejects: true,
        })
    }

    /// Processes a batch of a graph with one sink.
    pub(super) fn process_embedded(
        &mut self,
        source: usize,
        input: SourceBatch,
    ) -> Result<InferenceResponse, StageFailure> {
        let processed = self.run_graph(source, input, None)?;
        let response = self.prepare(processed)?.into_response();
        response.map_err(|message| {
            let name = &self.held.generation.graph.nodes[source].name;
            StageFailure::new(
                Arc::clone(name),
                StageError::new(ErrorCode::Internal, message),
            )
        })
    }

    /// The transforms, for the next worker.
    pub(super) fn into_transforms(self) -> Transforms {
        self.held.transforms
    }

    /// Processes a batch and sends the result to its destination. Returns `false` if the reorder
    /// stage has ended.
    fn process(
        &mut self,
        work: WorkItem,
        shared: &WorkerShared,
        done: &async_channel::Sender<WorkerMessage>,
    ) -> bool {
        let WorkItem {
            destination,
            source,
            batch,
            quarantined,
            generation,
            permit,
        } = work;
        // Records of `/v1/encode` do not belong to the run: their rejects do not count towards the
        // reject limits.
        self.counts_rejects = matches!(destination, Destination::Sinks(_));
        self.activity.begin(source, &batch.batch);
        let processed = self
            .held
            .change(&generation)
            .and_then(|()| self.run_graph(source, batch, quarantined));
        match destination {
            Destination::Sinks(number) => {
                let result = processed
                    .and_then(|output| self.prepare(output))
                    .and_then(|output| self.finish(output));
                self.activity.end();
                shared.poison_records.end(number);
                let message = match result {
                    Ok(mut result) => {
                        shared.acks.on_processed(
                            number,
                            std::mem::take(&mut result.rejected),
                            &result.outputs,
                        );
                        WorkerMessage::Batch {
                            number,
                            result: Box::new(result),
                            generation,
                            permit,
                        }
                    }
                    Err(StageFailure { stage: name, error }) => {
                        shared.stop.fail(&name, error);
                        WorkerMessage::Failed { number }
                    }
                };
                done.send_blocking(message).is_ok()
            }
            Destination::Caller(reply) => {
                self.activity.end();
                let response = match processed {
                    Ok(output) => output.into_response(),
                    Err(StageFailure { stage: name, error }) => {
                        let message = format!("{name}: {error}");
                        // An error of the environment, such as a lack of memory, fails only this
                        // request.
                        if !error.is_of_environment() {
                            shared.stop.fail(&name, error);
                        }
                        Err(message)
                    }
                };
                // The caller may have given up.
                drop(reply.send(response));
                true
            }
        }
    }

    /// Appends the rejects to the outputs if rejects are stored.
    fn finish(&self, processed: GraphOutput) -> Result<ProcessedBatch, StageFailure> {
        let GraphOutput {
            mut outputs,
            rejects: mut rejected,
        } = processed;
        if !rejected.is_empty() {
            self.stats.tap.add_rejects(rejected.recent(REJECTS));
        }
        if let Some(originals) = self.held.generation.graph.keeps_rejects {
            let name: Arc<str> = Arc::from("rejects");
            outputs.push(rejected.batch(originals).map_err(StageFailure::of(&name))?);
        }
        Ok(ProcessedBatch {
            outputs,
            rejected: rejected.into_list(),
        })
    }
}
