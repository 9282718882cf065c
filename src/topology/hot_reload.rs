//! Exchanges the models of a running topology: makes the next ones ready, then has batches take
//! them from some number on.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::generation::{Generation, TransformGraph};
use super::stats::RunStats;
use crate::metrics::Metrics;
use crate::plan::{Plan, RunningConfig, StageRole, changes_requiring_restart};
use crate::sink::OutputIdentity;

/// The way to exchange models while they are at work.
pub struct ReloadHandle {
    current: watch::Sender<Arc<Generation>>,
    running: Mutex<RunningConfig>,
    workers: usize,
    stats: Arc<RunStats>,
    metrics: Arc<Metrics>,
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The next batch goes through the new models; so often were they exchanged by now.
    Applied(u64),
    /// They are those that are at work already.
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

    /// Goes over to the models and options of `plan`: opens a session for every worker and warms it
    /// up first, so that no batch waits for that. Until then, and where anything is wrong, those
    /// before go on.
    ///
    /// # Errors
    /// In sentences: what cannot be changed while it runs, or why a model cannot be used.
    pub fn reload(&self, plan: &Plan) -> Result<ReloadOutcome, Vec<String>> {
        // One at a time.
        let mut outline = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = changes_requiring_restart(&outline, plan);
        if !reasons.is_empty() {
            return Err(reasons
                .into_iter()
                .map(|reason| format!("{reason}: that needs a restart"))
                .collect());
        }
        let running = Arc::clone(&self.current.borrow());
        let identities = identities(plan);
        if identities.len() == running.identities.len()
            && identities
                .iter()
                .zip(&running.identities)
                .all(|(next, running)| next.means(running))
        {
            *outline = RunningConfig::of(plan);
            return Ok(ReloadOutcome::Unchanged);
        }
        let mut graph = TransformGraph::new(&plan.stages, running.graph.keeps_rejects);
        graph
            .already_committed
            .clone_from(&running.graph.already_committed);
        graph.rejected.clone_from(&running.graph.rejected);
        let next = Generation::new(running.number + 1, graph, identities);
        for _ in 0..self.workers {
            let ready = next
                .graph
                .build_warm()
                .map_err(|(stage, error)| vec![format!("{stage}: {error}")])?;
            next.put_back(ready);
        }
        let number = next.number;
        self.stats.set_reference(&plan.models);
        self.metrics
            .models
            .generation
            .set(i64::try_from(number).unwrap_or(i64::MAX));
        *outline = RunningConfig::of(plan);
        self.current.send_replace(Arc::new(next));
        Ok(ReloadOutcome::Applied(number))
    }
}

/// Who the sinks of a plan write as, in the order of the outputs of a batch.
fn identities(plan: &Plan) -> Vec<OutputIdentity> {
    let sinks = plan.stages.iter().filter_map(|stage| match &stage.role {
        StageRole::Sink(_, identity) => Some(identity.clone()),
        _ => None,
    });
    sinks
        .chain(plan.rejects.iter().map(|(_, identity)| identity.clone()))
        .collect()
}
