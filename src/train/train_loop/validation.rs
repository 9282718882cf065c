//! The validation after an epoch.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::train::TrainError;
use crate::train::epoch_sampler::EpochSampler;
use crate::train::loader::BatchLoader;
use crate::train::trainer::Trainer;

/// The means over the validation part.
#[derive(Clone, Copy)]
pub(super) struct ValidationLoss {
    /// The loss, with the KL divergence of variational autoencoders.
    pub(super) loss: f64,
    /// The loss without it.
    pub(super) reconstruction: f64,
    /// The KL divergence of a record.
    pub(super) divergence: f64,
}

/// The outcome of a validation.
pub(super) enum ValidationOutcome {
    /// The mean losses.
    Loss(ValidationLoss),
    /// The validation part has no records.
    NoRecords,
    /// The training was stopped, and the next run repeats the validation.
    Stopped,
}

/// Computes the mean losses over the records of `order`; `step` is the number of steps so far.
///
/// # Errors
/// When the records cannot be read, the network cannot process them, or the loss is not finite.
pub(super) fn validate(
    trainer: &mut Trainer,
    order: EpochSampler,
    stop: &AtomicBool,
    step: u64,
) -> Result<ValidationOutcome, TrainError> {
    let mut loader = BatchLoader::start(order, 0)?;
    let (mut sums, mut count) = ([0.0; 3], 0.0);
    while let Some(batch) = loader.next()? {
        let objective = trainer
            .validation_objective(&batch)
            .map_err(TrainError::Shape)?;
        let terms = [
            objective.total(),
            objective.reconstruction,
            objective.divergence,
        ];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += f64::from(term) * batch.records as f64;
        }
        count += batch.records as f64;
        if stop.load(Relaxed) {
            return Ok(ValidationOutcome::Stopped);
        }
    }
    if !sums[0].is_finite() {
        return Err(TrainError::NotFinite(step));
    }
    let [loss, reconstruction, divergence] = sums.map(|sum| sum / count);
    Ok(ValidationOutcome::Loss(ValidationLoss {
        loss,
        reconstruction,
        divergence,
    }))
}
