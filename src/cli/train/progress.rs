//! The progress of a training, shown on the terminal.

use std::sync::Arc;

use indicatif::HumanDuration;

use crate::cli::log::LogFormat;
use crate::cli::progress::{TaskProgress, TaskReporter};
use crate::metrics::Metrics;
use crate::train::{EpochRecord, OutOfRange, PcaComparison, TrainEvent, TrainResult, TrainStarted};
use crate::units::ByteSize;

/// Shows the progress of a training, and writes a log line for each epoch.
pub(super) struct TrainingProgress {
    reporter: TaskReporter,
    pub(super) metrics: Option<Arc<Metrics>>,
    pub(super) model: String,
    pub(super) epochs: u32,
    batches: u64,
    records: u64,
    /// The number of batches of an earlier training that is resumed.
    resumed: u64,
}

impl TrainingProgress {
    pub(super) fn new(format: LogFormat, model: String, metrics: Option<Arc<Metrics>>) -> Self {
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

    pub(super) fn on_event(&mut self, event: &TrainEvent<'_>) {
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
                for (column, records) in &prepared.nulls {
                    tracing::warn!(
                        column = column.as_str(),
                        records,
                        "records with a null or NaN in a column are rejected; to use them, set \
                         `impute` in the rule of the column under [[input.rules]], or add a rule \
                         for it: \"median\" for numbers, \"most_frequent\" for categories"
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

    pub(super) fn start(&mut self, started: &TrainStarted) {
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
        let shown =
            |value: Option<f64>| value.map(|value| tracing::field::display(format!("{value:.6}")));
        tracing::info!(
            epoch = point.epoch,
            epochs = self.epochs,
            loss = %format_args!("{:.6}", point.loss),
            validation_loss = shown(point.validation_loss),
            reconstruction = shown(point.reconstruction),
            kl = shown(point.kl),
            contraction = shown(point.contraction),
            validation_reconstruction = shown(point.validation_reconstruction),
            validation_kl = shown(point.validation_kl),
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
pub(super) fn describe_best(trained: &TrainResult) -> String {
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
