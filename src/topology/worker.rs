//! A worker: owns one instance of every transform, and carries a batch through the whole graph.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;

use super::messages::{Carried, Done, Stop, Work};
use super::rejected::Refused;
use super::stats::Stats;
use super::suspects::Suspects;
use crate::batch::{Batch, Reject, RejectCode, Rejects, SourceBatch};
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::plan::{Role, Stage};
use crate::transform::{Transform, TransformPlan};

/// A stage as the workers see it: sources and sinks do nothing here.
pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) inputs: Vec<usize>,
    pub(super) part: Part,
}

pub(super) enum Part {
    Source,
    Transform(Arc<dyn TransformPlan>),
    /// With the schema of what it takes.
    Sink(arrow::datatypes::SchemaRef),
}

/// The graph, shared by all workers.
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// How many stages take each node's output.
    consumers: Vec<usize>,
    /// Whether rejects are kept: then they are the last output.
    pub(super) keeps_rejects: bool,
    /// Per node, the source rows whose rejects by it are kept already.
    rejected: Vec<Coverage>,
}

impl Graph {
    pub(super) fn new(stages: &[Stage], keeps_rejects: bool) -> Self {
        let nodes: Vec<Node> = stages
            .iter()
            .map(|stage| {
                let part = match &stage.role {
                    Role::Source(..) => Part::Source,
                    Role::Transform(plan) => Part::Transform(Arc::clone(plan)),
                    Role::Sink(..) => {
                        let schema = stage.inputs.first().and_then(|&input| stages[input].schema());
                        Part::Sink(schema.unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty())))
                    }
                };
                Node { name: Arc::clone(&stage.name), inputs: stage.inputs.clone(), part }
            })
            .collect();
        let uses = |at: usize| nodes.iter().filter(|node| node.inputs.contains(&at)).count();
        let consumers = (0..nodes.len()).map(uses).collect();
        let rejected = vec![Coverage::default(); nodes.len()];
        Self { nodes, consumers, keeps_rejects, rejected }
    }

    /// Learns what rejects are kept already: `of` says it for a stage's name. Returns what it learned, for each stage
    /// that can refuse records.
    pub(super) fn rejected_before(&mut self, of: impl Fn(&str) -> Option<Coverage>) -> Vec<Coverage> {
        let mut all = Vec::new();
        for (node, rejected) in self.nodes.iter().zip(&mut self.rejected) {
            if !matches!(node.part, Part::Sink(_)) {
                *rejected = of(&node.name).unwrap_or_default();
                all.push(rejected.clone());
            }
        }
        all
    }
}

/// Works until the channel closes. Everything that a worker owns is made here, on its own thread.
pub(super) fn work(
    graph: &Graph,
    work: &async_channel::Receiver<Work>,
    done: &async_channel::Sender<Done>,
    stats: &Stats,
    suspects: &Suspects,
    stop: &Stop,
) {
    let mut transforms: Vec<Option<Box<dyn Transform>>> = Vec::new();
    for node in &graph.nodes {
        let built = match &node.part {
            Part::Transform(plan) => plan.build().map(Some),
            Part::Source | Part::Sink(_) => Ok(None),
        };
        match built {
            Ok(transform) => transforms.push(transform),
            Err(error) => return stop.fail(&node.name, error),
        }
    }
    let mut worker = Worker { graph, transforms, stats };
    while let Ok(Work { number, source, batch, condemned, permit }) = work.recv_blocking() {
        let carried = worker.carry(source, batch, condemned);
        suspects.end(number);
        let message = match carried {
            Ok(result) => Done::Batch { number, result: Box::new(result), permit },
            Err((name, error)) => {
                stop.fail(&name, error);
                Done::Failed { number }
            }
        };
        if done.send_blocking(message).is_err() {
            return;
        }
    }
}

struct Worker<'a> {
    graph: &'a Graph,
    transforms: Vec<Option<Box<dyn Transform>>>,
    stats: &'a Stats,
}

impl Worker<'_> {
    fn carry(
        &mut self,
        source: usize,
        mut input: SourceBatch,
        condemned: bool,
    ) -> Result<Carried, (Arc<str>, StageError)> {
        let graph = self.graph;
        let provenance = Arc::clone(&input.batch.provenance);
        let mut refused = Refused::new(input.batch.clone());
        if condemned {
            let crashed = crashed(&input.batch);
            self.stats.rejected(source, &crashed);
            input.rejects.extend(crashed);
            input.batch = input.batch.rows(0..0);
        }
        let is_kept = |at: usize| graph.rejected[at].covers_all(&provenance);
        if !is_kept(source) {
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
                Part::Transform(plan) => {
                    let Some(arrived) = arrived else { continue };
                    let mut rejects = Rejects::default();
                    edges[at] = Some(self.apply(at, plan.as_ref(), arrived, &mut rejects).map_err(fail)?);
                    let rejects = rejects.into_vec();
                    self.stats.rejected(at, &rejects);
                    if !is_kept(at) {
                        refused.add(&node.name, rejects);
                    }
                }
                Part::Sink(schema) => outputs.push(arrived.unwrap_or_else(|| Batch {
                    records: RecordBatch::new_empty(Arc::clone(schema)),
                    origin: Vec::new(),
                    provenance: Arc::clone(&provenance),
                })),
            }
        }
        if graph.keeps_rejects {
            let name: Arc<str> = Arc::from("rejects");
            outputs.push(refused.into_batch().map_err(|error| (name, error))?);
        }
        Ok(Carried { outputs })
    }

    fn apply(
        &mut self,
        at: usize,
        plan: &dyn TransformPlan,
        batch: Batch,
        rejects: &mut Rejects,
    ) -> Result<Batch, StageError> {
        let input = (batch.records.num_rows() as u64, batch.records.get_array_memory_size() as u64);
        let started = Instant::now();
        // A node that is a transform has been built, or this worker would not run.
        let Some(transform) = self.transforms[at].as_mut() else { return Ok(batch) };
        let output = apply_isolated(plan, transform, batch, rejects)?;
        debug_assert_eq!(output.records.schema(), plan.schema(), "a transform left its plan");
        self.stats.batch(at, input, Some(&output.records), started.elapsed());
        Ok(output)
    }
}

/// Every record of a batch as a reject: they took the process down before.
fn crashed(batch: &Batch) -> Vec<Reject> {
    let reason = "the process ended whenever this record was worked on: a native library may have aborted on it";
    let reject = |&ordinal| Reject::new(ordinal, RejectCode::Crashed, reason);
    batch.origin.iter().map(reject).collect()
}

/// An edge's batch: a reference, or the batch itself for the last who asks, so that it is freed early.
fn take(edges: &mut [Option<Batch>], left: &mut [usize], from: usize) -> Option<Batch> {
    left[from] -= 1;
    if left[from] == 0 { edges[from].take() } else { edges[from].clone() }
}

/// Applies a transform; where it panics, halves the batch until the record that is to blame stands alone.
fn apply_isolated(
    plan: &dyn TransformPlan,
    transform: &mut Box<dyn Transform>,
    batch: Batch,
    rejects: &mut Rejects,
) -> Result<Batch, StageError> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut found = Rejects::default();
        transform.apply(batch.clone(), &mut found).map(|output| (output, found))
    }));
    if let Ok(outcome) = attempt {
        let (output, found) = outcome?;
        rejects.append(found);
        return Ok(output);
    }
    // What a panic left behind is not to be trusted.
    *transform = plan.build()?;
    match batch.origin.as_slice() {
        [] => Err(StageError::Other("panicked on a batch without records".to_owned())),
        &[ordinal] => {
            rejects.push(ordinal, RejectCode::Panicked, "the stage panicked on this record");
            Ok(Batch {
                records: RecordBatch::new_empty(plan.schema()),
                origin: Vec::new(),
                provenance: batch.provenance,
            })
        }
        records => {
            let half = records.len() / 2;
            let parts = [batch.rows(0..half), batch.rows(half..records.len())];
            let parts = parts.map(|part| apply_isolated(plan, transform, part, rejects));
            let [first, second] = parts;
            Ok(Batch::concat(&[first?, second?])?.unwrap_or(batch))
        }
    }
}
