//! The learning rate from step to step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls from its height to 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    /// It does not.
    Constant,
    /// In a straight line.
    Linear,
    /// Along half a cosine (Loshchilov and Hutter, 2016).
    #[default]
    Cosine,
}

impl LearningRateSchedule {
    /// The share of the learning rate's height at a step of `total`; the first `warmup` steps rise
    /// in a straight line.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls() {
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
