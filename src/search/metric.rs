//! Distances between latents, in float64.

use std::fmt;

use clap::ValueEnum;

use crate::system::simd_dispatch;

/// The number of sums that a loop over values keeps, which determines their rounding.
const LANES: usize = 16;

/// A distance between two vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    /// 1 minus the cosine of the angle: 0 for the same direction, 2 for opposite ones.
    #[default]
    Cosine,
    /// The length of the difference.
    Euclidean,
    /// The negative inner product: the largest product is the nearest.
    Dot,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
            Self::Dot => "dot",
        })
    }
}

/// A vector whose distance to others is computed.
#[derive(Debug, Clone)]
pub(crate) struct QueryVector {
    metric: Metric,
    values: Vec<f32>,
    /// The square of the length.
    square: f64,
}

impl QueryVector {
    /// Returns `None` if no vector has a distance to `values`: one of them is not finite, or all are
    /// 0 and the metric is the cosine.
    pub fn new(metric: Metric, values: Vec<f32>) -> Option<Self> {
        let square = dot(&values, &values);
        let is_usable = square.is_finite() && (square > 0.0 || metric != Metric::Cosine);
        is_usable.then_some(Self {
            metric,
            values,
            square,
        })
    }

    /// The distance to a vector of the same length. `None` if it is undefined: a value is not finite,
    /// or all are 0 and the metric is the cosine.
    #[inline(always)]
    pub fn distance(&self, row: &[f32]) -> Option<f64> {
        // The root of a product of equal numbers is exact, so that equal vectors have the distance 0.
        let norms = || (self.square * dot(row, row)).sqrt();
        // A sum of float64 of products of float32 does not overflow.
        Some(distance(self.metric, &self.values, row, norms))
            .filter(|distance| distance.is_finite())
    }

    /// Calls `with` for the distance to each of `rows`, which have the length of the vector.
    pub fn distances(&self, rows: &[f32], mut with: impl FnMut(usize, Option<f64>)) {
        simd_dispatch(|| {
            for (index, row) in rows.chunks_exact(self.values.len().max(1)).enumerate() {
                with(index, self.distance(row));
            }
        });
    }
}

/// The distance between two vectors of the same length; `norms` is the product of their norms. Not
/// finite if it is undefined.
#[inline(always)]
pub(super) fn distance(metric: Metric, x: &[f32], y: &[f32], norms: impl FnOnce() -> f64) -> f64 {
    match metric {
        Metric::Cosine => (1.0 - dot(x, y) / norms()).clamp(0.0, 2.0),
        Metric::Euclidean => squared_difference(x, y).sqrt(),
        Metric::Dot => -dot(x, y),
    }
}

/// The inner product of two vectors of the same length.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f64 {
    sum(x, y, |x, y| x * y)
}

#[inline(always)]
fn squared_difference(x: &[f32], y: &[f32]) -> f64 {
    sum(x, y, |x, y| (x - y) * (x - y))
}

/// Sums a term over the pairs of values. The sums of [`LANES`] positions are independent, so that the
/// loop is compiled to vector instructions.
#[inline(always)]
fn sum(x: &[f32], y: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let (chunks, others) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = chunks.remainder().iter().zip(others.remainder());
    let rest: f64 = rest.map(|(&one, &two)| term(one.into(), two.into())).sum();
    let mut sums = [0.0; LANES];
    for (chunk, other) in chunks.zip(others) {
        for ((sum, &one), &two) in sums.iter_mut().zip(chunk).zip(other) {
            *sum += term(one.into(), two.into());
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn distance(metric: Metric, x: &[f32], y: &[f32]) -> Option<f64> {
        QueryVector::new(metric, x.to_vec())?.distance(y)
    }

    #[test]
    fn distances_equal_those_of_scipy() {
        // The values are short fractions, whose sums of products are exact:
        // scipy.spatial.distance.cosine, .euclidean, and -numpy.dot.
        let x: Vec<f32> = (0..21).map(|n| (n % 7) as f32 - 2.5).collect();
        let y: Vec<f32> = (0..21).map(|n| (n % 5) as f32 * 0.5 - 1.0).collect();
        let near = |metric, expected: f64| {
            let found = distance(metric, &x, &y).unwrap();
            assert!((found - expected).abs() < 1e-12, "{metric}: {found}");
        };
        near(Metric::Dot, 1.0);
        near(Metric::Euclidean, 10.111_874_208_078_342);
        near(Metric::Cosine, 1.031_915_345_116_156_5);
    }

    #[test]
    fn equal_vectors_have_the_distance_zero() {
        for seed in 1..50_u16 {
            let values: Vec<f32> = (1..40)
                .map(|n| (f32::from(seed) * n as f32).sin())
                .collect();
            for metric in [Metric::Cosine, Metric::Euclidean] {
                assert_eq!(distance(metric, &values, &values), Some(0.0), "{metric}");
            }
        }
    }

    #[test]
    fn undefined_distances_are_none() {
        let (zero, one, nan) = ([0.0; 2], [1.0, 0.0], [f32::NAN, 0.0]);
        for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
            assert_eq!(distance(metric, &one, &nan), None, "{metric}");
            assert_eq!(distance(metric, &nan, &one), None, "{metric}");
            let is_cosine = metric == Metric::Cosine;
            assert_eq!(distance(metric, &one, &zero).is_none(), is_cosine);
            assert_eq!(distance(metric, &zero, &one).is_none(), is_cosine);
        }
        assert_eq!(
            distance(Metric::Euclidean, &one, &[f32::INFINITY, 0.0]),
            None
        );
        assert_eq!(distance(Metric::Cosine, &one, &[-3.0, 0.0]), Some(2.0));
    }
}
