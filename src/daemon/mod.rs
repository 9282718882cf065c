//! What goes beside a run without an end: its models are read again when they change, and systemd
//! hears how it is.

mod reload;
mod systemd;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::plan::Plan;
use crate::server::Listeners;
use crate::config::Diagnostics;
use crate::topology::Topology;

/// Reads the pipeline file anew and plans it.
pub type LoadPlan = Box<dyn Fn() -> Result<Plan, Diagnostics> + Send + Sync>;

/// Tasks beside a run; they end when it is dropped.
pub struct Daemon {
    tasks: JoinSet<()>,
    systemd: Option<systemd::SystemdNotifier>,
}

impl Daemon {
    /// Begins, for a topology that is about to run with `models`. What systemd hears comes from
    /// `operators`, a runtime that a disk which hangs does not hold.
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
        let (reload_requests, heard) = tokio::sync::mpsc::channel(1);
        let stats = topology.stats();
        admin.attach_run(Arc::clone(&stats), Some(reload_requests));
        let reloader =
            reload::Reloader::new(read, listeners, topology.reload_handle(), models, metrics);
        tasks.spawn(reloader.run(heard));
        let systemd = systemd::SystemdNotifier::of_environment();
        if let Some(notifier) = systemd.clone() {
            tasks.spawn_on(systemd::run_watchdog(notifier, stats), operators);
        }
        Self { tasks, systemd }
    }

    /// The run has been asked to stop.
    pub fn stopping(&mut self) {
        self.tasks.abort_all();
        if let Some(systemd) = &self.systemd {
            systemd.notify("STOPPING=1\nSTATUS=finishing and committing what was read");
        }
    }
}
