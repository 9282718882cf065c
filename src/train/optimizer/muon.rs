//! Muon: the orthogonalized momentum of a weight matrix (Jordan and others, 2024).

use crate::train::elementwise::squares;
use crate::train::gemm::{Accumulate, Matrix, multiply_on_threads};
use crate::train::layers::transposed;
use crate::train::optimizer::moment::{MIN_MOMENT, without_tiny};

const MOMENTUM: f32 = 0.95;

/// The minimum magnitude, other than 0, of a value of a matrix whose norm is 1. The iteration
/// enlarges values at most 500 times.
const MIN_SHARE: f32 = 1e-9;

/// Returns the orthogonalized Nesterov momentum.
pub(super) fn muon(moment: &mut [f32], gradient: &[f32], shape: [usize; 2]) -> Vec<f32> {
    let ahead = |(momentum, derivative): (&mut f32, &f32)| {
        *momentum = without_tiny(*momentum * MOMENTUM + derivative, MIN_MOMENT);
        derivative + *momentum * MOMENTUM
    };
    orthogonal(moment.iter_mut().zip(gradient).map(ahead).collect(), shape)
}

/// Returns the factor that makes the steps as large as Adam's: an orthogonal matrix has an RMS of 1
/// / sqrt(longer side), and Adam's steps have about 0.2.
pub(super) fn muon_scale(rows: usize, columns: usize) -> f32 {
    0.2 * (rows.max(columns) as f32).sqrt()
}

/// Returns approximately the nearest matrix with orthonormal rows or columns, by five steps of the
/// Newton-Schulz iteration, whose coefficients move singular values from 0..1 to about 0.7..1.2
/// quickly.
fn orthogonal(matrix: Vec<f32>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    if rows > columns {
        let turned = orthogonal(transposed(&matrix, rows, columns), [columns, rows]);
        return transposed(&turned, columns, rows);
    }
    let norm = squares(&matrix).sqrt() as f32 + 1e-7;
    let mut x = matrix;
    x.iter_mut()
        .for_each(|value| *value = without_tiny(*value / norm, MIN_SHARE));
    let (mut square, mut mixed) = (vec![0.0; rows * rows], vec![0.0; rows * rows]);
    let mut next = vec![0.0; x.len()];
    for _ in 0..5 {
        let wide = Matrix::new(&x, rows, columns);
        multiply_on_threads(wide, wide.transposed(), &mut square, Accumulate::Replace);
        let squared = Matrix::new(&square, rows, rows);
        multiply_on_threads(squared, squared, &mut mixed, Accumulate::Replace);
        mixed
            .iter_mut()
            .zip(&square)
            .for_each(|(mixed, square)| *mixed = 2.0315 * *mixed - 4.775 * square);
        multiply_on_threads(
            Matrix::new(&mixed, rows, rows),
            wide,
            &mut next,
            Accumulate::Replace,
        );
        x.iter_mut()
            .zip(&next)
            .for_each(|(x, next)| *x = 3.4445 * *x + next);
    }
    x
}
