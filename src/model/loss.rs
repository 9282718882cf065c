//! The losses that autoencoders are trained with, as the error of one record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::system::simd_dispatch;

/// How far a reconstruction is from its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Mean squared error.
    #[default]
    Mse,
    /// Binary cross-entropy, for values in 0..1.
    Bce,
}

/// Keeps logarithms finite: outputs are clamped to `[EPSILON, 1 - EPSILON]`.
const EPSILON: f64 = 1e-7;

impl Loss {
    /// The error of one record, as the mean over its values; summed in float64. NaN where a value
    /// is NaN.
    ///
    /// Mse: `mean((x - y)^2)`. Bce, in nats: `-mean(x ln y + (1 - x) ln(1 - y))`; targets are
    /// clamped to 0..1, outputs to 1e-7 off its ends, as Keras does.
    pub fn error(self, target: &[f32], output: &[f32]) -> f64 {
        let sum = match self {
            Self::Mse => simd_dispatch(|| sum(target, output, |x, y| (x - y) * (x - y))),
            Self::Bce => sum(target, output, cross_entropy),
        };
        sum / target.len().max(1) as f64
    }

    /// The name as it stands in pipelines and cards.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mse => "mse",
            Self::Bce => "bce",
        }
    }
}

/// The sum over pairs of values. Eight sums side by side: one alone would wait for itself at every
/// value.
#[inline(always)]
fn sum(target: &[f32], output: &[f32], of: impl Fn(f64, f64) -> f64) -> f64 {
    let of = |(&x, &y): (&f32, &f32)| of(f64::from(x), f64::from(y));
    let (targets, target_rest) = target.as_chunks::<8>();
    let (outputs, output_rest) = output.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in targets.iter().zip(outputs) {
        sums.iter_mut()
            .zip(x.iter().zip(y))
            .for_each(|(sum, pair)| *sum += of(pair));
    }
    sums.iter().sum::<f64>() + target_rest.iter().zip(output_rest).map(of).sum::<f64>()
}

fn cross_entropy(x: f64, y: f64) -> f64 {
    let (x, y) = (x.clamp(0.0, 1.0), y.clamp(EPSILON, 1.0 - EPSILON));
    -(x * y.ln() + (1.0 - x) * (1.0 - y).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mse_is_the_mean_of_squares() {
        assert_eq!(Loss::Mse.error(&[1.0, 2.0], &[2.0, 4.0]), 2.5);
    }

    #[test]
    fn bce_of_a_coin_toss_is_ln_2() {
        let error = Loss::Bce.error(&[1.0, 0.0], &[0.5, 0.5]);
        assert!((error - std::f64::consts::LN_2).abs() < 1e-6, "{error}");
    }

    #[test]
    fn bce_stays_finite_where_the_output_is_certain_and_wrong() {
        let error = Loss::Bce.error(&[1.0], &[0.0]);
        assert!(error.is_finite() && error > 16.0, "{error}");
    }

    #[test]
    fn a_value_that_is_no_number_makes_an_error_that_is_none() {
        assert!(Loss::Mse.error(&[1.0], &[f32::NAN]).is_nan());
        assert!(Loss::Bce.error(&[1.0], &[f32::NAN]).is_nan());
    }
}
