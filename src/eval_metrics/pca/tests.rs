//! Unit tests of the module `pca`.

#![allow(clippy::unwrap_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::super::testing::clouds;
use super::*;
use crate::eval_metrics::pca::solve::Spectrum;

fn fit(values: &[f32], width: usize, size: usize) -> Option<Pca> {
    let pass = |work: &mut dyn FnMut(&[f32])| {
        values.chunks(7 * width).for_each(work);
        Ok::<_, ()>(())
    };
    Pca::fit(width, size, pass).unwrap()
}

fn mse(pca: &Pca, values: &[f32]) -> f64 {
    let back = pca.decode(&pca.encode(values));
    let squares = values
        .iter()
        .zip(&back)
        .map(|(x, y)| f64::from(x - y).powi(2));
    squares.sum::<f64>() / values.len() as f64
}

fn assert_near(value: f64, expected: f64, share: f64) {
    assert!(
        (value / expected - 1.0).abs() < share,
        "{value}, expected {expected}"
    );
}

#[test]
fn variances_and_error_match_scikit_learn() {
    // PCA(2).fit(rows 0..120) of the same clusters: explained_variance_,
    // explained_variance_ratio_.sum(), and the mean squared error of
    // inverse_transform(transform(rows 120..200)).
    let ((fitted, _), (scored, _)) = (clouds(120, 0), clouds(80, 120));
    let pca = fit(&fitted, 6, 2).unwrap();
    assert_near(pca.explained()[0], 46.191_658_649_236_47, 1e-8);
    assert_near(pca.explained()[1], 35.645_747_589_727_14, 1e-8);
    assert_near(pca.explained_share(), 0.650_709_832_758_151_3, 1e-8);
    assert_near(mse(&pca, &scored), 7.671_466_800_802_268, 1e-5);
}

/// Returns 60 rows of 1,100 values, too wide for the exact decomposition: 8 directions of
/// decreasing weight, and a little noise.
fn wide() -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut normal = || -> f32 { rng.sample(StandardNormal) };
    let directions: Vec<f32> = (0..8 * 1100).map(|_| normal()).collect();
    let row = |_| {
        let weights: [f32; 8] = std::array::from_fn(|index| normal() / (1 + index) as f32);
        let value = |at: usize| {
            (0..8)
                .map(|index| weights[index] * directions[index * 1100 + at])
                .sum::<f32>()
        };
        (0..1100)
            .map(|at| value(at) + 3.0 + 0.05 * normal())
            .collect::<Vec<f32>>()
    };
    (0..60).flat_map(row).collect()
}

#[test]
fn iteration_on_wide_rows_matches_exact_decomposition() {
    let values = wide();
    let iterated = fit(&values, 1100, 5).unwrap();
    // The nonzero eigenvalues of the covariance are those of the 60 x 60 Gram matrix.
    let rows = DMatrix::from_column_slice(1100, 60, &values).cast::<f64>();
    let mean = rows.column_mean();
    let rows = DMatrix::from_fn(1100, 60, |at, row| rows[(at, row)] - mean[at]);
    let products = rows.transpose() * &rows;
    let all = Spectrum::decompose(products, 60).unwrap();
    for (found, expected) in iterated.explained().iter().zip(&all.values) {
        assert_near(*found, expected / 59.0, 1e-4);
    }
    let left: f64 = all.values[5..].iter().sum();
    assert_near(mse(&iterated, &values), left / values.len() as f64, 1e-3);
}

#[test]
fn components_are_orthonormal_and_at_most_as_many_as_values() {
    let (values, _) = clouds(50, 0);
    let pca = fit(&values, 6, 99).unwrap();
    assert_eq!(pca.size(), 6);
    let products = pca.components.transpose() * &pca.components;
    assert!((products - DMatrix::identity(6, 6)).amax() < 1e-6);
    assert!(mse(&pca, &values) < 1e-10);
    assert_near(pca.explained_share(), 1.0, 1e-9);
}

#[test]
fn constant_rows_are_reconstructed_exactly() {
    for width in [4, 1100] {
        let values = vec![3.0; 5 * width];
        let pca = fit(&values, width, 2).unwrap();
        assert_eq!(mse(&pca, &values), 0.0);
        assert_eq!(pca.explained_share(), 1.0);
    }
}

#[test]
fn too_few_rows_or_non_finite_values_return_none() {
    assert!(fit(&[], 4, 2).is_none());
    assert!(fit(&[1.0; 4], 4, 2).is_none());
    assert!(fit(&[1.0; 8], 4, 0).is_none());
    for width in [2, 1100] {
        let mut values = vec![1.0; 3 * width];
        values[1] = f32::NAN;
        assert!(fit(&values, width, 1).is_none());
    }
}

#[test]
fn error_of_pass_is_returned() {
    assert_eq!(Pca::fit(4, 2, |_| Err("gone")).err(), Some("gone"));
}
