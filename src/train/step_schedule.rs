//! The batch size and the warm-up of a training, which follow from the number of steps unless the
//! training file sets them.

use serde::{Deserialize, Serialize};

use crate::train::config::training::TrainingSpec;

/// The default batch size of a training with enough steps, and of all trainings of earlier versions.
const BATCH_SIZE: usize = 128;
/// The smallest batch size that is chosen for a training with few steps.
const MIN_BATCH_SIZE: usize = 16;
/// The number of steps below which smaller batches are chosen.
const MIN_STEPS: u64 = 2000;
/// The maximum number of steps of a default warm-up.
const MAX_WARMUP: u64 = 100;
/// A default warm-up takes one of this number of steps.
const WARMUP_SHARE: u64 = 20;

/// The batch size and the warm-up in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepSchedule {
    /// Number of records per step.
    pub batch_size: usize,
    /// Number of steps in which the learning rate rises.
    pub warmup: u64,
}

impl StepSchedule {
    /// Returns the options of the training file, or else numbers that follow from the number of
    /// steps: a batch of 128 records, or of 64, 32 or 16 if the training has fewer than 2000 steps
    /// otherwise; a warm-up of a twentieth of all steps, at most 100. `records` is the number of
    /// records in an epoch.
    pub fn new(training: &TrainingSpec, records: u64) -> Self {
        let steps = |batch_size: usize| {
            let batches = records.div_ceil(batch_size as u64);
            let steps = batches.saturating_mul(u64::from(training.epochs));
            steps.max(training.min_steps.unwrap_or(0))
        };
        let halved = || {
            let mut size = BATCH_SIZE;
            while size > MIN_BATCH_SIZE && steps(size) < MIN_STEPS {
                size /= 2;
            }
            size
        };
        let batch_size = training.batch_size.unwrap_or_else(halved);
        let default_warmup = || (steps(batch_size) / WARMUP_SHARE).min(MAX_WARMUP);
        Self {
            batch_size,
            warmup: training.warmup.unwrap_or_else(default_warmup),
        }
    }

    /// Returns the number of epochs: that of the training file, or as many as the minimum number of
    /// steps takes. `records` is the number of records in an epoch.
    pub fn epochs(self, training: &TrainingSpec, records: u64) -> u32 {
        let batches = records.div_ceil(self.batch_size as u64).max(1);
        let required = training.min_steps.unwrap_or(0).div_ceil(batches);
        let required = u32::try_from(required).unwrap_or(u32::MAX);
        training.epochs.max(required)
    }

    /// Returns the schedule of a training that resumes: what the training file sets, or else the
    /// numbers of the checkpoint. Checkpoints of earlier versions have none, and fixed defaults.
    pub fn resumed(training: &TrainingSpec, stored: Option<Self>) -> Self {
        let stored = stored.unwrap_or(Self {
            batch_size: BATCH_SIZE,
            warmup: 0,
        });
        Self {
            batch_size: training.batch_size.unwrap_or(stored.batch_size),
            warmup: training.warmup.unwrap_or(stored.warmup),
        }
    }

    /// Returns the options with these numbers filled in.
    pub(crate) fn fill_in(self, training: &TrainingSpec) -> TrainingSpec {
        TrainingSpec {
            batch_size: Some(self.batch_size),
            warmup: Some(self.warmup),
            ..training.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(epochs: u32, records: u64) -> (usize, u64) {
        let training = TrainingSpec {
            epochs,
            ..TrainingSpec::default()
        };
        let StepSchedule { batch_size, warmup } = StepSchedule::new(&training, records);
        (batch_size, warmup)
    }

    #[test]
    fn batch_and_warmup_follow_from_the_number_of_steps() {
        assert_eq!(schedule(20, 60_000), (128, 100));
        assert_eq!(schedule(20, 6_400), (64, 100));
        assert_eq!(schedule(30, 160), (16, 15));
        assert_eq!(schedule(1, 10), (16, 0));
    }

    #[test]
    fn minimum_number_of_steps_raises_the_number_of_epochs() {
        let epochs = |min_steps, records| {
            let training = TrainingSpec {
                epochs: 20,
                batch_size: Some(64),
                min_steps,
                ..TrainingSpec::default()
            };
            let schedule = StepSchedule::new(&training, records);
            (schedule.epochs(&training, records), schedule.warmup)
        };
        assert_eq!(epochs(None, 100), (20, 2));
        assert_eq!(epochs(Some(2000), 100), (1000, 100));
        assert_eq!(epochs(Some(2001), 100), (1001, 100));
        assert_eq!(epochs(Some(2000), 64_000), (20, 100));
        assert_eq!(epochs(Some(1), 0).0, 20);
        let training = TrainingSpec {
            epochs: 1,
            min_steps: Some(3000),
            ..TrainingSpec::default()
        };
        let StepSchedule { batch_size, warmup } = StepSchedule::new(&training, 283);
        assert_eq!((batch_size, warmup), (128, 100));
    }

    #[test]
    fn options_of_the_file_take_precedence() {
        let training = TrainingSpec {
            batch_size: Some(64),
            warmup: Some(7),
            ..TrainingSpec::default()
        };
        let written = StepSchedule {
            batch_size: 64,
            warmup: 7,
        };
        assert_eq!(StepSchedule::new(&training, 10), written);
        assert_eq!(StepSchedule::resumed(&training, None), written);
        let former = StepSchedule::resumed(&TrainingSpec::default(), None);
        assert_eq!((former.batch_size, former.warmup), (128, 0));
    }
}
