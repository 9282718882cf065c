//! `latentflow train`: trains the model of a training file and shows the progress.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use clap::Args;
use indicatif::HumanDuration;

use super::ExitCode;
use super::log::{self, LogFormat};
use super::progress::{TaskProgress, TaskReporter};
use crate::admin::Admin;
use crate::config::{AdminSettings, Diagnostics, KeySpans, Override};
use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::server::{Listeners, TokenSource};
use crate::train::{
    self, EpochRecord, OutOfRange, PcaComparison, TrainError, TrainEvent, TrainOptions,
    TrainResult, TrainStarted, TrainingFile,
};
use crate::units::ByteSize;

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
        error => anyhow!("{error}"),
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
        .map_err(|error| anyhow!("--metrics: {error}"))?
    {
        tracing::info!("metrics at {url}/metrics");
    }
    runtime.spawn(listeners.watch());
    Ok(metrics)
}

/// Shows the progress of a training, and writes a log line for each epoch.
struct TrainingProgress {
    reporter: TaskReporter,
    metrics: Option<Arc<Metrics>>,
    model: String,
    epochs: u32,
    batches: u64,
    records: u64,
    /// The number of batches of an earlier training that is resumed.
    resumed: u64,
}

impl TrainingProgress {
    fn new(format: LogFormat, model: String, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            reporter: TaskReporter::start(format),
            metrics,
            model,
            epochs: 0,
            batches: 0,
            records: 0,
            resumed: 0,
        }
    }

    fn on_event(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Reading(read) => self.reporter.show((*read).into()),
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
                    anomalies = prepared.anomalies,
                    rejects = prepared.rejects,
                    "data is ready"
                );
                if prepared.without_label > 0 {
                    tracing::warn!(
                        records = prepared.without_label,
                        "records without a value in the column of `normal` are neither normal nor \
                         anomalies, and are left out"
                    );
                }
                if validation == 0 && training > 0 {
                    tracing::warn!(
                        "the validation part has no records; the losses are those of the training \
                         part, and the model has the weights of the last epoch"
                    );
                }
                for reason in &prepared.reasons {
                    tracing::warn!(%reason, "a record of the data was rejected");
                }
            }
            TrainEvent::OutOfRange(found) => {
                let OutOfRange {
                    part,
                    range,
                    effect,
                } = found;
                tracing::warn!(
                    part = part.as_str(),
                    values = range.name.as_str(),
                    low = range.low,
                    high = range.high,
                    effect,
                    "values lie outside of 0..1"
                );
            }
            TrainEvent::Started(started) => self.start(started),
            TrainEvent::Stepped(stepped) => {
                let done = u64::from(stepped.epoch - 1) * self.batches + stepped.batch;
                let note = self.describe(stepped.epoch, stepped.loss);
                self.show(self.records_after(done), note);
                if let Some(metrics) = &self.metrics {
                    metrics
                        .training
                        .step(&self.model, done, stepped.loss, stepped.learning_rate);
                }
            }
            TrainEvent::Epoch(point, better) => self.epoch(point, *better),
            TrainEvent::Finishing => self.reporter.show(TaskProgress {
                name: "writing and measuring the model".to_owned(),
                ..TaskProgress::default()
            }),
            TrainEvent::Measured(failed) => {
                if let Some(reason) = &failed.reason {
                    tracing::warn!(
                        records = failed.records,
                        first_reason = %reason,
                        "the model failed on records, which are not measured"
                    );
                }
            }
            TrainEvent::WorseThanPca(found) => {
                let PcaComparison {
                    model_mse,
                    pca_mse,
                    components,
                } = found;
                tracing::warn!(
                    mse = %format_args!("{model_mse:.6}"),
                    pca_mse = %format_args!("{pca_mse:.6}"),
                    components,
                    "the model reconstructs the validation part worse than principal components \
                     of the same number; train for more epochs, with more records, or with \
                     another network"
                );
            }
        }
    }

    fn start(&mut self, started: &TrainStarted) {
        (self.epochs, self.batches, self.records) =
            (started.epochs, started.batches, started.records);
        self.resumed = started.resumed;
        let TrainStarted {
            parameters,
            records,
            batches,
            epochs,
            resumed,
            batch_size,
            warmup,
            memory,
        } = *started;
        let message = if resumed > 0 {
            "resuming the training"
        } else {
            "starting the training"
        };
        let max_memory = (memory > 0).then(|| tracing::field::display(ByteSize(memory)));
        tracing::info!(
            parameters,
            records,
            batches,
            epochs,
            resumed,
            batch_size,
            warmup,
            max_memory,
            "{message}"
        );
        let steps = batches * u64::from(epochs);
        if warmup >= steps {
            tracing::warn!(
                steps,
                warmup,
                "the learning rate rises until the end of the training; lower training.warmup or \
                 remove it, raise training.epochs, or lower training.batch_size"
            );
        }
        self.show(self.records_after(resumed), String::new());
    }

    /// Shows the number of records that were trained on in all epochs.
    fn show(&self, records: u64, note: String) {
        self.reporter.show(TaskProgress {
            name: "training".to_owned(),
            done_before: self.records_after(self.resumed),
            done: records,
            total: Some(self.records.saturating_mul(u64::from(self.epochs))),
            note,
            ..TaskProgress::default()
        });
    }

    fn describe(&self, epoch: u32, loss: f64) -> String {
        format!("epoch {epoch}/{}, loss {loss:.6}", self.epochs)
    }

    /// The number of records that a number of batches have used.
    fn records_after(&self, batches: u64) -> u64 {
        let records = u128::from(batches) * u128::from(self.records);
        u64::try_from(records / u128::from(self.batches.max(1))).unwrap_or(u64::MAX)
    }

    fn epoch(&self, point: &EpochRecord, is_best: bool) {
        // Steps are reported at intervals, which short epochs do not reach.
        let records = self.records.saturating_mul(u64::from(point.epoch));
        self.show(records, self.describe(point.epoch, point.loss));
        let rate = self.records as f64 * f64::from(point.epoch) / point.seconds.max(1e-9);
        let left = point.seconds / f64::from(point.epoch) * f64::from(self.epochs - point.epoch);
        let validation_loss = point
            .validation_loss
            .map(|loss| tracing::field::display(format!("{loss:.6}")));
        tracing::info!(
            epoch = point.epoch,
            epochs = self.epochs,
            loss = %format_args!("{:.6}", point.loss),
            validation_loss,
            is_best,
            records_per_second = rate.round(),
            left = %HumanDuration(std::time::Duration::from_secs_f64(left)),
            "finished an epoch"
        );
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
}

/// Describes the epoch whose weights the model has, and the part whose loss is given.
fn describe_best(trained: &TrainResult) -> String {
    let best = trained
        .best_epoch
        .and_then(|epoch| trained.curve.iter().find(|point| point.epoch == epoch));
    let epochs = trained.curve.len();
    match best {
        None => "no epoch has finished, so no model is written".to_owned(),
        Some(EpochRecord {
            epoch,
            validation_loss: Some(loss),
            ..
        }) => format!("best epoch {epoch} of {epochs}, validation loss {loss:.6}"),
        Some(EpochRecord { epoch, loss, .. }) => format!(
            "last epoch {epoch} of {epochs}, training loss {loss:.6}; the validation part has no \
             records"
        ),
    }
}
