//! The distribution of the errors of the test part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::model::feature_errors::FeatureStats;

/// The z-score above which a record is unusual.
pub(crate) const UNUSUAL_ZSCORE: f32 = 3.0;

/// The distribution of reconstruction errors over records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorStats {
    /// The number of records.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// Quantiles.
    pub quantiles: Quantiles,
    /// The distribution of the squared error of each feature, if the model takes features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureStats>,
    /// The measurement, if `latentflow calibrate` has made it; otherwise the errors are those of the
    /// validation data of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<ErrorMeasurement>,
}

/// When and on which data errors were measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorMeasurement {
    /// The time in UTC, such as `2026-11-30T12:00:00Z`.
    pub date: String,
    /// The sources, as given to the command.
    pub sources: Vec<String>,
}

/// Quantiles of a distribution: this percentage of the values is at or below the quantile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// 1 %.
    pub p01: f64,
    /// 5 %.
    pub p05: f64,
    /// 25 %.
    pub p25: f64,
    /// The median.
    pub p50: f64,
    /// 75 %.
    pub p75: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
}

impl ErrorStats {
    /// Computes the distribution of these errors, and sorts them. `None` if there are no errors, or
    /// if one is not finite. Quantiles are interpolated linearly, as NumPy does by default.
    /// [`super::feature_errors::FeatureErrors`] computes the errors of single features.
    pub(crate) fn from_errors(errors: &mut [f64]) -> Option<Self> {
        errors.sort_by(f64::total_cmp);
        let count = errors.len() as f64;
        let (min, max) = (*errors.first()?, *errors.last()?);
        let mean = errors.iter().sum::<f64>() / count;
        let std = (errors
            .iter()
            .map(|error| (error - mean) * (error - mean))
            .sum::<f64>()
            / count)
            .sqrt();
        let quantile = |share: f64| {
            let position = share * (count - 1.0);
            let (low, high) = (
                errors[position.floor() as usize],
                errors[position.ceil() as usize],
            );
            low + (high - low) * position.fract()
        };
        let [p01, p05, p25, p50, p75, p95, p99] =
            [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99].map(quantile);
        let quantiles = Quantiles {
            p01,
            p05,
            p25,
            p50,
            p75,
            p95,
            p99,
        };
        (std.is_finite() && max.is_finite()).then_some(Self {
            count: errors.len() as u64,
            mean,
            std,
            min,
            max,
            quantiles,
            features: None,
            measured: None,
        })
    }

    /// The distance of an error from the mean, in standard deviations; infinite for an error above
    /// the mean if all errors were equal.
    pub fn zscore(&self, error: f64) -> f64 {
        (error - self.mean) / self.std
    }

    /// Whether a record with this error is unusual: its z-score is above [`UNUSUAL_ZSCORE`].
    pub(crate) fn is_unusual(&self, error: f64) -> bool {
        self.zscore(error) as f32 > UNUSUAL_ZSCORE
    }

    /// Adds errors of the statistics of a card whose `input.columns` become `inputs` inputs.
    pub(super) fn check(
        &self,
        columns: Option<&[String]>,
        inputs: usize,
        faults: &mut Vec<ConfigError>,
    ) {
        let Quantiles {
            p01,
            p05,
            p25,
            p50,
            p75,
            p95,
            p99,
        } = self.quantiles;
        let ascending = [self.min, p01, p05, p25, p50, p75, p95, p99, self.max];
        // The comparison is also false if a value is NaN.
        if !ascending.windows(2).all(|pair| pair[0] <= pair[1]) {
            let message = format!("min, quantiles and max must ascend; found {ascending:?}");
            faults.push(ConfigError::new("reconstruction_error.quantiles", message));
        }
        if !(self.std >= 0.0 && self.mean.is_finite()) {
            let message = format!(
                "mean must be finite and std 0 or more; found mean {} and std {}",
                self.mean, self.std
            );
            faults.push(ConfigError::new("reconstruction_error", message));
        }
        if let Some(features) = &self.features {
            features.check(columns, inputs, faults);
        }
    }
}
