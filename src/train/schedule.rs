//! The schedule of the learning rate over the steps of a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The decay of the learning rate from its maximum to 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    /// No decay.
    Constant,
    /// Linear decay.
    Linear,
    /// Decay along half a cosine (Loshchilov and Hutter, 2016).
    #[default]
    Cosine,
}

impl LearningRateSchedule {
    /// Returns the fraction of the maximum learning rate at `step` of `total` steps; it rises
    /// linearly in the first `warmup` steps.
    pub fn at(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - done).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        }
    }
}

/// Returns the share of the weight of the KL divergence at a step, counted from 1: it rises linearly
/// over the epochs of the warm-up.
pub(crate) fn annealing(warmup: Option<u32>, step: u64, batches: u64) -> f32 {
    let steps = batches * u64::from(warmup.unwrap_or(0));
    (step as f64 / steps.max(1) as f64).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_rises_in_warmup_and_decays_after() {
        let at = |schedule: LearningRateSchedule| {
            [0, 4, 10, 60, 110].map(|step| (schedule.at(step, 10, 110) * 100.0).round())
        };
        assert_eq!(
            at(LearningRateSchedule::Constant),
            [10.0, 50.0, 100.0, 100.0, 100.0]
        );
        assert_eq!(
            at(LearningRateSchedule::Linear),
            [10.0, 50.0, 100.0, 50.0, 0.0]
        );
        assert_eq!(
            at(LearningRateSchedule::Cosine),
            [10.0, 50.0, 100.0, 50.0, 0.0]
        );
        assert_eq!(
            (LearningRateSchedule::Cosine.at(35, 10, 110) * 100.0).round(),
            85.0
        );
    }
}
