//! A resolved pipeline: every stage is planned, the schema of every edge is fixed, and every model
//! is opened. [`resolve`] validates the pipeline across stages, and calls the planning function of
//! each stage, which validates its options. A plan has no faults.

mod admission;
mod fingerprint;
mod fingerprint_v0;
mod graph;
mod stage_identity;
mod memory;
mod display;
mod embedded;
mod reload_diff;
mod stages;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde::Serialize;
use serde_json::Value;

use crate::config::{AdminSettings, Diagnostics, KeySpans, PipelineConfig};
use crate::error::{ConfigError, RecordFaults};
use crate::metrics::Metrics;
use crate::model::{self, Model, ModelSpec, RuntimeSpec};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry;
use crate::server::Listeners;
use crate::shard::Shard;
use crate::sink::{OutputIdentity, STATE_DIR, Sink, rejects_dataset};
use crate::source::{BatchSize, Source};
use crate::storage::Location;
use crate::system;
use crate::transform::TransformPlan;
use crate::units::HumanDuration;

use memory::{MemoryAllocation, MemoryRequirements};

pub use display::GraphFormat;
pub use embedded::{EmbeddedEnds, EmbeddedModelFiles, EmbeddedPlan, resolve_embedded};
pub use memory::{Footprint, MemoryEstimate};
pub use reload_diff::{RunningConfig, changes_requiring_restart};

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

/// A stage of a plan.
pub struct Stage {
    /// The name of the stage.
    pub name: Arc<str>,
    /// The kind of the stage.
    pub kind: &'static str,
    /// The positions of the inputs in [`Plan::stages`], as declared.
    pub inputs: Vec<usize>,
    /// The planned operator, which a run opens.
    pub operator: StageOperator,
}

/// The role of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRole {
    /// Reads records.
    Source,
    /// Processes records.
    Transform,
    /// Writes records.
    Sink,
}

impl StageRole {
    /// Returns the name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }
}

/// The planned operator of a stage.
pub enum StageOperator {
    /// Reads records.
    Source(Box<dyn Source>, BatchSize),
    /// Processes records.
    Transform(Arc<dyn TransformPlan>),
    /// Writes records.
    Sink(Box<dyn Sink>, OutputIdentity),
}

impl Stage {
    /// Returns the role.
    pub fn role(&self) -> StageRole {
        match &self.operator {
            StageOperator::Source(..) => StageRole::Source,
            StageOperator::Transform(_) => StageRole::Transform,
            StageOperator::Sink(..) => StageRole::Sink,
        }
    }

    /// Returns the output columns; `None` for a sink.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.operator {
            StageOperator::Source(source, _) => Some(source.schema()),
            StageOperator::Transform(transform) => Some(transform.schema()),
            StageOperator::Sink(..) => None,
        }
    }
}

impl Plan {
    /// Whether a source is unbounded, so that the run ends only on request.
    pub fn is_unbounded(&self) -> bool {
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

fn is_unbounded(stages: &[Stage]) -> bool {
    stages
        .iter()
        .any(|stage| matches!(&stage.operator, StageOperator::Source(source, _) if source.is_unbounded()))
}

/// The kind of source that reads a dataset of rejects.
const REPLAY: &str = "rejects";

/// The default maximum age of an uncommitted record with an unbounded source.
const COMMIT_AGE: Duration = Duration::from_secs(60);
/// The default shutdown timeout with an unbounded source; less than the timeouts of systemd and
/// Kubernetes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Number of batches in flight per worker: one that the worker processes, and one that the sinks
/// write. Two more batches wait for a worker.
const SLOTS_PER_WORKER: usize = 2;

/// Returns the maximum number of batches in flight.
pub fn max_in_flight_batches(workers: usize) -> usize {
    workers * SLOTS_PER_WORKER + 2
}

/// Resolves a pipeline.
///
/// # Errors
/// All faults that can be found: every unknown key, at least one fault of each invalid table, and
/// every fault between stages.
pub fn resolve(spec: PipelineConfig, metrics: &Arc<Metrics>) -> Result<Plan, Diagnostics> {
    resolve_for(spec, metrics, None)
}

/// As [`resolve`], for records that an embedding program supplies with the columns `supplied`.
fn resolve_for(
    spec: PipelineConfig,
    metrics: &Arc<Metrics>,
    supplied: Option<SchemaRef>,
) -> Result<Plan, Diagnostics> {
    let mut faults = Vec::new();
    let within = |found: Vec<ConfigError>, key: &str| {
        found
            .into_iter()
            .map(|fault| fault.within(key))
            .collect::<Vec<_>>()
    };
    let (limits, limit_faults) =
        registry::parse_options_lenient::<PipelineLimits>(spec.settings.limits.clone());
    faults.extend(within(limit_faults, "limits"));
    let (runtime, runtime_faults) =
        registry::parse_options_lenient::<RuntimeSpec>(spec.settings.runtime.clone());
    faults.extend(within(runtime_faults, "runtime"));
    let runtime = runtime.unwrap_or_default();
    let models = open_models(&spec, &runtime, metrics, &mut faults);
    let mut context = PlanContext {
        metrics: Arc::clone(metrics),
        supplied,
        shard: spec.shard,
        ..PlanContext::new(models, limits.unwrap_or_default())
    };
    let mut planned = stages::plan(&spec, &context, None, &mut faults);
    let requirements = MemoryRequirements::from_stages(&planned, &context);
    // While some workers wait for a device, the others decode.
    let per_core = if runtime.shares_sessions() { 2 } else { 1 };
    let workers = spec
        .settings
        .workers
        .map_or(per_core * system::available_cores(), |workers| {
            usize::from(workers.get())
        });
    let allocation = faults.record(
        requirements
            .allocate(context.limits.memory, workers)
            .map_err(|fault| fault.within("limits")),
    );
    if let (Some(allocation), Some(_), true) =
        (&allocation, context.limits.memory, faults.is_empty())
    {
        // The stages were planned for unlimited memory, so they are planned again.
        context.limits = allocation.limits(context.limits);
        planned = stages::plan(&spec, &context, Some(allocation.batch_cap()), &mut faults);
    }
    match allocation {
        Some(allocation) if faults.is_empty() => {
            let key_spans = spec.key_spans.clone();
            assemble(spec, context, planned, allocation)
                .map_err(|found| Diagnostics::new(&key_spans, found))
        }
        _ => Err(Diagnostics::new(&spec.key_spans, faults)),
    }
}

/// Resolves a pipeline. If it was read with faults, the faults of its valid part are added.
pub fn check(
    outcome: Result<PipelineConfig, Diagnostics>,
    metrics: &Arc<Metrics>,
) -> Result<Plan, Diagnostics> {
    outcome
        .and_then(|spec| resolve(spec, metrics))
        .map_err(
            |mut problems| match problems.take_partial().map(|spec| resolve(spec, metrics)) {
                Some(Err(more)) => problems.and(more),
                _ => problems,
            },
        )
}

/// Describes where the ONNX Runtime library of a pipeline is found, without loading it; `None` for
/// a pipeline without models.
pub fn library(read: &Result<PipelineConfig, Diagnostics>) -> Option<String> {
    let spec = read.as_ref().map_or_else(Diagnostics::partial_spec, Some)?;
    let (runtime, _) =
        registry::parse_options_lenient::<RuntimeSpec>(spec.settings.runtime.clone());
    if spec.models.is_empty() {
        None
    } else {
        model::ort_library::library(&runtime.unwrap_or_default())
    }
}

fn open_models(
    spec: &PipelineConfig,
    runtime: &RuntimeSpec,
    metrics: &Arc<Metrics>,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, Option<Arc<Model>>> {
    let mut models = BTreeMap::new();
    let ready = if spec.models.is_empty() {
        Ok(())
    } else {
        model::ort_library::init(runtime)
    };
    if let Err(fault) = &ready {
        faults.push(fault.clone().within("runtime"));
    }
    for table in &spec.models {
        let (written, mut found) =
            registry::parse_options_lenient::<ModelSpec>(table.options.clone());
        let opened = match written {
            Some(written) if ready.is_ok() => {
                let opened = Model::open(&table.name, &written, runtime, metrics);
                found.record_all(opened).map(Arc::new)
            }
            _ => None,
        };
        let key = format!("models.{}", table.name);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
        models.insert(table.name.clone(), opened);
    }
    models
}

fn assemble(
    spec: PipelineConfig,
    context: PlanContext,
    stages: Vec<Stage>,
    allocation: MemoryAllocation,
) -> Result<Plan, Vec<ConfigError>> {
    let folder = stages.iter().find_map(|stage| match &stage.operator {
        StageOperator::Sink(sink, _) => sink.folder().map(|folder| folder.join(STATE_DIR)),
        _ => None,
    });
    let mut faults = Vec::new();
    let mut parse_location = |path: &PathBuf, key: &str| {
        let location = context.output_folder(path);
        faults.record(location.map_err(|message| ConfigError::new(key, message)))
    };
    let state = spec
        .settings
        .state
        .as_ref()
        .and_then(|path| parse_location(path, "state"))
        .or(folder);
    let rejects_folder = spec
        .settings
        .rejects
        .path
        .as_ref()
        .and_then(|path| parse_location(path, "rejects.path"))
        .or_else(|| Some(state.as_ref()?.join("rejects")));
    let is_unbounded = is_unbounded(&stages);
    if is_unbounded && state.as_ref().and_then(Location::local).is_none() {
        let message = "an unbounded source requires a local folder for its journal; set \
                       `state = \"some/folder\"` at the top of the pipeline";
        faults.push(ConfigError::new("state", message));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let models: Vec<Arc<Model>> = context.models.into_values().flatten().collect();
    let plan_rejects = |location: Location| {
        Ok((
            rejects_dataset::plan(&location)?,
            rejects_identity(&spec.name, &stages),
        ))
    };
    let rejects = rejects_folder.map(plan_rejects).transpose();
    let within = |found: Vec<ConfigError>| {
        found
            .into_iter()
            .map(|fault| fault.within("rejects"))
            .collect::<Vec<_>>()
    };
    let rejects = rejects.map_err(within)?;
    let rejects_sink = rejects.as_ref().map(|(sink, _)| sink.as_ref());
    // A replay may write its own rejects to the dataset that it reads.
    let others = stages.iter().filter(|stage| stage.kind != REPLAY);
    let conflicts = rejects_sink
        .into_iter()
        .flat_map(|sink| stages::output_conflicts(sink, others.clone()));
    let conflict_faults: Vec<ConfigError> = conflicts
        .map(|message| ConfigError::new("rejects.path", message))
        .collect();
    if !conflict_faults.is_empty() {
        return Err(conflict_faults);
    }
    let or_default = |written: Option<HumanDuration>, unbounded_default| {
        written
            .map(|duration| duration.0)
            .or(is_unbounded.then_some(unbounded_default))
    };
    let commit_age = or_default(spec.settings.commit.age, COMMIT_AGE);
    let shutdown_timeout = or_default(spec.settings.shutdown.grace, SHUTDOWN_TIMEOUT);
    let memory = memory::predict(&stages, rejects_sink, &allocation, context.limits);
    Ok(Plan {
        name: spec.name,
        stages,
        models,
        limits: context.limits,
        workers: allocation.workers,
        footprint: allocation.requirements.footprint,
        memory,
        state,
        rejects,
        keeps_originals: spec.settings.rejects.record,
        reject_limits: RejectLimits {
            share: spec.settings.rejects.max_share,
            number: spec.settings.rejects.max,
        },
        commit_age,
        shutdown_timeout,
        admin: spec.settings.admin,
        listeners: context.listeners,
        effective: spec.effective,
        key_spans: spec.key_spans,
        shard: spec.shard,
    })
}

/// Returns the identity of the rejects. Every stage can reject records, so the rejects are
/// downstream of all stages. Each reject belongs to one stage and is recognized by the identity of
/// that stage.
fn rejects_identity(pipeline: &str, stages: &[Stage]) -> OutputIdentity {
    let sinks = stages.iter().filter_map(|stage| match &stage.operator {
        StageOperator::Sink(sink, identity) => Some((&*stage.name, identity, sink.can_reject())),
        _ => None,
    });
    let mut identity = OutputIdentity {
        pipeline: pipeline.to_owned(),
        stage: "rejects".to_owned(),
        ..OutputIdentity::default()
    };
    for (sink, upstream, can_reject) in sinks {
        let own = upstream.stages.get(sink).filter(|_| can_reject);
        identity
            .sinks
            .extend(own.map(|own| (sink.to_owned(), own.clone())));
        let before = upstream.stages.iter().filter(|(name, _)| *name != sink);
        identity
            .stages
            .extend(before.map(|(name, stage)| (name.clone(), stage.clone())));
        identity.models.extend(upstream.models.clone());
    }
    let all = identity.stages.iter().chain(&identity.sinks);
    let digests = all.flat_map(|(name, stage)| [name.as_str(), &stage.digest]);
    identity.digest = fingerprint::of_parts(digests);
    identity
}
