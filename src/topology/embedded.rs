//! The graph of an embedded pipeline, which processes batches on the threads of its callers.

use std::sync::Arc;
use std::time::Duration;

use super::generation::{Generation, TransformGraph};
use super::telemetry::activity::WorkerActivity;
use super::telemetry::stats::RunStats;
use super::worker::Worker;
use crate::batch::SourceBatch;
use crate::batch::reject::rejected_records;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::pipeline::Plan;
use crate::plan::stage::StageOperator;
use crate::source::InferenceResponse;

/// The graph. Each thread that processes a batch uses its own instances of the transforms, which the
/// next thread reuses.
pub(crate) struct EmbeddedGraph {
    generation: Arc<Generation>,
    stats: Arc<RunStats>,
    source: usize,
}

impl EmbeddedGraph {
    /// Builds the graph of a plan with one source and one sink, and warms up the transforms of one
    /// thread.
    ///
    /// # Errors
    /// The name of a stage that cannot be built, and the cause.
    pub fn open(plan: &Plan, metrics: Arc<Metrics>) -> Result<Self, StageFailure> {
        let stats = Arc::new(RunStats::new(plan, metrics));
        let mut graph = TransformGraph::new(&plan.stages, None);
        let mut source = 0;
        for (at, stage) in plan.stages.iter().enumerate() {
            match &stage.operator {
                StageOperator::Source(..) => source = at,
                StageOperator::Transform(_) => {}
                StageOperator::Sink(sink, _) => {
                    if let Some(encoder) = sink.embedded_encoder() {
                        graph.set_encoder(at, encoder);
                    }
                }
            }
        }
        let generation = Arc::new(Generation::new(0, graph, Vec::new()));
        generation.put_back(generation.graph.build_warm()?);
        Ok(Self {
            generation,
            stats,
            source,
        })
    }

    /// Processes a batch on the present thread. Returns the records that the sink would write, and
    /// the rejects.
    ///
    /// # Errors
    /// The name of a stage that failed for a reason other than a record, and the cause.
    pub fn process(&self, input: SourceBatch) -> Result<InferenceResponse, StageFailure> {
        let records = &input.batch.records;
        let read = records.num_rows() as u64 + rejected_records(&input.rejects);
        let size = (read, records.get_array_memory_size() as u64);
        let nothing = Duration::ZERO;
        self.stats.batch(self.source, size, Some(records), nothing);
        self.stats.rejected(self.source, &input.rejects);
        let activity = WorkerActivity::default();
        let mut worker = Worker::new(&self.generation, &self.stats, &activity)?;
        let processed = worker.process_embedded(self.source, input)?;
        // After an error, the transforms are dropped.
        self.generation.put_back(worker.into_transforms());
        Ok(processed)
    }

    /// The counters of all stages.
    pub fn stats(&self) -> &Arc<RunStats> {
        &self.stats
    }
}
