//! Tasks of a run without an end: reloads of models and of the pipeline, and notifications to
//! systemd.

mod reload;
mod systemd;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::config::Diagnostics;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::plan::pipeline::Plan;
use crate::server::Listeners;
use crate::topology::Topology;

/// Reads the pipeline file again and plans it.
pub(crate) type LoadPlan = Box<dyn Fn() -> Result<Plan, Diagnostics> + Send + Sync>;

/// Background tasks of a run; they end when it is dropped.
pub struct Daemon {
    tasks: JoinSet<()>,
    systemd: Option<systemd::SystemdNotifier>,
}

impl Daemon {
    /// Starts the tasks of a topology that is about to run with `models`. The notifications to
    /// systemd run on `operators`, a runtime that a blocked disk does not stop.
    pub fn start(
        topology: &Topology,
        models: &[Arc<Model>],
        read: LoadPlan,
        listeners: Arc<Listeners>,
        admin: &Admin,
        metrics: &Arc<Metrics>,
        operators: &Handle,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let (reload_requests, requests) = tokio::sync::mpsc::channel(1);
        let stats = topology.stats();
        admin.attach_run(Arc::clone(&stats), Some(reload_requests));
        let reloader =
            reload::Reloader::new(read, listeners, topology.reload_handle(), models, metrics);
        tasks.spawn(reloader.run(requests));
        let systemd = systemd::SystemdNotifier::of_environment();
        if let Some(notifier) = systemd.clone() {
            tasks.spawn_on(systemd::run_watchdog(notifier, stats), operators);
        }
        Self { tasks, systemd }
    }

    /// Stops the tasks, and notifies systemd that the run is stopping.
    pub(crate) fn stopping(&mut self) {
        self.tasks.abort_all();
        if let Some(systemd) = &self.systemd {
            systemd.notify("STOPPING=1\nSTATUS=stopping: committing the records that were read");
        }
    }
}
