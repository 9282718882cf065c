//! `latentflow run`: runs a pipeline, shows its progress and prints a summary.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::runtime::Handle;

use super::log::{self, LogFormat};
use super::progress::{ProgressReporter, ProgressSample};
use super::signals::shutdown_signal;
use super::summary::RunSummary;
use super::time_profile::TimeProfile;
use super::{PipelineArgs, ShardArgs, print_error, print_json, stderr};
use crate::admin::Admin;
use crate::cli::exit::{ExitCode, RunFailure};
use crate::config::Override;
use crate::daemon::Daemon;
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::plan::pipeline::{Plan, RejectLimits};
use crate::sink::ChangePolicy;
use crate::storage::outage;
use crate::topology::open::start_over;
use crate::topology::outcome::RunOutcome;
use crate::topology::{RunStats, Topology};
use crate::{file_descriptors, system};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunCommand {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// Number of workers, which process batches concurrently.
    ///
    /// Each worker has its own ONNX sessions, unless all workers share them (`runtime.sessions`).
    /// Default: `workers` of the pipeline, otherwise the number of available cores, or twice that
    /// number with shared sessions.
    #[arg(long, value_name = "N")]
    workers: Option<std::num::NonZeroU16>,
    /// Read the first N records that are not yet committed, then stop.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,
    /// Append to outputs whose rows were written with other stages, options or models.
    ///
    /// Such an output then holds rows of both configurations. The footer of each file identifies
    /// the configuration of its rows.
    #[arg(long)]
    allow_change: bool,
    /// Accept folders as they are, although earlier runs found them on a disk that is not mounted.
    ///
    /// The source reads its folder as it is, and the sink starts a new output in its folder.
    #[arg(long)]
    start_over: bool,
    /// Serve metrics and health on this address during the run, such as 127.0.0.1:9464.
    ///
    /// Default: `admin.listen` of the pipeline. An address that other machines can reach requires
    /// `admin.token` or `admin.allow_unauthenticated`, which --set can set.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Format of the final summary.
    #[arg(long, value_enum, default_value_t = SummaryFormat::Table)]
    summary: SummaryFormat,
    /// Print a time profile: utilization of the stages, waits, and the bottleneck.
    #[arg(long)]
    profile: bool,
    /// Format of progress and log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  latentflow run pipelines/quickstart.toml
  latentflow run photos.toml --limit 100 --summary json
  latentflow run photos.toml --workers 4 --metrics 127.0.0.1:9464
  latentflow run photos.toml --limit 10000 --profile    find the bottleneck
  latentflow run photos.toml --shard 0/8                the first of 8 runs on different machines

On Ctrl-C or SIGTERM, the run stops reading, commits the records that it has read, and exits with
code 4; run it again to resume. A pipeline with an unbounded source exits with code 0.
A second signal ends the process immediately; the next run repeats the records that were not
committed.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// A table on standard error; with `--log-format json`, one line of the log.
    Table,
    /// A JSON document on standard output.
    Json,
    /// No summary.
    None,
}

impl RunCommand {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        log::start(self.log_format);
        self.pipeline.shard = self.shard.shard;
        if let Some(workers) = self.workers {
            let option = format!("--workers {workers}");
            let workers = workers.to_string();
            let added = Override::option(option, "workers", &workers);
            self.pipeline.options.push(added);
        }
        if let Some(address) = self.metrics {
            let option = format!("--metrics {address}");
            let address = address.to_string();
            let added = Override::option(option, "admin.listen", &address);
            self.pipeline.options.push(added);
        }
        let metrics = Arc::new(Metrics::new());
        stderr::count_lost_lines(&metrics.lost_log_lines);
        let plan = self.pipeline.plan(&metrics)?;
        plan.find_inputs()?;
        if let Some(shard) = plan.shard {
            tracing::info!(%shard, "the run reads the inputs of one shard");
        }
        if let Some(warning) = plan.memory.warning(system::cgroup_memory_limit()) {
            tracing::warn!(%warning, "the run may exceed the memory limit of its control group");
        }
        for (stage, note) in plan.notes() {
            tracing::warn!(stage, note, "the files of a source differ");
        }
        if plan.is_unbounded() {
            file_descriptors::wait_for_free();
        }
        // Dedicated threads do the work; this runtime only passes messages. Requests of clients are
        // parsed on blocking threads. Their number is bounded, because a busy machine would start
        // hundreds of them, each with memory that is not returned to the system.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(2)
            .max_blocking_threads(8 + 2 * system::available_cores())
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start the runtime")?;
        // A separate runtime serves operators and signals while a blocked disk occupies all threads
        // of the run.
        let operators = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let operators = operators.context("cannot start the runtime")?;
        let exit = runtime.block_on(self.execute(plan, metrics, operators.handle()));
        // A blocked reader (a network file system) must not prevent the process from exiting.
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
                .map_err(|error| StageFailure::new("admin", error))?
        };
        if let Some(url) = url {
            tracing::info!("metrics at {url}/metrics");
        }
        tokio::spawn(listeners.watch());
        let (name, shard, allowed, is_unbounded, grace) = (
            plan.name.clone(),
            plan.shard,
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
        let changes = ChangePolicy::allowed(self.allow_change, is_unbounded);
        if self.start_over {
            start_over(&plan)?;
        }
        plan.admit_before_claims(changes)?;
        plan.claim_shards()?;
        let topology = Topology::open(plan, Arc::clone(&metrics), changes);
        let topology = topology?;
        let stats = topology.stats();
        let before = topology.committed();
        if before > 0 {
            tracing::info!(records = before, "earlier runs have committed records");
        }
        if is_unbounded {
            outage::begin_to_wait(&metrics.commits.waiting_for_store);
        }
        let limit = self.limit.map(NonZeroU64::get);
        let shown = Arc::clone(&stats);
        let progress = ProgressReporter::start(self.log_format, move || {
            ProgressSample::of_run(&shown, limit)
        });
        let mut daemon = if is_unbounded {
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
        let signaled = operators.spawn(shutdown_signal(
            "committing the records that were read",
            grace,
        ));
        let stop = async {
            if signaled.await.is_err() {
                // Without signal handlers, the run ends with its input.
                std::future::pending::<()>().await;
            }
            outage::stop_waiting();
            admin.set_draining();
            daemon.iter_mut().for_each(Daemon::stopping);
        };
        let outcome = topology.run(limit, stop).await;
        drop(daemon);
        drop(progress);
        self.print_summary(
            &RunSummary::new((name, shard), &stats, &outcome, before, folders),
            &TimeProfile::from_stats(&stats),
        )?;
        exit_code(outcome, is_unbounded, &allowed, &stats)
    }

    fn print_summary(&self, summary: &RunSummary, profile: &TimeProfile) -> anyhow::Result<()> {
        match self.summary {
            SummaryFormat::Table if crate::cli::log_lines::is_json() => {
                stderr::write(&crate::cli::log_lines::json_line(
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
            log::write_info(&profile.to_string());
        }
        Ok(())
    }
}

fn exit_code(
    outcome: RunOutcome,
    is_unbounded: bool,
    allowed: &RejectLimits,
    stats: &RunStats,
) -> anyhow::Result<ExitCode> {
    match outcome {
        // A closed pipe (`| head`) is not an error; the input has not ended either.
        RunOutcome::Failed(StageFailure {
            stage,
            error: StageError::OutputClosed,
        }) => {
            tracing::info!(%stage, reason = %StageError::OutputClosed, "the run ends");
            Ok(ExitCode::Drained)
        }
        RunOutcome::Failed(failure) => Err(RunFailure(failure).into()),
        RunOutcome::Drained if is_unbounded => Ok(ExitCode::Done),
        RunOutcome::Drained => Ok(ExitCode::Drained),
        RunOutcome::Rejected => Ok(ExitCode::Rejects),
        RunOutcome::Finished => Ok(match stats.exceeded(allowed, stats.records()) {
            Some(reason) => {
                tracing::error!(%reason, "too many records were rejected");
                ExitCode::Rejects
            }
            None => ExitCode::Done,
        }),
    }
}
