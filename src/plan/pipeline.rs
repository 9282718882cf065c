//! The plan of a pipeline, and its stages.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::KeySpans;
use crate::config::settings::AdminSettings;
use crate::model::Model;
use crate::plan::footprint::Footprint;
use crate::plan::memory::estimate::MemoryEstimate;
use crate::plan::stage::{Stage, StageOperator, is_unbounded};
use crate::plan_context::PipelineLimits;
use crate::server::Listeners;
use crate::shard::Shard;
use crate::sink::{OutputIdentity, Sink};
use crate::storage::Location;

/// A pipeline that is ready to run.
pub struct Plan {
    /// The name of the pipeline.
    pub name: String,
    /// All stages; the inputs of a stage precede it.
    pub stages: Vec<Stage>,
    /// All declared models.
    pub models: Vec<Arc<Model>>,
    /// Limits on records.
    pub limits: PipelineLimits,
    /// Number of workers.
    pub workers: usize,
    /// The memory of a batch in flight.
    pub footprint: Footprint,
    /// The predicted memory of the run.
    pub memory: MemoryEstimate,
    /// The folder of the journals; `None` if no sink is durable.
    pub state: Option<Location>,
    /// The sink of the rejects; `None` if no sink is durable and `rejects.path` is not set, so that
    /// rejects are only counted.
    pub rejects: Option<(Box<dyn Sink>, OutputIdentity)>,
    /// Whether the original of each reject is stored.
    pub keeps_originals: bool,
    /// Maximum number of rejected records.
    pub reject_limits: RejectLimits,
    /// Maximum age of an uncommitted record; `None` to commit only full files and at the end.
    pub commit_age: Option<Duration>,
    /// The listener for metrics and health.
    pub admin: AdminSettings,
    /// The state that the listeners of the run share.
    pub listeners: Arc<Listeners>,
    /// The pipeline as written, with the overrides applied.
    pub effective: Value,
    /// Maximum time to commit the records in flight after a signal to stop; `None` for no limit.
    pub shutdown_timeout: Option<Duration>,
    /// The line of each key, for messages.
    pub key_spans: KeySpans,
    /// The shard of the run; `None` for a run over all inputs.
    pub shard: Option<Shard>,
}

/// The maximum number of rejected records of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RejectLimits {
    /// Maximum share of the records, 0 to 1; `None` for no limit.
    pub share: Option<f64>,
    /// Maximum number of records; `None` for no limit.
    pub number: Option<u64>,
}

impl Plan {
    /// Whether a source is unbounded, so that the run ends only on request.
    pub(crate) fn is_unbounded(&self) -> bool {
        is_unbounded(&self.stages)
    }

    /// Returns the output folder of each stage.
    pub fn folders(&self) -> Vec<Option<Location>> {
        let folder = |stage: &Stage| match &stage.operator {
            StageOperator::Sink(sink, _) => sink.folder(),
            _ => None,
        };
        self.stages.iter().map(folder).collect()
    }
}
