//! `latentflow train`: trains the model of a training file and shows the progress.

pub(crate) mod progress;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use indicatif::HumanDuration;

use super::log::{self, LogFormat};
use crate::admin::Admin;
use crate::cli::exit::ExitCode;
use crate::cli::train::progress::{TrainingProgress, describe_best};
use crate::config::settings::AdminSettings;
use crate::config::{Diagnostics, KeySpans, Override};
use crate::error::config_error::ConfigError;
use crate::error::failure::StageFailure;
use crate::metrics::Metrics;
use crate::server::{Listeners, TokenSource};
use crate::train::{self, TrainError, TrainOptions, TrainResult, TrainingFile};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrainCommand {
    /// Training file (TOML).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Override a key, such as --set training.epochs=5; may be repeated.
    ///
    /// An environment variable overrides a key as well, such as LATENTFLOW__TRAINING__EPOCHS; --set
    /// takes precedence.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder that relative paths of the data start from, as with --set data.root=FOLDER.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Model folder to write.
    ///
    /// Default: the path of the training file without its extension.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Start from the beginning instead of resuming an earlier training.
    ///
    /// An existing model is replaced when the training ends.
    #[arg(long)]
    restart: bool,
    /// Number of computing threads; the same number gives bit-identical results.
    ///
    /// Default: the number of available cores.
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Serve Prometheus metrics on this address during the training, such as 127.0.0.1:9464.
    ///
    /// An address that other machines can reach requires --metrics-token or
    /// --metrics-unauthenticated.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// File whose first line is the token that Prometheus sends.
    #[arg(long, value_name = "FILE", requires = "metrics")]
    metrics_token: Option<PathBuf>,
    /// Serve metrics without a token on an address that other machines can reach.
    #[arg(long, requires = "metrics", conflicts_with = "metrics_token")]
    metrics_unauthenticated: bool,
    /// Format of progress and log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  latentflow train models/fashion-conv.toml --data ~/data
  latentflow train models/kdd-ae.toml --data ~/data --set training.epochs=50 --out /tmp/kdd
  latentflow train my.toml --metrics 127.0.0.1:9464

On Ctrl-C or SIGTERM, the best weights so far are written as the model, exit code 4; run the same
command again to resume, also with more epochs. Before the end of the first epoch, no model is
written, and an earlier model in the folder stays. After a kill or a power failure, the same command
resumes from the last checkpoint and gives the same result.";

/// The reaction to a signal, as the log describes it.
const STOP_ACTION: &str = "writing the best weights so far, if an epoch has finished";

impl TrainCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(self.log_format);
        let data = self.data.iter().map(|folder| {
            let folder = folder.display().to_string();
            Override::option(format!("--data {folder}"), "data.root", &folder)
        });
        let sets = self.set.iter().map(|pair| Override::set(pair));
        let overrides: Vec<Override> = sets.chain(data).collect();
        let (file, key_spans) = TrainingFile::open(&self.file, &overrides)?;
        let admin = self
            .admin()
            .map_err(|fault| Diagnostics::new(&key_spans, vec![fault]))?;
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| self.file.with_extension(""));
        self.use_threads()?;
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start the runtime")?;
        let flag = Arc::clone(&stop);
        runtime.spawn(async move {
            super::signals::shutdown_signal(STOP_ACTION, None).await;
            flag.store(true, Ordering::Relaxed);
        });
        let options = TrainOptions {
            restart: self.restart,
            stop,
        };
        let metrics = admin
            .map(|settings| serve(&runtime, &settings))
            .transpose()?;
        let mut progress = TrainingProgress::new(self.log_format, file.head.name.clone(), metrics);
        let trained = train::train(&file, &out, &options, &mut |event| {
            progress.on_event(&event)
        });
        drop(progress);
        runtime.shutdown_background();
        let trained = trained.map_err(|error| into_cli_error(error, &key_spans))?;
        self.print_result(&trained, &file, &out);
        Ok(if trained.finished {
            ExitCode::Done
        } else {
            ExitCode::Drained
        })
    }

    /// Returns the settings of the metrics listener; `None` without `--metrics`.
    fn admin(&self) -> Result<Option<AdminSettings>, ConfigError> {
        let Some(address) = self.metrics else {
            return Ok(None);
        };
        if !address.ip().is_loopback()
            && self.metrics_token.is_none()
            && !self.metrics_unauthenticated
        {
            let text = format!(
                "--metrics {address} can be reached from other machines; add --metrics-token FILE, \
                 or --metrics-unauthenticated if the network restricts access"
            );
            return Err(ConfigError::new("", text));
        }
        let token = self.metrics_token.clone().map(|file| TokenSource {
            file: Some(file),
            variable: None,
        });
        let allow_unauthenticated = self.metrics_unauthenticated;
        Ok(Some(AdminSettings {
            listen: Some(address),
            token,
            allow_unauthenticated,
            ..AdminSettings::default()
        }))
    }

    fn print_result(&self, trained: &TrainResult, file: &TrainingFile, out: &Path) {
        let seconds = HumanDuration(std::time::Duration::from_secs_f64(trained.seconds));
        let end = if trained.finished {
            "trained"
        } else {
            "stopped before the end"
        };
        let (name, best) = (&file.head.name, describe_best(trained));
        log::write_info(&format!("{name} {end} in {seconds}: {best}"));
        let out = out.display();
        if trained.best_epoch.is_some() {
            log::write_info(&format!("model: {out}"));
        }
        if trained.finished {
            // By default, only records that were not trained on are scored.
            let part = match trained.held_out {
                0 => " --part training",
                _ => "",
            };
            log::write_info(&format!(
                "next: latentflow evaluate {out}{part}; latentflow report {out}{part}"
            ));
        } else {
            let command = match (trained.has_checkpoint, self.restart) {
                (true, true) => "run the command again without --restart to resume",
                (true, false) => "run the same command again to resume",
                (false, _) => "run the same command again to start",
            };
            log::write_info(command);
        }
    }

    /// Sets the number of computing threads of the process.
    fn use_threads(&self) -> anyhow::Result<()> {
        let threads = self
            .threads
            .map_or_else(crate::system::available_cores, Into::into);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start threads")
    }
}

fn into_cli_error(error: TrainError, key_spans: &KeySpans) -> anyhow::Error {
    match error {
        TrainError::Faults(faults) => Diagnostics::new(key_spans, faults).into(),
        error => error.into(),
    }
}

/// Serves metrics on the listener of the command line.
fn serve(
    runtime: &tokio::runtime::Runtime,
    settings: &AdminSettings,
) -> anyhow::Result<Arc<Metrics>> {
    let metrics = Arc::new(Metrics::new());
    let (admin, listeners) = (Admin::new(Arc::clone(&metrics)), Listeners::default());
    let _entered = runtime.enter();
    if let Some(url) = admin
        .serve(settings, &listeners)
        .map_err(|error| StageFailure::new("--metrics", error))?
    {
        tracing::info!("metrics at {url}/metrics");
    }
    runtime.spawn(listeners.watch());
    Ok(metrics)
}
