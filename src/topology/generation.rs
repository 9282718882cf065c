//! The graph with one set of models: what workers carry a batch through, made ready before it is
//! exchanged for another.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};

use super::reject_records::OriginalsPolicy;
use crate::batch::{Batch, Provenance, RejectCollector};
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::plan::{Stage, StageRole};
use crate::sink::{BatchEncoder, OutputHistory, OutputIdentity};
use crate::transform::{IsolatedTransform, Transform, TransformPlan};

/// One instance of every transform and of every preparation for a sink, by the place of its stage.
pub(super) type Transforms = Vec<Option<IsolatedTransform>>;

/// A graph and who its sinks write as; batches carry theirs, so that all of them change at one
/// number.
pub(super) struct Generation {
    /// Counted from 0; the models of a higher number are newer.
    pub(super) number: u64,
    pub(super) graph: TransformGraph,
    /// Of each sink, in order; the rejects come last, where they are kept.
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

    /// The transforms for one worker: those that are ready, or new ones.
    pub(super) fn transforms(&self) -> Result<Transforms, (Arc<str>, StageError)> {
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        ready.map_or_else(|| self.graph.build_warm(), Ok)
    }

    /// Keeps transforms that were made ahead for a worker to come.
    pub(super) fn put_back(&self, transforms: Transforms) {
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(transforms);
    }
}

/// A generation as a worker has it.
pub(super) struct WorkerGraph {
    pub(super) generation: Arc<Generation>,
    pub(super) transforms: Transforms,
}

impl WorkerGraph {
    pub(super) fn of(generation: &Arc<Generation>) -> Result<Self, (Arc<str>, StageError)> {
        Ok(Self {
            transforms: generation.transforms()?,
            generation: Arc::clone(generation),
        })
    }

    /// Goes over to another. What this worker had stays with the generation that it leaves, which
    /// lives while batches of it are on their way: one may come here yet, after something newer
    /// that was asked at once, and by then the files of its models are others.
    pub(super) fn change(&mut self, to: &Arc<Generation>) -> Result<(), (Arc<str>, StageError)> {
        if self.generation.number != to.number {
            let left = std::mem::replace(self, Self::of(to)?);
            left.generation.put_back(left.transforms);
        }
        Ok(())
    }
}

/// A stage as the workers see it: sources do nothing here.
pub(super) struct GraphNode {
    pub(super) name: Arc<str>,
    pub(super) inputs: Vec<usize>,
    pub(super) part: NodeKind,
}

pub(super) enum NodeKind {
    Source,
    Transform(Arc<dyn TransformPlan>),
    /// With the schema of what it takes, and what is done to it before the sink has it.
    Sink(SchemaRef, Option<Arc<dyn TransformPlan>>),
}

/// The preparation for a sink, as a transform.
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
    /// How many stages take each node's output.
    pub(super) consumers: Vec<usize>,
    /// Whether rejects are kept, and with what: then they are the last output.
    pub(super) keeps_rejects: Option<OriginalsPolicy>,
    /// Per sink, the source rows whose records earlier runs have kept; nothing for other nodes.
    pub(super) already_committed: Vec<Coverage>,
    /// Per node, the source rows whose rejects by it earlier runs have kept.
    pub(super) rejected: Vec<Coverage>,
}

impl TransformGraph {
    pub(super) fn new(stages: &[Stage], keeps_rejects: Option<OriginalsPolicy>) -> Self {
        let nodes: Vec<GraphNode> = stages
            .iter()
            .map(|stage| {
                let part = match &stage.role {
                    StageRole::Source(..) => NodeKind::Source,
                    StageRole::Transform(plan) => NodeKind::Transform(Arc::clone(plan)),
                    StageRole::Sink(sink, _) => {
                        let schema = stage
                            .inputs
                            .first()
                            .and_then(|&input| stages[input].schema());
                        let preparation = sink
                            .batch_encoder()
                            .map(|own| Arc::new(BatchEncoderTransform(own)) as _);
                        NodeKind::Sink(
                            schema.unwrap_or_else(|| Arc::new(Schema::empty())),
                            preparation,
                        )
                    }
                };
                GraphNode {
                    name: Arc::clone(&stage.name),
                    inputs: stage.inputs.clone(),
                    part,
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

    /// An instance of every transform, warmed up.
    pub(super) fn build_warm(&self) -> Result<Transforms, (Arc<str>, StageError)> {
        let mut transforms = self.build()?;
        for (node, transform) in self.nodes.iter().zip(&mut transforms) {
            if let Some(transform) = transform {
                transform
                    .warm_up()
                    .map_err(|error| (Arc::clone(&node.name), error))?;
            }
        }
        Ok(transforms)
    }

    /// An instance of every transform.
    fn build(&self) -> Result<Transforms, (Arc<str>, StageError)> {
        let build = |node: &GraphNode| match &node.part {
            NodeKind::Transform(plan) | NodeKind::Sink(_, Some(plan)) => {
                IsolatedTransform::build(Arc::clone(plan))
                    .map(Some)
                    .map_err(|error| (Arc::clone(&node.name), error))
            }
            NodeKind::Source | NodeKind::Sink(_, None) => Ok(None),
        };
        self.nodes.iter().map(build).collect()
    }

    /// Takes over which rejects `history` holds, by stages and sinks as `mine` knows them. Returns
    /// that, for each stage that can refuse records.
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
            let before = match &node.part {
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

    /// Whether a sink has nothing more to do with these rows: neither to keep records, nor to
    /// refuse some.
    pub(super) fn is_done(&self, sink: usize, provenance: &Provenance) -> bool {
        let refused = self.keeps_rejects.is_none() || self.rejected[sink].contains_all(provenance);
        refused && self.already_committed[sink].contains_all(provenance)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    /// Can be built once alone, as from files that are replaced then.
    #[derive(Default)]
    struct Once(AtomicBool);

    struct Nothing;

    impl TransformPlan for Once {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::empty())
        }

        fn build(&self) -> Result<Box<dyn Transform>, StageError> {
            match self.0.swap(true, Relaxed) {
                false => Ok(Box::new(Nothing)),
                true => Err(StageError::Other("the files are others".to_owned())),
            }
        }
    }

    impl Transform for Nothing {
        fn apply(&mut self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
            Ok(batch)
        }
    }

    fn generation(number: u64) -> Arc<Generation> {
        let part = NodeKind::Transform(Arc::new(Once::default()));
        let nodes = vec![GraphNode {
            name: Arc::from("codes"),
            inputs: vec![],
            part,
        }];
        let already_committed = vec![Coverage::default()];
        let graph = TransformGraph {
            nodes,
            consumers: vec![0],
            keeps_rejects: None,
            rejected: already_committed.clone(),
            already_committed,
        };
        Arc::new(Generation::new(number, graph, vec![]))
    }

    #[test]
    fn a_batch_of_the_models_before_is_carried_after_something_newer_although_their_files_are_gone()
    {
        let (old, new) = (generation(0), generation(1));
        let mut held = WorkerGraph::of(&old).unwrap();
        for to in [&new, &old, &old, &new] {
            held.change(to).unwrap();
            assert_eq!(held.generation.number, to.number);
            assert!(held.transforms[0].is_some());
        }
    }

    #[test]
    fn models_are_let_go_when_nobody_is_left_who_needs_them() {
        let (old, new) = (generation(0), generation(1));
        let gone = Arc::downgrade(&old);
        let mut held = WorkerGraph::of(&old).unwrap();
        held.change(&new).unwrap();
        drop(old);
        assert!(gone.upgrade().is_none());
    }
}
