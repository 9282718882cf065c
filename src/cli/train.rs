//! `latentflow train`: trains what a file declares, shows how it goes, and says what came of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::ExitCode;
use super::log::{self, LogFormat};
use crate::admin::Admin;
use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::server::{Listeners, TokenSource};
use crate::config::{self, AdminSettings, Diagnostics, KeySpans};
use crate::train::{
    self, EpochRecord, TrainError, TrainEvent, TrainOptions, TrainResult, TrainStarted,
    TrainingFile,
};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrainCommand {
    /// The training file (TOML).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Override a key: --set training.epochs=5. The environment does too:
    /// LATENTFLOW__TRAINING__EPOCHS.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The folder that relative paths of data start from; the same as --set data.root=FOLDER.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The model's folder. Default: the file's name without its ending, beside it.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Begin anew, whatever an earlier run has done; a model that is there already is replaced at
    /// the end.
    #[arg(long)]
    restart: bool,
    /// Threads that compute. The same number gives the same results bit for bit. Default: the
    /// number of available cores.
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Serve Prometheus metrics while it runs, such as 127.0.0.1:9464. An address that other
    /// machines can reach needs a token, or --metrics-unauthenticated.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// A file whose first line is the token that Prometheus sends.
    #[arg(long, value_name = "FILE", requires = "metrics")]
    metrics_token: Option<PathBuf>,
    /// Serve metrics to everybody, on an address that other machines can reach.
    #[arg(long, requires = "metrics", conflicts_with = "metrics_token")]
    metrics_unauthenticated: bool,
    /// How progress and log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  latentflow train models/fashion-conv.toml --data ~/data
  latentflow train models/kdd-ae.toml --data ~/data --set training.epochs=50 --out /tmp/kdd
  latentflow train my.toml --metrics 127.0.0.1:9464

Ctrl-C or SIGTERM: the best weights so far become the model, exit code 4; run again to go on.
After a kill, or a loss of power, run again: training goes on from its last checkpoint, to the same result.";

impl TrainCommand {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        log::start(self.log_format);
        if let Some(data) = &self.data {
            self.set.push(format!("data.root={}", data.display()));
        }
        let (written, places) = config::load_with_overrides(&self.file, &self.set)?;
        let file = TrainingFile::read(written);
        let file = file
            .and_then(TrainingFile::named)
            .map_err(|faults| Diagnostics::new(&places, faults))?;
        let admin = self
            .admin()
            .map_err(|fault| Diagnostics::new(&places, vec![fault]))?;
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
            super::run::shutdown_signal("keeping the best weights so far", None).await;
            flag.store(true, Ordering::Relaxed);
        });
        let options = TrainOptions {
            restart: self.restart,
            stop,
        };
        let metrics = admin
            .map(|settings| serve(&runtime, &settings))
            .transpose()?;
        let mut watch = TrainingProgress::new(self.log_format, file.head.name.clone(), metrics);
        let trained = train::train(&file, &out, &options, &mut |event| watch.on_event(&event));
        watch.finish();
        runtime.shutdown_background();
        let trained = trained.map_err(|error| into_cli_error(error, &places))?;
        report(&trained, &file, &out);
        Ok(if trained.finished {
            ExitCode::Done
        } else {
            ExitCode::Drained
        })
    }

    /// How metrics are served, if they are.
    fn admin(&self) -> Result<Option<AdminSettings>, ConfigError> {
        let Some(address) = self.metrics else {
            return Ok(None);
        };
        if !address.ip().is_loopback()
            && self.metrics_token.is_none()
            && !self.metrics_unauthenticated
        {
            let text = format!(
                "--metrics {address} can be reached from other machines; add --metrics-token FILE, or \
                 --metrics-unauthenticated where the network lets only the right ones in"
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

    /// Sets how many threads compute, for the whole process.
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

fn into_cli_error(error: TrainError, places: &KeySpans) -> anyhow::Error {
    match error {
        TrainError::Faults(faults) => Diagnostics::new(places, faults).into(),
        error => anyhow!("{error}"),
    }
}

/// Serves metrics as the command line says.
fn serve(
    runtime: &tokio::runtime::Runtime,
    settings: &AdminSettings,
) -> anyhow::Result<Arc<Metrics>> {
    let metrics = Arc::new(Metrics::new());
    let (admin, listeners) = (Admin::new(Arc::clone(&metrics)), Listeners::default());
    let _entered = runtime.enter();
    if let Some(url) = admin
        .serve(settings, &listeners)
        .map_err(|error| anyhow!("--metrics: {error}"))?
    {
        tracing::info!("metrics at {url}/metrics");
    }
    runtime.spawn(listeners.watch());
    Ok(metrics)
}

/// Shows how a training goes: a bar on a terminal, a line per epoch everywhere.
struct TrainingProgress {
    bar: ProgressBar,
    metrics: Option<Arc<Metrics>>,
    model: String,
    epochs: u32,
    batches: u64,
    records: u64,
}

impl TrainingProgress {
    fn new(format: LogFormat, model: String, metrics: Option<Arc<Metrics>>) -> Self {
        let terminal =
            format == LogFormat::Auto && std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = if terminal {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            metrics,
            model,
            epochs: 0,
            batches: 0,
            records: 0,
        }
    }

    fn on_event(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Reading(records) => {
                self.bar
                    .set_style(style("reading  {spinner} {human_pos} records"));
                self.bar.set_position(*records);
            }
            TrainEvent::Prepared(prepared) => {
                let (training, validation, test) = (
                    prepared.training.len(),
                    prepared.validation.len(),
                    prepared.test.len(),
                );
                tracing::info!(
                    training,
                    validation,
                    test,
                    rejects = prepared.rejects,
                    "data is ready"
                );
                for reason in &prepared.reasons {
                    tracing::warn!("rejected: {reason}");
                }
            }
            TrainEvent::Started(started) => self.start(started),
            TrainEvent::Stepped(stepped) => {
                let done = u64::from(stepped.epoch - 1) * self.batches + stepped.batch;
                self.bar.set_position(done);
                self.bar.set_message(format!(
                    "epoch {}/{}  loss {:.6}",
                    stepped.epoch, self.epochs, stepped.loss
                ));
                if let Some(metrics) = &self.metrics {
                    metrics
                        .training
                        .step(&self.model, done, stepped.loss, stepped.learning_rate);
                }
            }
            TrainEvent::Epoch(point, better) => self.epoch(point, *better),
            TrainEvent::Finishing => self.bar.set_message("writing and measuring the model"),
            TrainEvent::Measured(failed) => {
                if let Some(reason) = &failed.reason {
                    let records = failed.records;
                    tracing::warn!(
                        records,
                        "the model failed on records, which are not measured; the first: {reason}"
                    );
                }
            }
        }
    }

    fn start(&mut self, started: &TrainStarted) {
        (self.epochs, self.batches, self.records) =
            (started.epochs, started.batches, started.records);
        let TrainStarted {
            parameters,
            records,
            batches,
            epochs,
            resumed,
        } = *started;
        let going = if resumed > 0 { "going on" } else { "training" };
        tracing::info!(parameters, records, batches, epochs, resumed, "{going}");
        self.bar.set_length(batches * u64::from(epochs));
        self.bar.reset_eta();
        self.bar.set_position(resumed);
        self.bar
            .set_style(style("{bar:30} {percent}%  {msg}  {per_sec}  {eta} left"));
    }

    fn epoch(&self, point: &EpochRecord, better: bool) {
        let rate = self.records as f64 * f64::from(point.epoch) / point.seconds.max(1e-9);
        let left = point.seconds / f64::from(point.epoch) * f64::from(self.epochs - point.epoch);
        let validation = point
            .validation_loss
            .map_or("-".to_owned(), |loss| format!("{loss:.6}"));
        let line = format!(
            "epoch {:>3}/{}  loss {:.6}  validation {validation}{}  {rate:.0} records/s  {} left",
            point.epoch,
            self.epochs,
            point.loss,
            if better { " *" } else { "  " },
            HumanDuration(std::time::Duration::from_secs_f64(left)),
        );
        self.bar.suspend(|| tracing::info!("{line}"));
        if let Some(metrics) = &self.metrics {
            metrics
                .training
                .step(&self.model, point.step, point.loss, point.learning_rate);
            let losses = (point.loss, point.validation_loss);
            metrics
                .training
                .epoch(&self.model, point.epoch, losses, rate, left);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Templates are constants; one that does not parse would show as the plain default.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn report(trained: &TrainResult, file: &TrainingFile, out: &std::path::Path) {
    let best = trained
        .best_epoch
        .and_then(|epoch| trained.curve.iter().find(|point| point.epoch == epoch));
    let best = best.map_or("no epoch was finished".to_owned(), |point| {
        let loss = point.validation_loss.unwrap_or(point.loss);
        format!(
            "best epoch {} of {}, validation loss {loss:.6}",
            point.epoch,
            trained.curve.len()
        )
    });
    let seconds = HumanDuration(std::time::Duration::from_secs_f64(trained.seconds));
    let end = if trained.finished {
        "trained"
    } else {
        "stopped before the end"
    };
    log::say(&format!("{} {end} in {seconds}: {best}", file.head.name));
    log::say(&format!("model: {}", out.display()));
    if trained.finished {
        log::say(&format!(
            "next: latentflow evaluate {0}; latentflow report {0}",
            out.display()
        ));
    } else {
        log::say("run the same command again to go on");
    }
}

impl TrainingFile {
    /// Checks the model's name.
    fn named(self) -> Result<Self, Vec<ConfigError>> {
        match config::name_fault(&self.head.name) {
            Some(message) => Err(vec![ConfigError::new("name", message)]),
            None => Ok(self),
        }
    }
}
