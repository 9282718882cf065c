//! The training loop: prepares the data, resumes a checkpoint, runs the epochs and writes the model
//! folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::card_metrics::{self, CardMetrics};
use super::checkpoint::{TrainingCheckpoint, TrainingPosition};
use super::checks::{check_before_data, check_range, no_training_record};
use super::config::TrainingFile;
use super::config_digests::ConfigDigests;
use super::epoch_sampler::{Augmentation, EpochSampler, InputValues, ZoomRange};
use super::export::{self, TrainingOutcome};
use super::input::{NetworkInput, with_decode_mode};
use super::loader::BatchLoader;
use super::memory::{TrainingSize, batch_shape, check_memory};
use super::network_builder::build;
use super::step_schedule::StepSchedule;
use super::trainer::Trainer;
use super::work_folder::WorkFolder;
use super::{
    EpochRecord, TrainError, TrainEvent, TrainOptions, TrainResult, TrainStarted, TrainStep,
};
use crate::corruption::Corruption;
use crate::data::{self, PreparedDataset, RecordFile};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::model::input::{InputKind, InputSpec};
use crate::model::{self, RuntimeSpec};

/// Interval between checkpoints within an epoch. A checkpoint is also written after each epoch.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// Interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Trains the model that `file` declares and writes it to `out`; `watch` receives the events.
/// Resumes an earlier run that was stopped or killed, with the same result as without the
/// interruption. A training that is stopped before the end of its first epoch writes no model, and
/// an earlier model in the folder stays as it is.
///
/// # Errors
/// Errors in the training file, I/O errors, and a loss that is not finite.
pub fn train(
    file: &TrainingFile,
    out: &Path,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<TrainResult, TrainError> {
    check_before_data(file, out, options)?;
    // ONNX Runtime measures the finished model.
    model::ort_library::init(&RuntimeSpec::default())
        .map_err(|fault| StageError::Model(fault.message))?;
    let work = WorkFolder::acquire(out, options.restart)?;
    let trained = train_in(&work, file, out, options, watch);
    match &trained {
        Ok(TrainResult { finished: true, .. }) => work.remove()?,
        // A refused training leaves no files.
        Err(TrainError::Faults(_)) => work.discard(false),
        _ => work.discard(true),
    }
    trained
}

fn train_in(
    work: &WorkFolder,
    file: &TrainingFile,
    out: &Path,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<TrainResult, TrainError> {
    let stopped = || TrainResult {
        finished: false,
        has_checkpoint: TrainingCheckpoint::path(work.path()).exists(),
        held_out: 0,
        curve: Vec::new(),
        seconds: 0.0,
        best_epoch: None,
    };
    let Some(prepared) = prepare(work, file, options, watch)? else {
        return Ok(stopped());
    };
    let Some(input) = NetworkInput::new(&with_decode_mode(&file.input), &prepared, &options.stop)?
    else {
        return Ok(stopped());
    };
    let declared = build(file, input.shape, input.moments).map_err(TrainError::Faults)?;
    check_range(&declared, &input, &prepared, &options.stop, watch)?;
    let shape = batch_shape(file, &prepared);
    let identity = DataIdentity::new(&prepared);
    let augmentation = Arc::new(augmentation(file, input.preparing).map_err(TrainError::Faults)?);
    let held_out = prepared.validation.len() + prepared.test.len();
    let (training, validation) = (Arc::new(prepared.training), Arc::new(prepared.validation));
    let samples = EpochSampler::training(&training, &augmentation, 0, 1).len();
    let read = TrainingCheckpoint::read(&TrainingCheckpoint::path(work.path()))?;
    let schedule = match &read {
        Some(found) => StepSchedule::resumed(&file.training, found.position.schedule),
        None => StepSchedule::new(&file.training, samples),
    };
    // The size of a batch is unknown if the sizes of the images differ. Such a batch is refused when
    // it is loaded.
    let size = shape.map(|shape| TrainingSize {
        file,
        declared: &declared,
        shape,
        records: samples.max(validation.len() as u64),
        record_bytes: training.max_record_bytes(),
    });
    let memory = size.map(|size| check_memory(&size, schedule, rayon::current_num_threads()));
    let mut run = TrainLoop {
        file,
        options,
        memory: memory.transpose()?.unwrap_or(0),
        trainer: Trainer::new(file, &declared),
        checkpoint: TrainingCheckpoint::default(),
        schedule,
        training,
        validation,
        augmentation,
        work: work.path(),
    };
    run.resume(read, &identity, out)?;
    let finished = run.epochs(watch)?;
    run.trainer.release_buffers();
    if !run.checkpoint.position.curve.is_empty() {
        watch(TrainEvent::Finishing);
        let outcome = TrainingOutcome {
            file,
            declared: &declared,
            input: input.spec,
            weights: run.best(),
            position: &run.checkpoint.position,
            schedule: run.schedule,
            parameters: run.trainer.size(),
            data: export::TrainingData {
                digest: identity.digest,
                training: run.training.len(),
                validation: Arc::clone(&run.validation),
                augmentation: Arc::clone(&run.augmentation),
            },
        };
        write_model(work, &outcome, watch)?;
    }
    let TrainingPosition { curve, seconds, .. } = run.checkpoint.position;
    Ok(TrainResult {
        finished,
        has_checkpoint: !finished,
        held_out,
        best_epoch: best_epoch(&curve),
        curve,
        seconds,
    })
}

/// Prepares the data. Returns `None` if the training was stopped before.
fn prepare(
    work: &WorkFolder,
    file: &TrainingFile,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<Option<PreparedDataset>, TrainError> {
    // Parts are cut from images in their original size.
    let size = if file.training.zoom.is_some() {
        None
    } else {
        file.input.size
    };
    let input = with_decode_mode(&file.input);
    let stored_input = InputSpec {
        size,
        decode: input.decode.filter(|_| size.is_some()),
        ..input
    };
    let mut on_read = |records| watch(TrainEvent::Reading(records));
    let prepared = data::prepare_unless_stopped(
        &file.data,
        &stored_input,
        &work.path().join("data"),
        &options.stop,
        &mut on_read,
    )?;
    if let Some(prepared) = &prepared {
        watch(TrainEvent::Prepared(prepared));
        if prepared.training.is_empty() {
            let fault = no_training_record(&file.data, prepared);
            return Err(TrainError::Faults(vec![fault]));
        }
    }
    Ok(prepared)
}

/// Writes and measures the model in the work folder, and moves it to its place when it is complete.
fn write_model(
    work: &WorkFolder,
    outcome: &TrainingOutcome<'_>,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<(), TrainError> {
    let file = outcome.file;
    let staging = work.staging()?;
    let (model, failed) = export::write(&staging, outcome)?;
    // If the model was trained on parts of images, the metrics are measured on entire images.
    let records = if file.training.zoom.is_some() {
        "measured"
    } else {
        "data"
    };
    let folder = work.path().join(records);
    let measured = data::prepare(
        &file.data,
        &with_decode_mode(&file.input),
        &folder,
        &mut |_| {},
    )?;
    let CardMetrics { named, pca } = card_metrics::measure(&model, &measured)?;
    export::add_metrics(&staging, named)?;
    work.publish(&staging)?;
    watch(TrainEvent::Measured(&failed));
    // A penalty or a corruption has another objective than the error of clean records.
    let has_other_objective = file.sparsity.is_some() || !file.corruption.is_empty();
    if let Some(pca) = pca.filter(|pca| pca.model_mse > pca.pca_mse && !has_other_objective) {
        watch(TrainEvent::WorseThanPca(&pca));
    }
    Ok(())
}

/// The records of a training, as a checkpoint identifies them.
struct DataIdentity {
    kind: InputKind,
    digest: String,
    /// The digest by earlier versions, if it differs.
    former_digest: Option<String>,
}

impl DataIdentity {
    fn new(prepared: &PreparedDataset) -> Self {
        Self {
            kind: prepared.kind,
            digest: prepared.digest.clone(),
            former_digest: prepared.former_digest.clone(),
        }
    }
}

fn augmentation(
    file: &TrainingFile,
    values: InputValues,
) -> Result<Augmentation, Vec<ConfigError>> {
    let training = &file.training;
    let corruption = corruption(file, &values)?;
    Ok(Augmentation {
        values,
        corruption,
        crop: training.crop,
        zoom: training
            .zoom
            .zip(file.input.size)
            .map(|(share, size)| ZoomRange { size, share }),
        crops: training.crops,
        flips: training.flips,
        seed: file.head.seed,
    })
}

/// Returns the first epoch with the lowest validation loss, or the last epoch if none was
/// validated.
fn best_epoch(curve: &[EpochRecord]) -> Option<u32> {
    let measured = curve
        .iter()
        .filter_map(|point| Some((point.epoch, point.validation_loss?)));
    measured
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(epoch, _)| epoch)
        .or(curve.last().map(|point| point.epoch))
}

fn corruption(
    file: &TrainingFile,
    values: &InputValues,
) -> Result<Vec<Corruption>, Vec<ConfigError>> {
    let format = match values {
        InputValues::Pixels(format) => Some(format),
        InputValues::Features(_) => None,
    };
    let mut faults = Vec::new();
    let mut planned = Vec::new();
    for (index, spec) in file.corruption.iter().enumerate() {
        let key = format!("corruption[{index}]");
        planned.extend(faults.record_all_within(&key, spec.plan(format)));
    }
    if faults.is_empty() {
        Ok(planned)
    } else {
        Err(faults)
    }
}

struct TrainLoop<'a> {
    file: &'a TrainingFile,
    options: &'a TrainOptions,
    trainer: Trainer,
    checkpoint: TrainingCheckpoint,
    schedule: StepSchedule,
    /// Predicted maximum memory, in bytes.
    memory: u64,
    training: Arc<RecordFile>,
    validation: Arc<RecordFile>,
    augmentation: Arc<Augmentation>,
    work: &'a Path,
}

impl TrainLoop<'_> {
    /// Restores the state of an earlier training from its checkpoint.
    fn resume(
        &mut self,
        read: Option<TrainingCheckpoint>,
        data: &DataIdentity,
        out: &Path,
    ) -> Result<(), TrainError> {
        let digests_for =
            |digest: &str| ConfigDigests::new(self.file, self.schedule, data.kind, digest);
        let digests = digests_for(&data.digest);
        let former = data.former_digest.as_deref().map(digests_for);
        if let Some(found) = read {
            let TrainingPosition {
                digest,
                written,
                without_epochs,
                epoch: completed,
                ..
            } = &found.position;
            let is_same = |known: &ConfigDigests| {
                let own = [&known.resolved, &known.written];
                own.contains(&digest)
                    || own.contains(&written)
                    || *without_epochs == known.without_epochs
            };
            if !is_same(&digests) && !former.as_ref().is_some_and(is_same) {
                return Err(TrainError::Changed(out.display().to_string()));
            }
            let epochs = self.file.training.epochs;
            if epochs < *completed {
                let message = format!(
                    "the training has completed {completed} epochs already; met {epochs}; set \
                     {completed} or more, or pass --restart to start from scratch"
                );
                let fault = ConfigError::new("training.epochs", message);
                return Err(TrainError::Faults(vec![fault]));
            }
            let restored = self.trainer.restore(&found.state);
            let path = TrainingCheckpoint::path(self.work);
            restored
                .map_err(|reason| StageError::Other(format!("{}: {reason}", path.display())))?;
            self.checkpoint = found;
        }
        let position = &mut self.checkpoint.position;
        position.digest = digests.resolved;
        position.written = digests.written;
        position.without_epochs = digests.without_epochs;
        position.schedule = Some(self.schedule);
        Ok(())
    }

    /// Runs the remaining epochs. Returns `false` if it was stopped before the end.
    fn epochs(&mut self, watch: &mut dyn FnMut(TrainEvent<'_>)) -> Result<bool, TrainError> {
        let epochs = self.file.training.epochs;
        let first = self.sampler(0);
        watch(TrainEvent::Started(&TrainStarted {
            parameters: self.trainer.size(),
            records: first.len(),
            batches: first.batches(),
            epochs,
            resumed: self.checkpoint.position.step,
            batch_size: self.schedule.batch_size,
            warmup: self.schedule.warmup,
            memory: self.memory,
        }));
        while self.checkpoint.position.epoch < epochs && !self.is_patience_exhausted() {
            if !self.epoch(watch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_patience_exhausted(&self) -> bool {
        self.file
            .training
            .patience
            .is_some_and(|patience| self.checkpoint.position.since_best >= patience)
    }

    fn sampler(&self, epoch: u32) -> EpochSampler {
        EpochSampler::training(
            &self.training,
            &self.augmentation,
            epoch,
            self.schedule.batch_size,
        )
    }

    /// Continues the current epoch to its end. Returns `false` if it was stopped before.
    fn epoch(&mut self, watch: &mut dyn FnMut(TrainEvent<'_>)) -> Result<bool, TrainError> {
        let begun = self.checkpoint.position.clone();
        let started = Instant::now();
        let order = self.sampler(begun.epoch);
        let batches = order.batches();
        let mut loader = BatchLoader::start(order, begun.batch)?;
        let (mut reported, mut saved) = (started, started);
        while let Some(batch) = loader.next()? {
            let rate = self.rate(batches);
            let position = &mut self.checkpoint.position;
            position.step += 1;
            position.batch += 1;
            position.sum += self
                .trainer
                .step(position.step, rate, &batch)
                .map_err(TrainError::Shape)?;
            if !position.sum.is_finite() {
                return Err(TrainError::NotFinite(position.step));
            }
            position.seconds = begun.seconds + started.elapsed().as_secs_f64();
            let stop = self.options.stop.load(Relaxed);
            if reported.elapsed() >= PROGRESS_INTERVAL || stop {
                reported = Instant::now();
                let TrainingPosition {
                    epoch,
                    batch: done,
                    sum,
                    ..
                } = self.checkpoint.position;
                let loss = f64::from(sum) / done as f64;
                watch(TrainEvent::Stepped(TrainStep {
                    epoch: epoch + 1,
                    batch: done,
                    loss,
                    learning_rate: rate,
                }));
            }
            if stop || saved.elapsed() >= CHECKPOINT_INTERVAL {
                saved = Instant::now();
                self.save_checkpoint()?;
            }
            if stop {
                return Ok(false);
            }
        }
        let rate = self.rate(batches);
        let validation = match self.validate()? {
            ValidationOutcome::Loss(loss) => Some(loss),
            ValidationOutcome::NoRecords => None,
            ValidationOutcome::Stopped => {
                self.save_checkpoint()?;
                return Ok(false);
            }
        };
        self.checkpoint.position.seconds = begun.seconds + started.elapsed().as_secs_f64();
        let better = self.close(rate, validation)?;
        self.save_checkpoint()?;
        let point = self.checkpoint.position.curve.last().copied();
        point
            .into_iter()
            .for_each(|point| watch(TrainEvent::Epoch(point, better)));
        Ok(true)
    }

    fn rate(&self, batches: u64) -> f64 {
        let training = &self.file.training;
        let total = batches * u64::from(training.epochs);
        training.learning_rate
            * training
                .schedule
                .at(self.checkpoint.position.step, self.schedule.warmup, total)
    }

    /// Records a completed epoch. Returns `true` if it is the best so far.
    fn close(&mut self, rate: f64, validation: Option<f64>) -> Result<bool, TrainError> {
        let position = &mut self.checkpoint.position;
        let better = match (validation, position.best) {
            (Some(loss), Some(best)) => loss < best,
            _ => true,
        };
        position.epoch += 1;
        let loss = f64::from(position.sum) / position.batch.max(1) as f64;
        let TrainingPosition {
            epoch,
            step,
            seconds,
            ..
        } = *position;
        position.curve.push(EpochRecord {
            epoch,
            step,
            seconds,
            learning_rate: rate,
            loss,
            validation_loss: validation,
        });
        (position.batch, position.sum) = (0, 0.0);
        position.since_best = if better { 0 } else { position.since_best + 1 };
        if better {
            position.best = validation;
            self.checkpoint.best = self.trainer.ema_weights().to_vec();
        }
        Ok(better)
    }

    /// Returns the weights of the best epoch, or the current weights if the checkpoint has none.
    fn best(&self) -> &[Vec<f32>] {
        match self.checkpoint.best.as_slice() {
            [] => self.trainer.ema_weights(),
            best => best,
        }
    }

    fn save_checkpoint(&mut self) -> Result<(), TrainError> {
        self.checkpoint.state = self.trainer.state();
        Ok(self
            .checkpoint
            .write(&TrainingCheckpoint::path(self.work))?)
    }

    /// Computes the mean loss over the validation part.
    fn validate(&mut self) -> Result<ValidationOutcome, TrainError> {
        if self.validation.is_empty() {
            return Ok(ValidationOutcome::NoRecords);
        }
        let order = EpochSampler::validation(
            &self.validation,
            &self.augmentation,
            self.schedule.batch_size,
        );
        let mut loader = BatchLoader::start(order, 0)?;
        let (mut sum, mut count) = (0.0, 0.0);
        while let Some(batch) = loader.next()? {
            let loss = self
                .trainer
                .validation_loss(&batch)
                .map_err(TrainError::Shape)?;
            sum += f64::from(loss) * batch.records as f64;
            count += batch.records as f64;
            if self.options.stop.load(Relaxed) {
                return Ok(ValidationOutcome::Stopped);
            }
        }
        if !sum.is_finite() {
            return Err(TrainError::NotFinite(self.checkpoint.position.step));
        }
        Ok(ValidationOutcome::Loss(sum / count))
    }
}

/// The outcome of a validation.
enum ValidationOutcome {
    /// The mean loss.
    Loss(f64),
    /// The validation part has no records.
    NoRecords,
    /// The training was stopped, and the next run repeats the validation.
    Stopped,
}
