//! Applies the transforms of the graph to a batch.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;

use crate::batch::reject::{Reject, RejectCollector};
use crate::batch::{Batch, SourceBatch};
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::topology::generation::NodeKind;
use crate::topology::poison_records::isolation::QuarantineReason;
use crate::topology::reject_records::{BatchRejects, source_of};
use crate::topology::worker::Worker;
use crate::topology::worker::output::{GraphOutput, all_rejected, take};

impl<'a> Worker<'a> {
    pub(super) fn run_graph(
        &mut self,
        source: usize,
        mut input: SourceBatch,
        quarantined: Option<QuarantineReason>,
    ) -> Result<GraphOutput, StageFailure> {
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
            let fail = StageFailure::of(&node.name);
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
    pub(super) fn prepare(
        &mut self,
        mut processed: GraphOutput,
    ) -> Result<GraphOutput, StageFailure> {
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
            *output = prepared.map_err(StageFailure::of(&node.name))?;
            self.stats.prepared(at, started.elapsed());
            self.add_rejects(at, rejects.into_vec(), &mut processed.rejects);
        }
        Ok(processed)
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
    pub(super) fn add_rejects(&self, at: usize, rejects: Vec<Reject>, rejected: &mut BatchRejects) {
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
