//! A worker: owns one instance of every transform, and carries a batch through the whole graph.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::ack_tracker::AckTracker;
use super::generation::{Generation, NodeKind, WorkerGraph};
use super::messages::{Destination, FailureSignal, ProcessedBatch, WorkItem, WorkerMessage};
use super::poison_records::{PoisonRecordTracker, QuarantineReason};
use super::reject_records::{BatchRejects, source_of};
use super::stats::RunStats;
use super::tap::REJECTS;
use crate::batch::{Batch, Reject, RejectCollector, SourceBatch};
use crate::error::StageError;
use crate::source::InferenceResponse;

/// What all workers have in common.
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

/// Works until the channel closes. Everything that a worker owns is made here, on its own thread,
/// and warmed up before the first batch comes.
pub(super) fn work(
    place: usize,
    shared: &WorkerShared,
    mut generations: watch::Receiver<Arc<Generation>>,
    queues: &WorkQueues,
    done: &async_channel::Sender<WorkerMessage>,
    runtime: &Handle,
) {
    let WorkerShared { stats, stop, .. } = shared;
    let first = Arc::clone(&generations.borrow_and_update());
    let mut worker = match Worker::new(&first, stats) {
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
                stats.add_worker_time(place, begun.elapsed());
                if !sent {
                    return;
                }
            }
            // Who has nothing to do lets go of models that nobody needs any more.
            NextWork::Generation(generation) => {
                if let Err((name, error)) = worker.held.change(&generation) {
                    return stop.fail(&name, error);
                }
            }
            NextWork::End => return,
        }
    }
}

/// Where a worker finds its work.
#[derive(Clone)]
pub(super) struct WorkQueues {
    /// What somebody waits for goes first.
    pub(super) inference: async_channel::Receiver<WorkItem>,
    pub(super) work: async_channel::Receiver<WorkItem>,
}

enum NextWork {
    Work(Box<WorkItem>),
    Generation(Arc<Generation>),
    End,
}

/// How long a worker has nothing to do before it takes newer models on its own: batches for those
/// that it has may still be on their way to it.
const IDLE_BEFORE_SWAP: Duration = Duration::from_secs(2);

/// What to do next: work, where there is any.
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
        Ok(asked) = queues.inference.recv() => NextWork::Work(Box::new(asked)),
        work = queues.work.recv() => work.map_or(NextWork::End, |work| NextWork::Work(Box::new(work))),
        newer = newer => NextWork::Generation(newer),
    }
}

struct Worker<'a> {
    held: WorkerGraph,
    stats: &'a RunStats,
    /// Whether the rejects of the batch at hand are rejects of the run.
    counts_rejects: bool,
}

impl<'a> Worker<'a> {
    fn new(
        generation: &Arc<Generation>,
        stats: &'a RunStats,
    ) -> Result<Self, (Arc<str>, StageError)> {
        Ok(Self {
            held: WorkerGraph::of(generation)?,
            stats,
            counts_rejects: true,
        })
    }

    /// Carries a batch, and tells who wants to know what came of it. `false`: nobody does any more.
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
        // Records of `/v1/encode` do not belong to the run: their rejects do not count towards its
        // limits.
        self.counts_rejects = matches!(destination, Destination::Sinks(_));
        let passed = self
            .held
            .change(&generation)
            .and_then(|()| self.run_graph(source, batch, quarantined));
        match destination {
            Destination::Sinks(number) => {
                let carried = passed
                    .and_then(|passed| self.prepare(passed))
                    .and_then(|passed| self.finish(passed));
                shared.poison_records.end(number);
                let message = match carried {
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
                let answer = match passed {
                    Ok(GraphOutput { outputs, rejects }) => match outputs.into_iter().next() {
                        Some(batch) => Ok(InferenceResponse {
                            batch,
                            rejected: rejects.into_list(),
                        }),
                        None => Err("the pipeline has no sink".to_owned()),
                    },
                    Err((name, error)) => {
                        let told = format!("{name}: {error}");
                        // A refusal by the environment, such as a lack of memory, concerns this
                        // request alone.
                        if !error.is_of_environment() {
                            shared.stop.fail(&name, error);
                        }
                        Err(told)
                    }
                };
                // Who asked may have gone.
                drop(reply.send(answer));
                true
            }
        }
    }

    fn run_graph(
        &mut self,
        source: usize,
        mut input: SourceBatch,
        condemned: Option<QuarantineReason>,
    ) -> Result<GraphOutput, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let graph = &generation.graph;
        let provenance = Arc::clone(&input.batch.provenance);
        let mut rejects = BatchRejects::new(input.batch.clone());
        if let Some(guilt) = condemned {
            let condemned = all_rejected(&input.batch, guilt);
            self.stats.rejected(source, &condemned);
            input.rejects.extend(condemned);
            input.batch = input.batch.rows(0..0);
        }
        if !graph.rejected[source].contains_all(&provenance) {
            rejects.add(&graph.nodes[source].name, input.rejects);
        }
        let mut left = graph.consumers.clone();
        let mut edges: Vec<Option<Batch>> = vec![None; graph.nodes.len()];
        edges[source] = Some(input.batch);
        let mut outputs = Vec::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            if matches!(node.part, NodeKind::Source) {
                continue;
            }
            let fail = |error: StageError| (Arc::clone(&node.name), error);
            let arms: Vec<Batch> = node
                .inputs
                .iter()
                .filter_map(|&from| take(&mut edges, &mut left, from))
                .collect();
            let arrived = Batch::concat(&arms).map_err(|error| fail(error.into()))?;
            drop(arms);
            match &node.part {
                NodeKind::Source => {}
                // What another source feeds alone has nothing to do with this batch.
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

    /// Does what sinks leave to the workers.
    fn prepare(&mut self, mut passed: GraphOutput) -> Result<GraphOutput, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let nodes = generation.graph.nodes.iter().enumerate();
        let sinks = nodes.filter(|(_, node)| matches!(node.part, NodeKind::Sink(..)));
        for ((at, node), output) in sinks.zip(&mut passed.outputs) {
            let Some(preparation) = self.held.transforms[at].as_mut() else {
                continue;
            };
            // The sink will pass it over.
            if generation.graph.is_done(at, &output.provenance) {
                continue;
            }
            let (started, mut rejects) = (Instant::now(), RejectCollector::default());
            let prepared = preparation.apply(output, &mut rejects);
            *output = prepared.map_err(|error| (Arc::clone(&node.name), error))?;
            self.stats.prepared(at, started.elapsed());
            self.refuse(at, rejects.into_vec(), &mut passed.rejects);
        }
        Ok(passed)
    }

    /// Puts the rejects behind the outputs, where they are kept.
    fn finish(&self, passed: GraphOutput) -> Result<ProcessedBatch, (Arc<str>, StageError)> {
        let GraphOutput {
            mut outputs,
            rejects: mut rejected,
        } = passed;
        if !rejected.is_empty() {
            self.stats.tap.add_rejects(rejected.seen(REJECTS));
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
        refused: &mut BatchRejects,
    ) -> Result<Batch, StageError> {
        let input = (
            batch.records.num_rows() as u64,
            batch.records.get_array_memory_size() as u64,
        );
        let (started, mut rejects) = (Instant::now(), RejectCollector::default());
        // A node that is a transform has been built, or this worker would not run.
        let Some(transform) = self.held.transforms[at].as_mut() else {
            return Ok(batch);
        };
        let tap = &self.stats.tap;
        let is_looked_at = tap.should_sample(at);
        let output = transform.apply(&batch, &mut rejects)?;
        debug_assert_eq!(
            output.records.schema(),
            transform.schema(),
            "a transform left its plan"
        );
        self.stats
            .batch(at, input, Some(&output.records), started.elapsed());
        if is_looked_at && let Some(look) = transform.preview(&batch, &output)? {
            tap.add_image(
                at,
                &self.stats.stages[at].name,
                source_of(&batch, look.ordinal),
                &look.images,
            );
        }
        self.refuse(at, rejects.into_vec(), refused);
        Ok(output)
    }

    /// Counts the rejects of a stage, and keeps them unless an earlier run has.
    fn refuse(&self, at: usize, rejects: Vec<Reject>, refused: &mut BatchRejects) {
        let graph = &self.held.generation.graph;
        let name = &graph.nodes[at].name;
        if self.counts_rejects {
            self.stats.rejected(at, &rejects);
            refused.log(name, &rejects);
        }
        if !graph.rejected[at].contains_all(refused.provenance()) {
            refused.add(name, rejects);
        }
    }
}

/// A batch that went through all transforms: the records for each sink, and the rejects.
struct GraphOutput {
    outputs: Vec<Batch>,
    rejects: BatchRejects,
}

/// Every record of a batch as a reject: they took the process down before.
fn all_rejected(batch: &Batch, guilt: QuarantineReason) -> Vec<Reject> {
    let reject = |&ordinal| Reject::new(ordinal, guilt.code(), guilt.reason());
    batch.row_ordinals.iter().map(reject).collect()
}

/// An edge's batch: a reference, or the batch itself for the last who asks, so that it is freed
/// early.
fn take(edges: &mut [Option<Batch>], left: &mut [usize], from: usize) -> Option<Batch> {
    left[from] -= 1;
    if left[from] == 0 {
        edges[from].take()
    } else {
        edges[from].clone()
    }
}
