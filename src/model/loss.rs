//! The losses that autoencoders are trained with, which also measure the error of one record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::system::simd_dispatch;

/// The measure of the distance between a reconstruction and its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Mean squared error.
    #[default]
    Mse,
    /// Binary cross-entropy, for values in 0..1.
    Bce,
    /// Mean absolute error.
    L1,
    /// A smooth mean absolute error (Charbonnier and others, 1994).
    Charbonnier,
}

/// Outputs are clamped to `[EPSILON, 1 - EPSILON]`, so that logarithms stay finite.
const EPSILON: f64 = 1e-7;

/// The difference below which the Charbonnier loss is nearly quadratic, in the units of the values, as
/// Lai and others (2017) chose it.
pub(crate) const CHARBONNIER_EPSILON: f64 = 1e-3;

/// Tolerance of the rounding of scaled values.
const ROUNDING: f32 = 1e-5;

impl Loss {
    /// The error of one record: the mean over its values, summed in float64. NaN if a value is NaN.
    ///
    /// Mse: `mean((x - y)^2)`. Bce, in nats: `-mean(x ln y + (1 - x) ln(1 - y))`; targets are
    /// clamped to 0..1, outputs to 1e-7..1 - 1e-7, as Keras does. L1: `mean(|x - y|)`. Charbonnier:
    /// `mean(sqrt((x - y)^2 + 1e-6))`.
    pub fn error(self, target: &[f32], output: &[f32]) -> f64 {
        let sum = match self {
            Self::Mse => simd_dispatch(|| sum(target, output, |x, y| (x - y) * (x - y))),
            Self::Bce => sum(target, output, cross_entropy),
            Self::L1 => simd_dispatch(|| sum(target, output, |x, y| (x - y).abs())),
            Self::Charbonnier => simd_dispatch(|| sum(target, output, charbonnier)),
        };
        sum / target.len().max(1) as f64
    }

    /// Whether [`Loss::error`] clamps values of a target, by more than the rounding of scaled
    /// values.
    pub(crate) fn clamps(self, target: &[f32]) -> bool {
        let unit = -ROUNDING..=1.0 + ROUNDING;
        match self {
            Self::Mse | Self::L1 | Self::Charbonnier => false,
            Self::Bce => target.iter().any(|value| !unit.contains(value)),
        }
    }

    /// The name in pipelines and model cards.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mse => "mse",
            Self::Bce => "bce",
            Self::L1 => "l1",
            Self::Charbonnier => "charbonnier",
        }
    }
}

/// Returns the sum over pairs of values. It uses eight partial sums, since with a single one each
/// addition would wait for the previous one.
#[inline(always)]
fn sum(target: &[f32], output: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let term = |(&x, &y): (&f32, &f32)| term(f64::from(x), f64::from(y));
    let (targets, target_rest) = target.as_chunks::<8>();
    let (outputs, output_rest) = output.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in targets.iter().zip(outputs) {
        sums.iter_mut()
            .zip(x.iter().zip(y))
            .for_each(|(sum, pair)| *sum += term(pair));
    }
    sums.iter().sum::<f64>() + target_rest.iter().zip(output_rest).map(term).sum::<f64>()
}

fn cross_entropy(x: f64, y: f64) -> f64 {
    let (x, y) = (x.clamp(0.0, 1.0), y.clamp(EPSILON, 1.0 - EPSILON));
    -(x * y.ln() + (1.0 - x) * (1.0 - y).ln())
}

#[inline(always)]
fn charbonnier(x: f64, y: f64) -> f64 {
    ((x - y) * (x - y) + CHARBONNIER_EPSILON * CHARBONNIER_EPSILON).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mse_is_the_mean_of_squares() {
        assert_eq!(Loss::Mse.error(&[1.0, 2.0], &[2.0, 4.0]), 2.5);
        assert_eq!(Loss::L1.error(&[1.0, 2.0], &[2.0, 0.0]), 1.5);
        let equal = Loss::Charbonnier.error(&[1.0; 9], &[1.0; 9]);
        assert!((equal - 1e-3).abs() < 1e-12, "{equal}");
        let far = Loss::Charbonnier.error(&[1.0], &[4.0]);
        assert!((far - 9.000_001_f64.sqrt()).abs() < 1e-12, "{far}");
    }

    #[test]
    fn bce_of_a_coin_toss_is_ln_2() {
        let error = Loss::Bce.error(&[1.0, 0.0], &[0.5, 0.5]);
        assert!((error - std::f64::consts::LN_2).abs() < 1e-6, "{error}");
    }

    #[test]
    fn bce_of_certain_and_wrong_output_is_finite() {
        let error = Loss::Bce.error(&[1.0], &[0.0]);
        assert!(error.is_finite() && error > 16.0, "{error}");
    }

    #[test]
    fn only_bce_clamps_and_only_values_outside_of_its_range() {
        assert!(!Loss::Mse.clamps(&[-3.0]));
        assert!(!Loss::Bce.clamps(&[0.0, 0.5, 1.000_001]));
        assert!(Loss::Bce.clamps(&[0.5, 1.1]) && Loss::Bce.clamps(&[-0.1]));
    }

    #[test]
    fn error_of_nan_is_nan() {
        assert!(Loss::Mse.error(&[1.0], &[f32::NAN]).is_nan());
        assert!(Loss::Bce.error(&[1.0], &[f32::NAN]).is_nan());
    }
}
