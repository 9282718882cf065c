//! `latentflow run`: carries a pipeline out, shows how it goes, and says what came of it.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::runtime::Handle;

use super::log::{self, LogFormat};
use super::progress::ProgressDisplay;
use super::stderr;
use super::summary::RunSummary;
use super::time_profile::TimeProfile;
use super::{ExitCode, PipelineArgs, print_error, print_json, stage_error};
use crate::admin::Admin;
use crate::daemon::Daemon;
use crate::error::StageError;
use crate::file_descriptors;
use crate::metrics::Metrics;
use crate::plan::{Plan, RejectLimits};
use crate::sink::ChangePolicy;
use crate::storage::outage;
use crate::system;
use crate::topology::{self, RunOutcome, RunStats, Topology};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Workers, each with its own ONNX sessions. Default: as the pipeline says, or the cores at
    /// hand.
    #[arg(long, value_name = "N")]
    workers: Option<std::num::NonZeroU16>,
    /// Take the first N records that are not done yet, then stop.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,
    /// Go on where an output holds rows that other stages, options or models have made: both kinds
    /// will lie there beside each other. Each file's footer says which it holds.
    #[arg(long)]
    allow_change: bool,
    /// Accept folders as they are, though the disks are not mounted that earlier runs met there:
    /// the folder of a source is read, and an output starts over in its folder.
    #[arg(long)]
    start_over: bool,
    /// Serve metrics and health while it runs, such as 127.0.0.1:9464. Default: `admin.listen` of
    /// the pipeline. An address that other machines can reach needs `admin.token` or
    /// `admin.allow_unauthenticated`, also by --set.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// How the summary at the end looks: a table on standard error, or JSON on standard output.
    #[arg(long, value_enum, default_value_t = SummaryFormat::Table)]
    summary: SummaryFormat,
    /// Say where the time went: who was at work, who waited for whom, and what held the run up.
    #[arg(long)]
    profile: bool,
    /// How progress and log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  latentflow run pipelines/quickstart.toml
  latentflow run photos.toml --limit 100 --summary json
  latentflow run photos.toml --workers 4 --metrics 127.0.0.1:9464
  latentflow run photos.toml --limit 10000 --profile  where the time goes

Ctrl-C or SIGTERM: what was read is finished and committed, exit code 4; run again to go on. A source without an end
has nothing left to go on with: exit code 0.
A second one stops at once; what was not committed is done again by the next run.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    Table,
    Json,
    None,
}

impl RunCommand {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        log::start(self.log_format);
        if let Some(workers) = self.workers {
            self.pipeline.set.push(format!("workers={workers}"));
        }
        if let Some(address) = self.metrics {
            self.pipeline.set.push(format!("admin.listen={address}"));
        }
        let metrics = Arc::new(Metrics::new());
        stderr::count_lost_lines(&metrics.lost_log_lines);
        let plan = self.pipeline.plan(&metrics)?;
        if let Some(warning) = plan.memory.warning(system::cgroup_memory_limit()) {
            tracing::warn!("{warning}");
        }
        if plan.is_unbounded() {
            file_descriptors::wait_for_free();
        }
        // The work is done by threads of its own; this runtime only passes messages. What clients
        // send is parsed on further threads, which a busy machine would else have by the hundred,
        // each with memory that it does not give back.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(2)
            .max_blocking_threads(8 + 2 * system::available_cores())
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start the runtime")?;
        // Operators and signals are answered while a disk holds all threads of the run.
        let operators = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let operators = operators.context("cannot start the runtime")?;
        let exit = runtime.block_on(self.execute(plan, metrics, operators.handle()));
        // A reader that blocks (a network file system) must not keep the process from ending.
        runtime.shutdown_background();
        operators.shutdown_background();
        exit
    }

    async fn execute(
        self,
        plan: Plan,
        metrics: Arc<Metrics>,
        operators: &Handle,
    ) -> anyhow::Result<ExitCode> {
        let admin = Admin::new(Arc::clone(&metrics));
        let listeners = Arc::clone(&plan.listeners);
        let url = {
            let _runtime = operators.enter();
            admin
                .serve(&plan.admin, &listeners)
                .map_err(|error| anyhow!("admin: {error}"))?
        };
        if let Some(url) = url {
            tracing::info!("metrics at {url}/metrics");
        }
        tokio::spawn(listeners.watch());
        let (name, allowed, endless, grace) = (
            plan.name.clone(),
            plan.reject_limits,
            plan.is_unbounded(),
            plan.shutdown_timeout,
        );
        let folders = plan
            .folders()
            .into_iter()
            .map(|folder| Some(folder?.to_path()))
            .collect();
        let models = plan.models.clone();
        let changes = ChangePolicy::allowed(self.allow_change, endless);
        if self.start_over {
            topology::start_over(&plan)?;
        }
        plan.admit_before_claims(changes).map_err(stage_error)?;
        let topology = Topology::open(plan, Arc::clone(&metrics), changes);
        let topology = topology.map_err(stage_error)?;
        let stats = topology.stats();
        let before = topology.committed();
        if before > 0 {
            tracing::info!("{before} records were done by earlier runs");
        }
        if endless {
            outage::begin_to_wait(&metrics.commits.waiting_for_store);
        }
        let progress = ProgressDisplay::start(self.log_format, Arc::clone(&stats));
        let mut daemon = if endless {
            let (pipeline, watched) = (self.pipeline.clone(), Arc::clone(&metrics));
            let read = Box::new(move || pipeline.plan(&watched));
            Some(Daemon::start(
                &topology, &models, read, listeners, &admin, &metrics, operators,
            ))
        } else {
            admin.attach_run(Arc::clone(&stats), None);
            None
        };
        drop(models);
        let asked = operators.spawn(shutdown_signal(
            "finishing and committing what was read",
            grace,
        ));
        let stop = async {
            if asked.await.is_err() {
                // Without signals the run goes on to its end.
                std::future::pending::<()>().await;
            }
            outage::stop_waiting();
            admin.set_draining();
            daemon.iter_mut().for_each(Daemon::stopping);
        };
        let outcome = topology.run(self.limit.map(NonZeroU64::get), stop).await;
        drop(daemon);
        progress.finish();
        self.show(
            &RunSummary::new(name, &stats, &outcome, before, folders),
            &TimeProfile::of(&stats),
        )?;
        exit_code(outcome, endless, &allowed, &stats)
    }

    /// Shows what came of the run.
    fn show(&self, summary: &RunSummary, profile: &TimeProfile) -> anyhow::Result<()> {
        match self.summary {
            SummaryFormat::Table if log::is_json() => {
                stderr::write(&log::json_line(
                    "INFO",
                    &json!({ "message": "summary", "summary": summary }),
                ));
            }
            SummaryFormat::Table => print_error(&summary.to_string()),
            SummaryFormat::Json => {
                print_json(&format!("{}\n", serde_json::to_string_pretty(summary)?))?
            }
            SummaryFormat::None => {}
        }
        if self.profile {
            log::say(&profile.to_string());
        }
        Ok(())
    }
}

fn exit_code(
    outcome: RunOutcome,
    endless: bool,
    allowed: &RejectLimits,
    stats: &RunStats,
) -> anyhow::Result<ExitCode> {
    match outcome {
        // A reader that closed the pipe (`| head`) is not an error; the input has not ended either.
        RunOutcome::Failed {
            stage,
            error: StageError::OutputClosed,
        } => {
            tracing::info!("the run ends: {stage}: {}", StageError::OutputClosed);
            Ok(ExitCode::Drained)
        }
        RunOutcome::Failed { stage, error } => Err(anyhow!("{stage}: {error}")),
        RunOutcome::Drained if endless => Ok(ExitCode::Done),
        RunOutcome::Drained => Ok(ExitCode::Drained),
        RunOutcome::Rejected => Ok(ExitCode::Rejects),
        RunOutcome::Finished => Ok(match stats.exceeded(allowed, stats.records()) {
            Some(why) => {
                tracing::error!("{why}");
                ExitCode::Rejects
            }
            None => ExitCode::Done,
        }),
    }
}

/// Resolves at the first Ctrl-C or SIGTERM; from then on a second one ends the process at once.
/// `meanwhile` says what is done then, `grace` how long that may take before the process ends all
/// the same.
pub(super) async fn shutdown_signal(meanwhile: &'static str, grace: Option<Duration>) {
    let mut signals = match ShutdownSignals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "signals cannot be heard: the run goes on to its end");
            return std::future::pending().await;
        }
    };
    let signal = signals.next().await;
    tracing::info!("{signal}: stopping: {meanwhile}; once more to stop at once");
    tokio::spawn(async move {
        let late = async {
            match grace {
                Some(grace) => tokio::time::sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = signals.next() => {
                tracing::error!("{signal} again: the process ends; what is not committed is left to the next run");
            }
            () = late => tracing::error!("not done within shutdown.grace: what is not committed is left to the next run"),
        }
        stderr::flush();
        std::process::exit(ExitCode::Killed as i32);
    });
}

/// What asks a process to stop.
struct ShutdownSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl ShutdownSignals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one; returns its name.
    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "registering can fail elsewhere")]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
