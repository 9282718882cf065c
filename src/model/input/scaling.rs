//! The scaling of features.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scaling that converts raw features to model inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scaling {
    /// No scaling.
    #[default]
    None,
    /// To mean 0 and standard deviation 1.
    Standard {
        /// The value that is subtracted, per feature.
        mean: Vec<f64>,
        /// The divisor per feature; 0 counts as 1, and so does a number whose inverse overflows.
        std: Vec<f64>,
    },
    /// To 0..1.
    MinMax {
        /// The value that becomes 0, per feature.
        min: Vec<f64>,
        /// The value that becomes 1, per feature. If it equals the minimum, the divisor is 1.
        max: Vec<f64>,
    },
}

impl Scaling {
    /// The conversion of feature `i`.
    pub fn feature(&self, i: usize) -> FeatureScale {
        let (zero, divisor) = match self {
            Self::None => return FeatureScale::default(),
            Self::Standard { mean, std } => (at(mean, i, 0.0), at(std, i, 1.0)),
            Self::MinMax { min, max } => (at(min, i, 0.0), at(max, i, 1.0) - at(min, i, 0.0)),
        };
        let scale = 1.0 / divisor;
        FeatureScale {
            shift: -zero,
            scale: if scale.is_finite() { scale } else { 1.0 },
        }
    }
}

/// The conversion of the values of one feature into inputs of a model. Training, evaluation and
/// runs convert values with this type only, from float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureScale {
    shift: f64,
    pub(super) scale: f64,
}

impl Default for FeatureScale {
    fn default() -> Self {
        Self {
            shift: 0.0,
            scale: 1.0,
        }
    }
}

impl FeatureScale {
    /// Converts a value to float64 precision. The mean or minimum is subtracted first, so that a
    /// small difference from a large mean keeps its digits.
    #[inline(always)]
    pub fn scale(self, value: f64) -> f64 {
        (value + self.shift) * self.scale
    }

    /// Converts a value to the input of the model, rounded once.
    #[inline(always)]
    pub(crate) fn to_input(self, value: f64) -> f32 {
        self.scale(value) as f32
    }

    /// Reverts the conversion.
    pub(crate) fn invert(self, scaled: f64) -> f64 {
        scaled / self.scale - self.shift
    }

    /// Converts a standard deviation, or another difference of two values.
    pub fn scale_difference(self, difference: f64) -> f64 {
        difference * self.scale
    }
}

pub(super) fn at(values: &[f64], i: usize, default: f64) -> f64 {
    values.get(i).copied().unwrap_or(default)
}

/// The kinds of scaling that a model card can declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingKind {
    /// No scaling.
    None,
    /// To mean 0 and standard deviation 1. Requires `mean` and `std`.
    Standard,
    /// To 0..1. Requires `min` and `max`.
    MinMax,
    /// The median becomes 0, and the distance of the quartiles becomes 1. A model card states both
    /// in `rules`.
    Robust,
    /// To the rank among the quantiles of the training part, 0..1. A model card states the quantiles
    /// in `rules`.
    Quantile,
}
