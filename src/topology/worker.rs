//! A worker, which owns one instance of every transform and processes one batch at a time through
//! all stages of the graph.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::ack_tracker::AckTracker;
use super::activity::WorkerActivity;
use super::generation::{Generation, NodeKind, Transforms, WorkerGraph};
use super::messages::{Destination, FailureSignal, ProcessedBatch, WorkItem, WorkerMessage};
use super::poison_records::{PoisonRecordTracker, QuarantineReason};
use super::reject_records::{BatchRejects, source_of};
use super::stats::RunStats;
use super::tap::REJECTS;
use crate::batch::{Batch, Reject, RejectCollector, SourceBatch};
use crate::error::StageError;
use crate::source::InferenceResponse;

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
        Err((name, error)) => return stop.fail(&name, error),
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
                if let Err((name, error)) = worker.held.change(&generation) {
                    return stop.fail(&name, error);
                }
            }
            NextWork::End => return,
        }
    }
}

/// The channels from which a worker receives batches.
#[derive(Clone)]
pub(super) struct WorkQueues {
    /// Inference requests, which have priority.
    pub(super) inference: async_channel::Receiver<WorkItem>,
    pub(super) work: async_channel::Receiver<WorkItem>,
}

enum NextWork {
    Work(Box<WorkItem>),
    Generation(Arc<Generation>),
    End,
}

/// The idle time after which a worker switches to a newer generation without a batch. Batches of
/// its present generation may still be in the queue before that.
const IDLE_BEFORE_SWAP: Duration = Duration::from_secs(2);

/// Waits for the next batch, or for a newer generation while the worker is idle.
async fn next(queues: &WorkQueues, generations: &mut watch::Receiver<Arc<Generation>>) -> NextWork {
    let newer = async {
        if generations.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(IDLE_BEFORE_SWAP).await;
        Arc::clone(&generations.borrow_and_update())
    };
    tokio::select! {
        biased;
        Ok(request) = queues.inference.recv() => NextWork::Work(Box::new(request)),
        work = queues.work.recv() => match work {
            Ok(work) => NextWork::Work(Box::new(work)),
            Err(_) => NextWork::End,
        },
        generation = newer => NextWork::Generation(generation),
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
    ) -> Result<Self, (Arc<str>, StageError)> {
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
    ) -> Result<InferenceResponse, (Arc<str>, StageError)> {
        let processed = self.run_graph(source, input, None)?;
        let response = self.prepare(processed)?.into_response();
        response.map_err(|message| {
            let name = &self.held.generation.graph.nodes[source].name;
            (Arc::clone(name), StageError::Other(message))
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
                    Err((name, error)) => {
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
                    Err((name, error)) => {
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

    fn run_graph(
        &mut self,
        source: usize,
        mut input: SourceBatch,
        quarantined: Option<QuarantineReason>,
    ) -> Result<GraphOutput, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let graph = &generation.graph;
        let provenance = Arc::clone(&input.batch.provenance);
        let mut rejects = BatchRejects::new(input.batch.clone());
        if let Some(reason) = quarantined {
            let crashed = all_rejected(&input.batch, reason);
            self.stats.rejected(source, &crashed);
            input.rejects.extend(crashed);
            input.batch = input.batch.rows(0..0);
        }
        if !graph.rejected[source].contains_all(&provenance) {
            rejects.add(&graph.nodes[source].name, input.rejects);
        }
        let mut remaining_consumers = graph.consumers.clone();
        let mut edges: Vec<Option<Batch>> = vec![None; graph.nodes.len()];
        edges[source] = Some(input.batch);
        let mut outputs = Vec::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, NodeKind::Source) {
                continue;
            }
            let _span = tracing::debug_span!("stage", stage = &*node.name).entered();
            let fail = |error: StageError| (Arc::clone(&node.name), error);
            let branches: Vec<Batch> = node
                .inputs
                .iter()
                .filter_map(|&from| take(&mut edges, &mut remaining_consumers, from))
                .collect();
            let arrived = Batch::concat(&branches).map_err(|error| fail(error.into()))?;
            drop(branches);
            match &node.kind {
                NodeKind::Source => {}
                // Skip a transform that receives records only from other sources.
                NodeKind::Transform(_) => {
                    let Some(arrived) = arrived else { continue };
                    edges[at] = Some(self.apply(at, arrived, &mut rejects).map_err(fail)?);
                }
                NodeKind::Sink(schema, _) => outputs.push(arrived.unwrap_or_else(|| Batch {
                    records: RecordBatch::new_empty(Arc::clone(schema)),
                    row_ordinals: Vec::new(),
                    provenance: Arc::clone(&provenance),
                })),
            }
        }
        Ok(GraphOutput { outputs, rejects })
    }

    /// Runs the batch encoders of the sinks.
    fn prepare(
        &mut self,
        mut processed: GraphOutput,
    ) -> Result<GraphOutput, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let nodes = generation.graph.nodes.iter().enumerate();
        let sinks = nodes.filter(|(_, node)| matches!(node.kind, NodeKind::Sink(..)));
        for ((at, node), output) in sinks.zip(&mut processed.outputs) {
            let Some(encoder) = self.held.transforms[at].as_mut() else {
                continue;
            };
            // The sink skips this batch.
            if generation.graph.is_done(at, &output.provenance) {
                continue;
            }
            let _span = tracing::debug_span!("stage", stage = &*node.name).entered();
            self.activity.enter(at);
            let (started, mut rejects) = (Instant::now(), RejectCollector::default());
            let prepared = encoder.apply(output, &mut rejects);
            *output = prepared.map_err(|error| (Arc::clone(&node.name), error))?;
            self.stats.prepared(at, started.elapsed());
            self.add_rejects(at, rejects.into_vec(), &mut processed.rejects);
        }
        Ok(processed)
    }

    /// Appends the rejects to the outputs if rejects are stored.
    fn finish(&self, processed: GraphOutput) -> Result<ProcessedBatch, (Arc<str>, StageError)> {
        let GraphOutput {
            mut outputs,
            rejects: mut rejected,
        } = processed;
        if !rejected.is_empty() {
            self.stats.tap.add_rejects(rejected.recent(REJECTS));
        }
        if let Some(originals) = self.held.generation.graph.keeps_rejects {
            let name: Arc<str> = Arc::from("rejects");
            outputs.push(rejected.batch(originals).map_err(|error| (name, error))?);
        }
        Ok(ProcessedBatch {
            outputs,
            rejected: rejected.into_list(),
        })
    }

    fn apply(
        &mut self,
        at: usize,
        batch: Batch,
        rejected: &mut BatchRejects,
    ) -> Result<Batch, StageError> {
        let input = (
            batch.records.num_rows() as u64,
            batch.records.get_array_memory_size() as u64,
        );
        let (started, mut rejects) = (Instant::now(), RejectCollector::default());
        // Every transform of the graph has been built, or this worker would not run.
        let Some(transform) = self.held.transforms[at].as_mut() else {
            return Ok(batch);
        };
        self.activity.enter(at);
        let tap = &self.stats.tap;
        let is_sampled = tap.should_sample(at);
        let output = transform.apply(&batch, &mut rejects)?;
        debug_assert_eq!(
            output.records.schema(),
            transform.schema(),
            "the output schema of a transform differs from its plan"
        );
        self.stats
            .batch(at, input, Some(&output.records), started.elapsed());
        if is_sampled && let Some(preview) = transform.preview(&batch, &output)? {
            tap.add_image(
                at,
                &self.stats.stages[at].name,
                source_of(&batch, preview.ordinal),
                &preview.images,
            );
        }
        self.add_rejects(at, rejects.into_vec(), rejected);
        Ok(output)
    }

    /// Counts and logs the rejects of a stage, and adds them to `rejected` unless an earlier run
    /// has stored them.
    fn add_rejects(&self, at: usize, rejects: Vec<Reject>, rejected: &mut BatchRejects) {
        let graph = &self.held.generation.graph;
        let name = &graph.nodes[at].name;
        if self.counts_rejects {
            self.stats.rejected(at, &rejects);
            rejected.log(name, &rejects);
        }
        if !graph.rejected[at].contains_all(rejected.provenance()) {
            rejected.add(name, rejects);
        }
    }
}

/// A batch after all transforms: the records for each sink, and the rejects.
struct GraphOutput {
    outputs: Vec<Batch>,
    rejects: BatchRejects,
}

impl GraphOutput {
    /// The records for the first sink, and the rejects.
    fn into_response(self) -> Result<InferenceResponse, String> {
        let batch = self.outputs.into_iter().next();
        Ok(InferenceResponse {
            batch: batch.ok_or_else(|| "the pipeline has no sink".to_owned())?,
            rejected: self.rejects.into_list(),
        })
    }
}

/// Returns a reject for every record of a batch whose records crashed the process before.
fn all_rejected(batch: &Batch, reason: QuarantineReason) -> Vec<Reject> {
    let reject = |&ordinal| Reject::new(ordinal, reason.code(), reason.reason());
    batch.row_ordinals.iter().map(reject).collect()
}

/// Returns the batch of an edge: a clone, or the batch itself for the last consumer, so that its
/// memory is freed early.
fn take(edges: &mut [Option<Batch>], consumers: &mut [usize], from: usize) -> Option<Batch> {
    consumers[from] -= 1;
    if consumers[from] == 0 {
        edges[from].take()
    } else {
        edges[from].clone()
    }
}
