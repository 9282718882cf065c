//! A pipeline resolved: every stage known, every edge's schema fixed, every model opened. A plan
//! cannot be wrong.

mod admission;
mod fingerprint;
mod fingerprint_v0;
mod graph;
mod stage_identity;
mod memory;
mod display;
mod reload_diff;
mod stages;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::error::{ConfigError, StageError};
use crate::metrics::Metrics;
use crate::model::{self, Model, ModelSpec, RuntimeSpec};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry;
use crate::server::Listeners;
use crate::sink::{OutputIdentity, STATE_DIR, Sink, rejects_dataset};
use crate::source::{BatchSize, Source};
use crate::config::{AdminSettings, Diagnostics, PipelineConfig};
use crate::storage::Location;
use crate::system;
use crate::transform::TransformPlan;
use crate::units::HumanDuration;

use memory::{MemoryAllocation, MemoryRequirements};

pub use display::GraphFormat;
pub use memory::{Footprint, MemoryEstimate};
pub use reload_diff::{RunningConfig, changes_requiring_restart};

/// A pipeline that is ready to run.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Every stage, inputs before those that take them.
    pub stages: Vec<Stage>,
    /// Every model that was declared.
    pub models: Vec<Arc<Model>>,
    /// Bounds on records.
    pub limits: PipelineLimits,
    /// Workers that carry batches through the graph.
    pub workers: usize,
    /// What a batch costs while it is in flight.
    pub footprint: Footprint,
    /// What the run may take in all, predicted.
    pub memory: MemoryEstimate,
    /// Where journals are kept; `None` where no sink is durable.
    pub state: Option<Location>,
    /// Where rejects go; `None` where no sink is durable and no place is named: then they are only
    /// counted.
    pub rejects: Option<(Box<dyn Sink>, OutputIdentity)>,
    /// Whether the original of each reject is kept.
    pub keeps_originals: bool,
    /// How many records may be rejected.
    pub reject_limits: RejectLimits,
    /// How long a record may wait to be committed; `None`: until a file is full, or the end.
    pub commit_age: Option<Duration>,
    /// How metrics and health are served.
    pub admin: AdminSettings,
    /// What the listeners of the run share.
    pub listeners: Arc<Listeners>,
    /// The pipeline as it was written.
    pub effective: Value,
    /// How long a run that is asked to stop may take to finish what it has begun; `None`: as long
    /// as that takes.
    pub shutdown_timeout: Option<Duration>,
}

/// How many records of a run may be rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RejectLimits {
    /// The share of them, 0 to 1; `None`: any.
    pub share: Option<f64>,
    /// Their number; `None`: any.
    pub number: Option<u64>,
}

/// A stage of a plan.
pub struct Stage {
    /// Its name in the pipeline.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// The places of its inputs in [`Plan::stages`], as declared.
    pub inputs: Vec<usize>,
    /// What it does.
    pub role: StageRole,
}

/// What a stage does.
pub enum StageRole {
    /// It gives records.
    Source(Box<dyn Source>, BatchSize),
    /// It changes them.
    Transform(Arc<dyn TransformPlan>),
    /// It keeps them.
    Sink(Box<dyn Sink>, OutputIdentity),
}

impl Stage {
    /// The columns of what comes out; `None` for a sink.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.role {
            StageRole::Source(source, _) => Some(source.schema()),
            StageRole::Transform(transform) => Some(transform.schema()),
            StageRole::Sink(..) => None,
        }
    }
}

impl Plan {
    /// Whether it runs until it is told to stop.
    pub fn is_unbounded(&self) -> bool {
        is_unbounded(&self.stages)
    }

    /// Lists the inputs of every source, so that the plan shows what they pass over. Returns those
    /// that cannot be listed now.
    #[must_use]
    pub fn list_inputs(&self) -> Vec<(Arc<str>, StageError)> {
        let list = |stage: &Stage| match &stage.role {
            StageRole::Source(source, _) => Some((Arc::clone(&stage.name), source.inputs().err()?)),
            StageRole::Transform(_) | StageRole::Sink(..) => None,
        };
        self.stages.iter().filter_map(list).collect()
    }

    /// Per stage, the folder that it writes.
    pub fn folders(&self) -> Vec<Option<Location>> {
        let folder = |stage: &Stage| match &stage.role {
            StageRole::Sink(sink, _) => sink.folder(),
            _ => None,
        };
        self.stages.iter().map(folder).collect()
    }
}

fn is_unbounded(stages: &[Stage]) -> bool {
    stages
        .iter()
        .any(|stage| matches!(&stage.role, StageRole::Source(source, _) if source.is_unbounded()))
}

/// The kind of source that reads a dataset of rejects.
const REPLAY: &str = "rejects";

/// How long a record waits to be committed where sources have no end.
const COMMIT_AGE: Duration = Duration::from_secs(60);
/// How long such a run may take to finish when it is asked to stop; less than what systemd and
/// Kubernetes wait.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Batches in flight per worker, beside two that wait: one is worked on, one is in the sinks'
/// hands.
const SLOTS_PER_WORKER: usize = 2;

/// Batches that may be in flight with so many workers.
pub fn max_in_flight_batches(workers: usize) -> usize {
    workers * SLOTS_PER_WORKER + 2
}

/// Resolves a pipeline.
///
/// # Errors
/// Every fault that could be found: all unknown keys, at least one fault of each table, every fault
/// between stages.
pub fn resolve(spec: PipelineConfig, metrics: &Arc<Metrics>) -> Result<Plan, Diagnostics> {
    let mut faults = Vec::new();
    let within = |found: Vec<ConfigError>, key: &str| {
        found
            .into_iter()
            .map(|fault| fault.within(key))
            .collect::<Vec<_>>()
    };
    let (limits, found) =
        registry::parse_options_lenient::<PipelineLimits>(spec.settings.limits.clone());
    faults.extend(within(found, "limits"));
    let (runtime, found) =
        registry::parse_options_lenient::<RuntimeSpec>(spec.settings.runtime.clone());
    faults.extend(within(found, "runtime"));
    let runtime = runtime.unwrap_or_default();
    let models = open_models(&spec, &runtime, metrics, &mut faults);
    let mut context = PlanContext {
        metrics: Arc::clone(metrics),
        ..PlanContext::new(models, limits.unwrap_or_default())
    };
    let mut planned = stages::plan(&spec, &context, None, &mut faults);
    let needs = MemoryRequirements::of(&planned, &context);
    // Where workers wait for a device, others decode.
    let per_core = if runtime.shares_sessions() { 2 } else { 1 };
    let workers = spec
        .settings
        .workers
        .map_or(per_core * system::available_cores(), |workers| {
            usize::from(workers.get())
        });
    let share = needs
        .share(context.limits.memory, workers)
        .map_err(|fault| faults.push(fault.within("limits")))
        .ok();
    if let (Some(share), Some(_), true) = (&share, context.limits.memory, faults.is_empty()) {
        // What is planned already is planned for any memory: once more, for the memory that there
        // is.
        context.limits = share.limits(context.limits);
        planned = stages::plan(&spec, &context, Some(share.most()), &mut faults);
    }
    match share {
        Some(share) if faults.is_empty() => {
            let places = spec.key_spans.clone();
            assemble(spec, context, planned, share)
                .map_err(|faults| Diagnostics::new(&places, faults))
        }
        _ => Err(Diagnostics::new(&spec.key_spans, faults)),
    }
}

/// As [`resolve`], for a pipeline that was read with faults: tells those of its sound parts too.
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

/// Which ONNX Runtime the models of a pipeline need to have loaded, by where it is found; `None`
/// where it has none. Nothing is loaded.
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
                opened
                    .map_err(|faults| found.extend(faults))
                    .ok()
                    .map(Arc::new)
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
    share: MemoryAllocation,
) -> Result<Plan, Vec<ConfigError>> {
    let folder = stages.iter().find_map(|stage| match &stage.role {
        StageRole::Sink(sink, _) => sink.folder().map(|folder| folder.join(STATE_DIR)),
        _ => None,
    });
    let mut faults = Vec::new();
    let mut place = |path: &PathBuf, key: &str| {
        Location::from_path(path)
            .map_err(|message| faults.push(ConfigError::new(key, message)))
            .ok()
    };
    let written = spec
        .settings
        .state
        .as_ref()
        .and_then(|path| place(path, "state"));
    let state = written.or(folder);
    let written = spec
        .settings
        .rejects
        .path
        .as_ref()
        .and_then(|path| place(path, "rejects.path"));
    let rejects_folder = written.or_else(|| Some(state.as_ref()?.join("rejects")));
    let endless = is_unbounded(&stages);
    if endless && state.as_ref().and_then(Location::local).is_none() {
        let message = "a source without an end keeps a journal on a disk of this machine: write `state = \"some/folder\"` at \
                       the top of the pipeline";
        faults.push(ConfigError::new("state", message));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let models: Vec<Arc<Model>> = context.models.into_values().flatten().collect();
    let plan_rejects = |folder: Location| {
        Ok((
            rejects_dataset::plan(&folder)?,
            rejects_identity(&spec.name, &stages),
        ))
    };
    let rejects = rejects_folder.map(plan_rejects).transpose();
    let within = |faults: Vec<ConfigError>| {
        faults
            .into_iter()
            .map(|fault| fault.within("rejects"))
            .collect::<Vec<_>>()
    };
    let rejects = rejects.map_err(within)?;
    let kept = rejects.as_ref().map(|(sink, _)| sink.as_ref());
    // Rejects that are replayed may be rejected again, into the same dataset.
    let others = stages.iter().filter(|stage| stage.kind != REPLAY);
    let taken = kept
        .into_iter()
        .flat_map(|sink| stages::taken_as_input(sink, others.clone()));
    let faults: Vec<ConfigError> = taken
        .map(|message| ConfigError::new("rejects.path", message))
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let or_endless = |written: Option<HumanDuration>, default| {
        written.map(|span| span.0).or(endless.then_some(default))
    };
    let commit_age = or_endless(spec.settings.commit.age, COMMIT_AGE);
    let shutdown_timeout = or_endless(spec.settings.shutdown.grace, SHUTDOWN_TIMEOUT);
    let memory = memory::predict(&stages, kept, &share, context.limits);
    Ok(Plan {
        name: spec.name,
        stages,
        models,
        limits: context.limits,
        workers: share.workers,
        footprint: share.requirements.footprint,
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
    })
}

/// Every stage can reject, so the rejects lie behind all of them; each belongs to one, and is
/// judged by it.
fn rejects_identity(pipeline: &str, stages: &[Stage]) -> OutputIdentity {
    let sinks = stages.iter().filter_map(|stage| match &stage.role {
        StageRole::Sink(sink, identity) => {
            Some((&*stage.name, identity, sink.batch_encoder().is_some()))
        }
        _ => None,
    });
    let mut identity = OutputIdentity {
        pipeline: pipeline.to_owned(),
        stage: "rejects".to_owned(),
        ..OutputIdentity::default()
    };
    for (sink, upstream, refuses) in sinks {
        let own = upstream.stages.get(sink).filter(|_| refuses);
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
