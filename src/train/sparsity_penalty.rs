//! The sparsity penalty on the code, which is added to the loss, and its gradient.

use super::elementwise::add_rows;
use crate::train::config::network::{Sparsity, SparsityPenalty};

/// Keeps logarithms finite if a unit is never, or always, active.
const EPSILON: f32 = 1e-6;

/// The codes of some records of a batch, and the gradient of the penalty with respect to them.
pub(crate) struct CodeGradients<'a> {
    /// `[records, units]`.
    pub values: &'a [f32],
    /// Receives the gradient of the penalty with respect to the codes.
    pub gradient: &'a mut Vec<f32>,
}

/// Returns the penalty on the codes of a batch, multiplied by its weight.
///
/// L1: the mean of `|a|`. KL: the mean over units of `KL(target || m)`, where `m` is a unit's mean
/// activation over the batch (Ng, "Sparse autoencoder", 2011); activations lie in 0..1.
pub fn penalty(
    &Sparsity {
        penalty,
        weight,
        target,
    }: &Sparsity,
    units: usize,
    parts: &mut [CodeGradients<'_>],
) -> f32 {
    let count: usize = parts.iter().map(|part| part.values.len()).sum();
    let share = weight / count.max(1) as f32;
    match penalty {
        SparsityPenalty::L1 => {
            let sign = |value: f32| if value == 0.0 { 0.0 } else { value.signum() };
            let mut sum = 0.0;
            for CodeGradients { values, gradient } in parts {
                sum += values
                    .iter()
                    .map(|value| f64::from(value.abs()))
                    .sum::<f64>();
                gradient.clear();
                gradient.extend(values.iter().map(|&value| share * sign(value)));
            }
            share * sum as f32
        }
        SparsityPenalty::Kl => {
            let mut means = vec![0.0; units];
            parts
                .iter()
                .for_each(|part| add_rows(part.values, &mut means));
            means
                .iter_mut()
                .for_each(|mean| *mean *= units as f32 / count.max(1) as f32);
            let divergence = |mean: &f32| {
                let mean = mean.clamp(EPSILON, 1.0 - EPSILON);
                target * (target / mean).ln()
                    + (1.0 - target) * ((1.0 - target) / (1.0 - mean)).ln()
            };
            let derivative = |&mean: &f32| {
                let inside = (EPSILON..=1.0 - EPSILON).contains(&mean);
                if inside {
                    share * ((1.0 - target) / (1.0 - mean) - target / mean)
                } else {
                    0.0
                }
            };
            let record_gradient: Vec<f32> = means.iter().map(derivative).collect();
            for CodeGradients { values, gradient } in parts {
                gradient.clear();
                gradient.extend(record_gradient.iter().cycle().take(values.len()));
            }
            weight * means.iter().map(divergence).sum::<f32>() / units.max(1) as f32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_penalty_is_the_divergence_of_mean_activations() {
        let kl =
            |rho: f64, m: f64| rho * (rho / m).ln() + (1.0 - rho) * ((1.0 - rho) / (1.0 - m)).ln();
        let expected = 2.0 * (kl(0.1, 0.2) + kl(0.1, 0.5)) / 2.0;
        let sparsity = Sparsity {
            penalty: SparsityPenalty::Kl,
            weight: 2.0,
            target: 0.1,
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut parts = [
            CodeGradients {
                values: &[0.1, 0.4],
                gradient: &mut first,
            },
            CodeGradients {
                values: &[0.3, 0.6],
                gradient: &mut second,
            },
        ];
        let found = f64::from(penalty(&sparsity, 2, &mut parts));
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        assert_eq!(first, second);
        assert!(
            first.iter().all(|&derivative| derivative > 0.0),
            "{first:?}: both units are too active"
        );
    }

    #[test]
    fn gradients_of_penalties_equal_finite_differences() {
        for kind in [SparsityPenalty::L1, SparsityPenalty::Kl] {
            let sparsity = Sparsity {
                penalty: kind,
                weight: 0.7,
                target: 0.05,
            };
            let codes = [0.1, 0.4, 0.3, 0.6, 0.2, 0.35];
            let of = |values: &[f32]| {
                let (mut first, mut second) = (Vec::new(), Vec::new());
                let (a, b) = values.split_at(2);
                let mut parts = [
                    CodeGradients {
                        values: a,
                        gradient: &mut first,
                    },
                    CodeGradients {
                        values: b,
                        gradient: &mut second,
                    },
                ];
                (
                    f64::from(penalty(&sparsity, 2, &mut parts)),
                    [first, second].concat(),
                )
            };
            let (_, gradient) = of(&codes);
            for (index, derivative) in gradient.into_iter().enumerate() {
                let at = |off: f32| {
                    let mut moved = codes;
                    moved[index] += off;
                    of(&moved).0
                };
                let expected = (at(0.01) - at(-0.01)) / 0.02;
                assert!(
                    (expected - f64::from(derivative)).abs() < 2e-3,
                    "{kind:?}, {index}: {derivative}, not {expected}"
                );
            }
        }
    }
}
