//! A worker: owns one instance of every transform, and carries a batch through the whole graph.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::generation::{Generation, Held, Part};
use super::ledger::Ledger;
use super::messages::{Carried, Done, Errand, Stop, Work};
use super::rejected::{Refused, source_of};
use super::sights::REJECTS;
use super::stats::Stats;
use super::suspects::{Guilt, Suspects};
use crate::batch::{Batch, Reject, RejectCollector, SourceBatch};
use crate::error::StageError;
use crate::source::InferenceResponse;

/// What all workers have in common.
pub(super) struct Common {
    pub(super) stats: Arc<Stats>,
    pub(super) suspects: Arc<Suspects>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Stop,
}

/// Works until the channel closes. Everything that a worker owns is made here, on its own thread, and warmed up before
/// the first batch comes.
pub(super) fn work(
    place: usize,
    common: &Common,
    mut generations: watch::Receiver<Arc<Generation>>,
    queues: &Queues,
    done: &async_channel::Sender<Done>,
    runtime: &Handle,
) {
    let Common { stats, stop, .. } = common;
    let first = Arc::clone(&generations.borrow_and_update());
    let mut worker = match Worker::new(&first, stats) {
        Ok(worker) => worker,
        Err((name, error)) => return stop.fail(&name, error),
    };
    drop(first);
    stats.worker_is_ready();
    loop {
        match runtime.block_on(next(queues, &mut generations)) {
            Next::Work(work) => {
                let begun = Instant::now();
                let sent = worker.answer(*work, common, done);
                stats.worked(place, begun.elapsed());
                if !sent {
                    return;
                }
            }
            // Who has nothing to do lets go of models that nobody needs any more.
            Next::Generation(generation) => {
                if let Err((name, error)) = worker.held.change(&generation) {
                    return stop.fail(&name, error);
                }
            }
            Next::End => return,
        }
    }
}

/// Where a worker finds its work.
#[derive(Clone)]
pub(super) struct Queues {
    /// What somebody waits for goes first.
    pub(super) asked: async_channel::Receiver<Work>,
    pub(super) work: async_channel::Receiver<Work>,
}

enum Next {
    Work(Box<Work>),
    Generation(Arc<Generation>),
    End,
}

/// How long a worker has nothing to do before it takes newer models on its own: batches for those that it has may still
/// be on their way to it.
const QUIET: Duration = Duration::from_secs(2);

/// What to do next: work, where there is any.
async fn next(queues: &Queues, generations: &mut watch::Receiver<Arc<Generation>>) -> Next {
    let newer = async {
        if generations.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(QUIET).await;
        Arc::clone(&generations.borrow_and_update())
    };
    tokio::select! {
        biased;
        Ok(asked) = queues.asked.recv() => Next::Work(Box::new(asked)),
        work = queues.work.recv() => work.map_or(Next::End, |work| Next::Work(Box::new(work))),
        newer = newer => Next::Generation(newer),
    }
}

struct Worker<'a> {
    held: Held,
    stats: &'a Stats,
    /// Whether the rejects of the batch at hand are rejects of the run.
    counts_rejects: bool,
}

impl<'a> Worker<'a> {
    fn new(generation: &Arc<Generation>, stats: &'a Stats) -> Result<Self, (Arc<str>, StageError)> {
        Ok(Self { held: Held::of(generation)?, stats, counts_rejects: true })
    }

    /// Carries a batch, and tells who wants to know what came of it. `false`: nobody does any more.
    fn answer(&mut self, work: Work, common: &Common, done: &async_channel::Sender<Done>) -> bool {
        let Work { errand, source, batch, condemned, generation, permit } = work;
        // Records of `/v1/encode` do not belong to the run: their rejects do not count towards its limits.
        self.counts_rejects = matches!(errand, Errand::Sinks(_));
        let passed = self.held.change(&generation).and_then(|()| self.carry(source, batch, condemned));
        match errand {
            Errand::Sinks(number) => {
                let carried = passed.and_then(|passed| self.prepare(passed)).and_then(|passed| self.finish(passed));
                common.suspects.end(number);
                let message = match carried {
                    Ok(mut result) => {
                        common.ledger.carried(number, std::mem::take(&mut result.refused), &result.outputs);
                        Done::Batch { number, result: Box::new(result), generation, permit }
                    }
                    Err((name, error)) => {
                        common.stop.fail(&name, error);
                        Done::Failed { number }
                    }
                };
                done.send_blocking(message).is_ok()
            }
            Errand::Asked(reply) => {
                let answer = match passed {
                    Ok(Passed { outputs, refused }) => match outputs.into_iter().next() {
                        Some(batch) => Ok(InferenceResponse { batch, rejected: refused.into_list() }),
                        None => Err("the pipeline has no sink".to_owned()),
                    },
                    Err((name, error)) => {
                        let told = format!("{name}: {error}");
                        // A refusal by the environment, such as a lack of memory, concerns this request alone.
                        if !error.is_of_environment() {
                            common.stop.fail(&name, error);
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

    fn carry(
        &mut self,
        source: usize,
        mut input: SourceBatch,
        condemned: Option<Guilt>,
    ) -> Result<Passed, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let graph = &generation.graph;
        let provenance = Arc::clone(&input.batch.provenance);
        let mut refused = Refused::new(input.batch.clone());
        if let Some(guilt) = condemned {
            let condemned = all_rejected(&input.batch, guilt);
            self.stats.rejected(source, &condemned);
            input.rejects.extend(condemned);
            input.batch = input.batch.rows(0..0);
        }
        if !graph.rejected[source].contains_all(&provenance) {
            refused.add(&graph.nodes[source].name, input.rejects);
        }
        let mut left = graph.consumers.clone();
        let mut edges: Vec<Option<Batch>> = vec![None; graph.nodes.len()];
        edges[source] = Some(input.batch);
        let mut outputs = Vec::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            if matches!(node.part, Part::Source) {
                continue;
            }
            let fail = |error: StageError| (Arc::clone(&node.name), error);
            let arms: Vec<Batch> = node.inputs.iter().filter_map(|&from| take(&mut edges, &mut left, from)).collect();
            let arrived = Batch::concat(&arms).map_err(|error| fail(error.into()))?;
            drop(arms);
            match &node.part {
                Part::Source => {}
                // What another source feeds alone has nothing to do with this batch.
                Part::Transform(_) => {
                    let Some(arrived) = arrived else { continue };
                    edges[at] = Some(self.apply(at, arrived, &mut refused).map_err(fail)?);
                }
                Part::Sink(schema, _) => outputs.push(arrived.unwrap_or_else(|| Batch {
                    records: RecordBatch::new_empty(Arc::clone(schema)),
                    row_ordinals: Vec::new(),
                    provenance: Arc::clone(&provenance),
                })),
            }
        }
        Ok(Passed { outputs, refused })
    }

    /// Does what sinks leave to the workers.
    fn prepare(&mut self, mut passed: Passed) -> Result<Passed, (Arc<str>, StageError)> {
        let generation = Arc::clone(&self.held.generation);
        let nodes = generation.graph.nodes.iter().enumerate();
        let sinks = nodes.filter(|(_, node)| matches!(node.part, Part::Sink(..)));
        for ((at, node), output) in sinks.zip(&mut passed.outputs) {
            let Some(preparation) = self.held.transforms[at].as_mut() else { continue };
            // The sink will pass it over.
            if generation.graph.is_done(at, &output.provenance) {
                continue;
            }
            let (started, mut rejects) = (Instant::now(), RejectCollector::default());
            let prepared = preparation.apply(output, &mut rejects);
            *output = prepared.map_err(|error| (Arc::clone(&node.name), error))?;
            self.stats.prepared(at, started.elapsed());
            self.refuse(at, rejects.into_vec(), &mut passed.refused);
        }
        Ok(passed)
    }

    /// Puts the rejects behind the outputs, where they are kept.
    fn finish(&self, passed: Passed) -> Result<Carried, (Arc<str>, StageError)> {
        let Passed { mut outputs, mut refused } = passed;
        if !refused.is_empty() {
            self.stats.sights.refused(refused.seen(REJECTS));
        }
        if let Some(originals) = self.held.generation.graph.keeps_rejects {
            let name: Arc<str> = Arc::from("rejects");
            outputs.push(refused.batch(originals).map_err(|error| (name, error))?);
        }
        Ok(Carried { outputs, refused: refused.into_list() })
    }

    fn apply(&mut self, at: usize, batch: Batch, refused: &mut Refused) -> Result<Batch, StageError> {
        let input = (batch.records.num_rows() as u64, batch.records.get_array_memory_size() as u64);
        let (started, mut rejects) = (Instant::now(), RejectCollector::default());
        // A node that is a transform has been built, or this worker would not run.
        let Some(transform) = self.held.transforms[at].as_mut() else { return Ok(batch) };
        let sights = &self.stats.sights;
        let is_looked_at = sights.wants_image(at);
        let output = transform.apply(&batch, &mut rejects)?;
        debug_assert_eq!(output.records.schema(), transform.schema(), "a transform left its plan");
        self.stats.batch(at, input, Some(&output.records), started.elapsed());
        if is_looked_at && let Some(look) = transform.look(&batch, &output)? {
            sights.image(at, &self.stats.stages[at].name, source_of(&batch, look.ordinal), &look.images);
        }
        self.refuse(at, rejects.into_vec(), refused);
        Ok(output)
    }

    /// Counts the rejects of a stage, and keeps them unless an earlier run has.
    fn refuse(&self, at: usize, rejects: Vec<Reject>, refused: &mut Refused) {
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
struct Passed {
    outputs: Vec<Batch>,
    refused: Refused,
}

/// Every record of a batch as a reject: they took the process down before.
fn all_rejected(batch: &Batch, guilt: Guilt) -> Vec<Reject> {
    let reject = |&ordinal| Reject::new(ordinal, guilt.code(), guilt.reason());
    batch.row_ordinals.iter().map(reject).collect()
}

/// An edge's batch: a reference, or the batch itself for the last who asks, so that it is freed early.
fn take(edges: &mut [Option<Batch>], left: &mut [usize], from: usize) -> Option<Batch> {
    left[from] -= 1;
    if left[from] == 0 { edges[from].take() } else { edges[from].clone() }
}
