//! Runs a plan. The topology owns every thread, task, channel, clock and counter; stages own none.
//!
//! ```text
//! sources -> dispatcher -> workers (the whole graph, one batch at a time) -> reorder -> sinks
//!            numbers, permits                                                in order    commit
//! ```

mod ack_tracker;
mod budget;
mod dispatcher;
mod embedded;
mod generation;
mod hot_reload;
mod inference;
mod messages;
pub(crate) mod model_log;
pub(crate) mod open;
pub mod outcome;
pub(crate) mod poison_records;
mod reject_records;
mod reorder;
pub(crate) mod run;
mod sink_runner;
mod source_readers;
pub(crate) mod telemetry;
pub(crate) mod threads;
pub(crate) mod work_queues;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::coverage::{Coverage, ResumeState};
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::RunningConfig;
use crate::plan::pipeline::{Plan, RejectLimits};
use crate::plan::stage::StageOperator;
use crate::sink::ChangePolicy;
use crate::topology::model_log::log_opened;
use crate::topology::open::{OpenSink, SinkOpener, durable_coverage};
use crate::topology::run::in_flight_budgets;

use budget::InFlightBudget;
use generation::{Generation, TransformGraph};
use reject_records::OriginalsPolicy;
use source_readers::SourceSlot;

pub(crate) use embedded::EmbeddedGraph;
pub(crate) use hot_reload::{ReloadHandle, ReloadOutcome};
pub(crate) use poison_records::clear_crash_state;
pub(crate) use telemetry::activity::{ActiveBatch, BatchRange, RecordPosition};
pub(crate) use telemetry::error_history::{ErrorSpan, ErrorSummary};
pub(crate) use telemetry::reconstruction_error::ReconstructionErrorStats;
pub(crate) use telemetry::stage_stats::StageStats;
pub use telemetry::stats::RunStats;
pub(crate) use telemetry::tap::{RecentReject, SampledImage};

/// A plan that is ready to run: its sinks are open, and the coverage of earlier runs is loaded.
pub struct Topology {
    sources: Vec<SourceSlot>,
    reload_handle: Arc<ReloadHandle>,
    sinks: Vec<OpenSink>,
    resume: ResumeState,
    budget: InFlightBudget,
    inference_budget: InFlightBudget,
    footprint: crate::plan::Footprint,
    reject_limits: RejectLimits,
    commit_age: Option<Duration>,
    workers: usize,
    stats: Arc<RunStats>,
    metrics: Arc<Metrics>,
    /// The names and folders of the sinks that write to local disks.
    folders: Vec<(Arc<str>, PathBuf)>,
}

impl Topology {
    /// Opens the sinks and loads their coverage. No source is read and no thread is started yet.
    /// `changes` decides whether a sink may append to rows that were written with a different
    /// configuration.
    ///
    /// # Errors
    /// The name of the stage that failed, and the cause.
    pub fn open(
        plan: Plan,
        metrics: Arc<Metrics>,
        changes: ChangePolicy,
    ) -> Result<Self, StageFailure> {
        let (stats, outline) = (
            Arc::new(RunStats::new(&plan, Arc::clone(&metrics))),
            RunningConfig::from_plan(&plan),
        );
        let mut graph = TransformGraph::new(&plan.stages, OriginalsPolicy::from_plan(&plan));
        let [budget, inference_budget] = in_flight_budgets(&plan, &metrics);
        metrics
            .utilization
            .memory_limit_bytes
            .set(i64::try_from(plan.memory.budget).unwrap_or(i64::MAX));
        let named = plan.stages.iter().zip(plan.folders());
        let folders = named.filter_map(|(stage, folder)| {
            Some((Arc::clone(&stage.name), folder?.local()?.to_path_buf()))
        });
        let folders: Vec<(Arc<str>, PathBuf)> = folders.collect();
        let opener = SinkOpener {
            changes,
            rejects: plan.change_policy_of_rejects(),
            mounts: plan.output_mounts(),
        };
        let (mut sources, mut sinks, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        for (at, stage) in plan.stages.into_iter().enumerate() {
            match stage.operator {
                StageOperator::Source(source, _) => sources.push(SourceSlot {
                    stage: at,
                    name: stage.name,
                    source,
                }),
                StageOperator::Transform(_) => {}
                StageOperator::Sink(sink, identity) => {
                    let (sink, history, identity) =
                        opener.open(stage.name, Some(at), sink, identity)?;
                    if let Some(encoder) = sink.writer.batch_encoder() {
                        graph.set_encoder(at, encoder);
                    }
                    let committed = history.coverage();
                    graph.already_committed[at] = committed.clone();
                    identities.push(identity);
                    sinks.push(OpenSink {
                        committed: vec![committed],
                        ..sink
                    });
                }
            }
        }
        if let Some((sink, identity)) = plan.rejects {
            let (sink, history, identity) =
                opener.open(Arc::from("rejects"), None, sink, identity)?;
            let committed = graph.rejected_before(&history, &identity);
            identities.push(identity);
            sinks.push(OpenSink { committed, ..sink });
        }
        log_opened(&plan.models);
        let resume = ResumeState {
            sinks: Arc::new(durable_coverage(&sinks)),
            state: plan.state,
        };
        for source in &sources {
            source
                .source
                .admit_inputs(&resume)
                .map_err(StageFailure::of(&source.name))?;
        }
        let Plan {
            footprint,
            reject_limits,
            commit_age,
            workers,
            ..
        } = plan;
        let reload_handle = ReloadHandle::new(
            Generation::new(0, graph, identities),
            outline,
            workers,
            &stats,
            &metrics,
        );
        Ok(Self {
            sources,
            reload_handle: Arc::new(reload_handle),
            sinks,
            resume,
            budget,
            inference_budget,
            footprint,
            reject_limits,
            commit_age,
            workers,
            stats,
            metrics,
            folders,
        })
    }

    /// The counters, which can be read while the topology runs.
    pub fn stats(&self) -> Arc<RunStats> {
        Arc::clone(&self.stats)
    }

    /// The handle that replaces models and transform options while the topology runs.
    pub(crate) fn reload_handle(&self) -> Arc<ReloadHandle> {
        Arc::clone(&self.reload_handle)
    }

    /// The number of source rows that earlier runs have committed to every sink.
    pub fn committed(&self) -> u64 {
        self.resume
            .sinks
            .iter()
            .map(Coverage::len)
            .min()
            .unwrap_or(0)
    }

    fn set_limits(&self, capacity: usize) {
        let load = &self.metrics.utilization;
        load.workers
            .set(i64::try_from(self.workers).unwrap_or(i64::MAX));
        load.queue_limit
            .with_label_values(&["work"])
            .set(i64::try_from(capacity).unwrap_or(i64::MAX));
    }
}
