//! The epochs of a training, its validation and its checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::data::RecordFile;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::train::augmentation::Augmentation;
use crate::train::checkpoint::{TrainingCheckpoint, TrainingPosition};
use crate::train::config::TrainingFile;
use crate::train::config::network::ModelKind;
use crate::train::config_digests::ConfigDigests;
use crate::train::epoch_sampler::EpochSampler;
use crate::train::loader::BatchLoader;
use crate::train::schedule::annealing;
use crate::train::step_schedule::StepSchedule;
use crate::train::train_loop::DataIdentity;
use crate::train::train_loop::validation::{ValidationLoss, ValidationOutcome, validate};
use crate::train::trainer::Trainer;
use crate::train::{EpochRecord, TrainError, TrainEvent, TrainOptions, TrainStarted, TrainStep};

/// Interval between checkpoints within an epoch. A checkpoint is also written after each epoch.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

/// Interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct TrainLoop<'a> {
    pub(super) file: &'a TrainingFile,
    pub(super) options: &'a TrainOptions,
    pub(super) trainer: Trainer,
    pub(super) checkpoint: TrainingCheckpoint,
    pub(super) schedule: StepSchedule,
    /// Predicted maximum memory, in bytes.
    pub(super) memory: u64,
    pub(super) training: Arc<RecordFile>,
    pub(super) validation: Arc<RecordFile>,
    pub(super) augmentation: Arc<Augmentation>,
    pub(super) work: &'a Path,
}

impl TrainLoop<'_> {
    /// Restores the state of an earlier training from its checkpoint.
    pub(super) fn resume(
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
            restored.map_err(|reason| {
                StageError::new(
                    ErrorCode::StateCorrupt,
                    format!("{}: {reason}", path.display()),
                )
            })?;
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
    pub(super) fn epochs(
        &mut self,
        watch: &mut dyn FnMut(TrainEvent<'_>),
    ) -> Result<bool, TrainError> {
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
    pub(super) fn epoch(
        &mut self,
        watch: &mut dyn FnMut(TrainEvent<'_>),
    ) -> Result<bool, TrainError> {
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
            let annealing = annealing(self.file.head.beta_warmup, position.step, batches);
            let objective = self
                .trainer
                .step(position.step, rate, annealing, &batch)
                .map_err(TrainError::Shape)?;
            position.sum += objective.total();
            position.reconstruction += f64::from(objective.reconstruction);
            position.divergence += f64::from(objective.divergence + objective.contraction);
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
            ValidationOutcome::Loss(means) => Some(means),
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
    fn close(&mut self, rate: f64, validated: Option<ValidationLoss>) -> Result<bool, TrainError> {
        let validation = validated.map(|means| means.loss);
        let kinds = &self.file.head.kind;
        let [is_variational, is_contractive] =
            [ModelKind::Variational, ModelKind::Contractive].map(|kind| kinds.has(kind));
        let position = &mut self.checkpoint.position;
        let better = match (validation, position.best) {
            (Some(loss), Some(best)) => loss < best,
            _ => true,
        };
        position.epoch += 1;
        let batches = position.batch.max(1) as f64;
        let loss = f64::from(position.sum) / batches;
        let reconstruction = position.reconstruction / batches;
        let divergence = position.divergence / batches;
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
            reconstruction: (is_variational || is_contractive).then_some(reconstruction),
            kl: is_variational.then_some(divergence),
            contraction: is_contractive.then_some(divergence),
            validation_reconstruction: validated
                .filter(|_| is_variational)
                .map(|means| means.reconstruction),
            validation_kl: validated
                .filter(|_| is_variational)
                .map(|means| means.divergence),
        });
        (position.batch, position.sum) = (0, 0.0);
        (position.reconstruction, position.divergence) = (0.0, 0.0);
        position.since_best = if better { 0 } else { position.since_best + 1 };
        if better {
            position.best = validation;
            self.checkpoint.best = self.trainer.ema_weights().to_vec();
        }
        Ok(better)
    }

    /// Returns the weights of the best epoch, or the current weights if the checkpoint has none.
    pub(super) fn best(&self) -> &[Vec<f32>] {
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

    fn validate(&mut self) -> Result<ValidationOutcome, TrainError> {
        if self.validation.is_empty() {
            return Ok(ValidationOutcome::NoRecords);
        }
        let order = EpochSampler::validation(
            &self.validation,
            &self.augmentation,
            self.schedule.batch_size,
        );
        let step = self.checkpoint.position.step;
        validate(&mut self.trainer, order, &self.options.stop, step)
    }
}
