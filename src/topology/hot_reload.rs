//! Hot reload: builds the next generation of a running topology, which then processes all batches
//! from one batch number on.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::generation::{Generation, TransformGraph};
use super::telemetry::stats::RunStats;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::pipeline::Plan;
use crate::plan::stage::StageOperator;
use crate::plan::{RunningConfig, changes_requiring_restart};
use crate::sink::OutputIdentity;

/// Replaces the models and transform options of a running topology.
pub(crate) struct ReloadHandle {
    current: watch::Sender<Arc<Generation>>,
    running: Mutex<RunningConfig>,
    workers: usize,
    stats: Arc<RunStats>,
    metrics: Arc<Metrics>,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// The next batch is processed by the new generation, which has this number.
    Applied(u64),
    /// The plan has the models and options that are in use.
    Unchanged,
}

impl ReloadHandle {
    pub(super) fn new(
        first: Generation,
        outline: RunningConfig,
        workers: usize,
        stats: &Arc<RunStats>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (stats, metrics) = (Arc::clone(stats), Arc::clone(metrics));
        Self {
            current: watch::Sender::new(Arc::new(first)),
            running: Mutex::new(outline),
            workers,
            stats,
            metrics,
        }
    }

    pub(super) fn generations(&self) -> watch::Receiver<Arc<Generation>> {
        self.current.subscribe()
    }

    /// Switches to the models and options of `plan`. The transforms of every worker are first built
    /// and warmed up, so that batches do not wait for this. Until then, and after an error, the
    /// present generation stays in use.
    ///
    /// # Errors
    /// As sentences: the changes that require a restart, or the reason why a stage cannot be built.
    pub fn reload(&self, plan: &Plan) -> Result<ReloadOutcome, Vec<String>> {
        // The lock serializes reloads.
        let mut outline = self.running.lock();
        let reasons = changes_requiring_restart(&outline, plan);
        if !reasons.is_empty() {
            return Err(reasons
                .into_iter()
                .map(|reason| format!("{reason}; this change requires a restart"))
                .collect());
        }
        let running = Arc::clone(&self.current.borrow());
        // The rejects follow from the stages of the sinks, and from the sinks, which cannot change.
        if sink_identities(plan)
            .zip(&running.identities)
            .all(|(next, running)| next.has_same_meaning(running))
        {
            *outline = RunningConfig::from_plan(plan);
            return Ok(ReloadOutcome::Unchanged);
        }
        let mut graph = TransformGraph::new(&plan.stages, running.graph.keeps_rejects);
        graph.inherit_sinks(&running.graph);
        let rejects = plan.rejects.iter().map(|(_, identity)| identity);
        let identities = sink_identities(plan).chain(rejects).cloned().collect();
        let next = Generation::new(running.number + 1, graph, identities);
        for _ in 0..self.workers {
            let ready = next
                .graph
                .build_warm()
                .map_err(|StageFailure { stage, error }| vec![format!("{stage}: {error}")])?;
            next.put_back(ready);
        }
        let number = next.number;
        super::model_log::log_opened(&plan.models);
        super::model_log::log_closed(&self.stats.models());
        self.stats.set_reference(&plan.models);
        self.metrics
            .models
            .generation
            .set(i64::try_from(number).unwrap_or(i64::MAX));
        *outline = RunningConfig::from_plan(plan);
        self.current.send_replace(Arc::new(next));
        Ok(ReloadOutcome::Applied(number))
    }
}

/// The output identities of the sinks of a plan, in the order of the outputs of a batch.
fn sink_identities(plan: &Plan) -> impl Iterator<Item = &OutputIdentity> {
    plan.stages
        .iter()
        .filter_map(|stage| match &stage.operator {
            StageOperator::Sink(_, identity) => Some(identity),
            _ => None,
        })
}
