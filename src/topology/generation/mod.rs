//! A generation: the stage graph with one set of models, which is built and warmed up before it
//! replaces the previous one.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use parking_lot::Mutex;

use super::reject_records::OriginalsPolicy;
use crate::batch::Batch;
use crate::batch::provenance::Provenance;
use crate::batch::reject::RejectCollector;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::plan::stage::{Stage, StageOperator};
use crate::sink::{BatchEncoder, OutputHistory, OutputIdentity};
use crate::transform::{IsolatedTransform, Transform, TransformPlan};

/// One instance of every transform and of every batch encoder of a sink, by the index of its stage.
pub(super) type Transforms = Vec<Option<IsolatedTransform>>;

/// A graph and the output identities of its sinks. Each batch refers to its generation, so that all
/// stages and sinks switch at the same batch number.
pub(super) struct Generation {
    /// Counted from 0. A generation with a higher number is newer.
    pub(super) number: u64,
    pub(super) graph: TransformGraph,
    /// The identity of each sink, in order. If rejects are stored, theirs is the last.
    pub(super) identities: Vec<OutputIdentity>,
    ready: Mutex<Vec<Transforms>>,
}

impl Generation {
    pub(super) fn new(number: u64, graph: TransformGraph, identities: Vec<OutputIdentity>) -> Self {
        Self {
            number,
            graph,
            identities,
            ready: Mutex::default(),
        }
    }

    /// The transforms for one worker: an instance that was put back, or a new one.
    pub(super) fn transforms(&self) -> Result<Transforms, StageFailure> {
        let ready = self.ready.lock().pop();
        ready.map_or_else(|| self.graph.build_warm(), Ok)
    }

    /// Stores transforms for the next worker that requests them.
    pub(super) fn put_back(&self, transforms: Transforms) {
        self.ready.lock().push(transforms);
    }
}

/// The generation that a worker uses, with the worker's own instances of the transforms.
pub(super) struct WorkerGraph {
    pub(super) generation: Arc<Generation>,
    pub(super) transforms: Transforms,
}

impl WorkerGraph {
    pub(super) fn new(generation: &Arc<Generation>) -> Result<Self, StageFailure> {
        Ok(Self {
            transforms: generation.transforms()?,
            generation: Arc::clone(generation),
        })
    }

    /// Switches to another generation. The transforms of the previous generation are put back into
    /// it, and it lives as long as one of its batches is in flight: an inference request with a
    /// newer generation may be processed before such a batch, and the model files of the older
    /// generation may have been replaced by then.
    pub(super) fn change(&mut self, to: &Arc<Generation>) -> Result<(), StageFailure> {
        if self.generation.number != to.number {
            let left = std::mem::replace(self, Self::new(to)?);
            left.generation.put_back(left.transforms);
        }
        Ok(())
    }
}

/// A stage of the graph that the workers process. Sources do nothing here.
pub(super) struct GraphNode {
    pub(super) name: Arc<str>,
    pub(super) inputs: Vec<usize>,
    pub(super) kind: NodeKind,
}

pub(super) enum NodeKind {
    Source,
    Transform(Arc<dyn TransformPlan>),
    /// The schema of the sink's input, and the batch encoder that workers run for the sink.
    Sink(SchemaRef, Option<Arc<dyn TransformPlan>>),
}

/// The batch encoder of a sink, as a transform.
#[derive(Clone)]
struct BatchEncoderTransform(Arc<dyn BatchEncoder>);

impl TransformPlan for BatchEncoderTransform {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transform for BatchEncoderTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        self.0.encode(batch, rejects)
    }
}

/// The graph, shared by all workers.
pub(super) struct TransformGraph {
    pub(super) nodes: Vec<GraphNode>,
    /// Per node, the number of stages that read its output.
    pub(super) consumers: Vec<usize>,
    /// Set if rejects are stored, with or without their originals. They are then the last output.
    pub(super) keeps_rejects: Option<OriginalsPolicy>,
    /// Per sink, the source rows that earlier runs have committed; empty for other nodes.
    pub(super) already_committed: Vec<Coverage>,
    /// Per node, the source rows whose rejects by this node earlier runs have stored.
    pub(super) rejected: Vec<Coverage>,
}

impl TransformGraph {
    /// The graph without the batch encoders of its sinks, which are available once the sinks are
    /// open.
    pub(super) fn new(stages: &[Stage], keeps_rejects: Option<OriginalsPolicy>) -> Self {
        let nodes: Vec<GraphNode> = stages
            .iter()
            .map(|stage| {
                let kind = match &stage.operator {
                    StageOperator::Source(..) => NodeKind::Source,
                    StageOperator::Transform(plan) => NodeKind::Transform(Arc::clone(plan)),
                    StageOperator::Sink(..) => {
                        let schema = stage
                            .inputs
                            .first()
                            .and_then(|&input| stages[input].schema());
                        NodeKind::Sink(schema.unwrap_or_else(|| Arc::new(Schema::empty())), None)
                    }
                };
                GraphNode {
                    name: Arc::clone(&stage.name),
                    inputs: stage.inputs.clone(),
                    kind,
                }
            })
            .collect();
        let uses = |at: usize| {
            nodes
                .iter()
                .filter(|node| node.inputs.contains(&at))
                .count()
        };
        let consumers = (0..nodes.len()).map(uses).collect();
        let already_committed = vec![Coverage::default(); nodes.len()];
        Self {
            nodes,
            consumers,
            keeps_rejects,
            rejected: already_committed.clone(),
            already_committed,
        }
    }

    /// Sets the batch encoder of the sink at `node`.
    pub(super) fn set_encoder(&mut self, node: usize, encoder: Arc<dyn BatchEncoder>) {
        if let NodeKind::Sink(_, slot) = &mut self.nodes[node].kind {
            *slot = Some(Arc::new(BatchEncoderTransform(encoder)));
        }
    }

    /// Copies the batch encoders of the sinks, and the rows that are already committed or rejected,
    /// from the running graph: sinks stay open during a reload.
    pub(super) fn inherit_sinks(&mut self, running: &Self) {
        for (node, open) in self.nodes.iter_mut().zip(&running.nodes) {
            if let (NodeKind::Sink(_, slot), NodeKind::Sink(_, encoder)) =
                (&mut node.kind, &open.kind)
            {
                slot.clone_from(encoder);
            }
        }
        self.already_committed
            .clone_from(&running.already_committed);
        self.rejected.clone_from(&running.rejected);
    }

    /// Builds an instance of every transform and warms it up.
    pub(super) fn build_warm(&self) -> Result<Transforms, StageFailure> {
        let mut transforms = self.build()?;
        for (node, transform) in self.nodes.iter().zip(&mut transforms) {
            if let Some(transform) = transform {
                transform.warm_up().map_err(StageFailure::of(&node.name))?;
            }
        }
        Ok(transforms)
    }

    /// Builds an instance of every transform.
    fn build(&self) -> Result<Transforms, StageFailure> {
        let build = |node: &GraphNode| match &node.kind {
            NodeKind::Transform(plan) | NodeKind::Sink(_, Some(plan)) => {
                IsolatedTransform::build(Arc::clone(plan))
                    .map(Some)
                    .map_err(StageFailure::of(&node.name))
            }
            NodeKind::Source | NodeKind::Sink(_, None) => Ok(None),
        };
        self.nodes.iter().map(build).collect()
    }

    /// Sets, per stage, the coverage of the rejects that `history` holds for the stages and sinks
    /// of `mine`. Returns these coverages for all stages that can reject records.
    pub(super) fn rejected_before(
        &mut self,
        history: &OutputHistory,
        mine: &OutputIdentity,
    ) -> Vec<Coverage> {
        let mut all = Vec::new();
        for ((node, rejected), held) in self
            .nodes
            .iter()
            .zip(&mut self.rejected)
            .zip(&self.already_committed)
        {
            let name = &*node.name;
            let before = match &node.kind {
                NodeKind::Sink(_, None) => continue,
                NodeKind::Sink(_, Some(_)) => mine
                    .sinks
                    .get(name)
                    .map(|sink| history.coverage_of_sink(sink, held)),
                _ => mine
                    .stages
                    .get(name)
                    .map(|stage| history.coverage_of(name, stage)),
            };
            *rejected = before.unwrap_or_default();
            all.push(rejected.clone());
        }
        all
    }

    /// Whether earlier runs have already committed the records of these rows to a sink and stored
    /// the sink's rejects of these rows.
    pub(super) fn is_done(&self, sink: usize, provenance: &Provenance) -> bool {
        let has_rejects =
            self.keeps_rejects.is_none() || self.rejected[sink].contains_all(provenance);
        has_rejects && self.already_committed[sink].contains_all(provenance)
    }
}

#[cfg(test)]
mod tests;
