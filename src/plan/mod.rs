//! A resolved pipeline: every stage is planned, the schema of every edge is fixed, and every model
//! is opened. [`resolve`] validates the pipeline across stages, and calls the planning function of
//! each stage, which validates its options. A plan has no faults.

mod admission;
mod display;
mod embedded;
mod fingerprint;
pub(crate) mod fingerprint_input;
mod fingerprint_v0;
pub mod footprint;
mod graph;
mod kinds;
mod memory;
pub mod models;
pub mod pipeline;
mod reload_diff;
pub mod stage;
mod stage_identity;
mod stages;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::config::Diagnostics;
use crate::config::settings::PipelineConfig;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::metrics::Metrics;
use crate::model::{Model, RuntimeSpec};
use crate::plan::memory::estimate::predict;
use crate::plan::models::open_models;
use crate::plan::pipeline::{Plan, RejectLimits};
use crate::plan::stage::{Stage, StageOperator, is_unbounded};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::sink::dataset::rejects;
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;
use crate::units::HumanDuration;
use crate::{registry, system};

use memory::{MemoryAllocation, MemoryRequirements};

pub use crate::plan::footprint::Footprint;
pub use crate::plan::memory::estimate::MemoryEstimate;
pub(crate) use display::GraphFormat;
pub use embedded::EmbeddedEnds;
pub(crate) use embedded::{EmbeddedModelFiles, EmbeddedPlan, resolve_embedded};
pub use kinds::Kinds;
pub(crate) use reload_diff::{RunningConfig, changes_requiring_restart};

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
    resolve_with_kinds(spec, &Kinds::default(), metrics)
}

/// As [`resolve`], for stages of these kinds.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with_kinds(
    spec: PipelineConfig,
    kinds: &Kinds,
    metrics: &Arc<Metrics>,
) -> Result<Plan, Diagnostics> {
    resolve_for(spec, kinds, metrics, None)
}

/// As [`resolve`], for records that an embedding program supplies with the columns `supplied`.
fn resolve_for(
    spec: PipelineConfig,
    kinds: &Kinds,
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
    let mut planned = stages::plan(&spec, kinds, &context, None, &mut faults);
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
        planned = stages::plan(
            &spec,
            kinds,
            &context,
            Some(allocation.batch_cap()),
            &mut faults,
        );
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
        faults.record(location.map_err(|error| error.at(key)))
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
            rejects::plan(&location)?,
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
    let others = stages.iter().filter(|stage| match &stage.operator {
        StageOperator::Source(source, _) => !source.reads_rejects(),
        _ => true,
    });
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
    let memory = predict(&stages, rejects_sink, &allocation, context.limits);
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
    identity.digest = crate::plan::fingerprint_input::of_parts(digests);
    identity
}
