//! The principal components of data: exactly for few columns, otherwise iteratively.

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::eval_metrics::pca::{BLOCK_VALUES, dimensions};

/// Maximum width of a row for an exact decomposition of the covariance, which takes a few seconds
/// and 8 MiB.
pub(super) const EXACT_WIDTH: usize = 1024;

/// Maximum width of a row for an exact decomposition of fewer rows than values.
pub(super) const SMALL_WIDTH: usize = 128;

/// Number of directions that are computed in addition to the components (oversampling), so that the
/// iteration converges faster.
pub(super) const OVERSAMPLING: usize = 16;

/// Maximum number of iterations, each of which reads all rows.
const MAX_PASSES: usize = 16;

/// The iteration has converged if a pass increases the captured variance by less than this share of
/// the variance that is not captured.
const CONVERGED: f64 = 1e-4;

/// Number of rows of the components that are computed at a time.
const ROTATED_ROWS: usize = 1 << 12;

/// Components with the sums of squares along them, descending, and the sum of all squares.
pub(crate) struct PcaSolution {
    /// Width x code size.
    pub(super) components: DMatrix<f32>,
    pub(super) values: Vec<f64>,
    pub(super) variance: f64,
}

/// Calls `work` with blocks of the rows, centered, as columns of matrices.
pub(super) fn in_blocks<E>(
    mean: &DVector<f64>,
    pass: &mut impl FnMut(&mut dyn FnMut(&[f32])) -> Result<(), E>,
    work: &mut dyn FnMut(DMatrix<f32>),
) -> Result<(), E> {
    let width = mean.len();
    let max_values = (BLOCK_VALUES / width).max(1) * width;
    let mut block = Vec::with_capacity(max_values);
    let mut flush = |values: &mut Vec<f32>| {
        let rows = values.len() / width;
        work(DMatrix::from_vec(width, rows, std::mem::take(values)));
    };
    pass(&mut |rows| {
        for row in rows.chunks_exact(width) {
            block.extend(
                row.iter()
                    .zip(mean)
                    .map(|(&value, mean)| (f64::from(value) - mean) as f32),
            );
            if block.len() >= max_values {
                flush(&mut block);
            }
        }
    })?;
    if !block.is_empty() {
        flush(&mut block);
    }
    Ok(())
}

type Blocks<'a, E> = &'a mut dyn FnMut(&mut dyn FnMut(DMatrix<f32>)) -> Result<(), E>;

pub(super) fn exact<E>(
    width: usize,
    size: usize,
    blocks: Blocks<'_, E>,
) -> Result<Option<PcaSolution>, E> {
    let mut squares = DMatrix::<f64>::zeros(width, width);
    blocks(&mut |rows| {
        let rows = rows.cast::<f64>();
        squares.gemm(1.0, &rows, &rows.transpose(), 1.0);
    })?;
    let variance = squares.trace();
    Ok(
        Spectrum::decompose(squares, size).map(|Spectrum { values, directions }| PcaSolution {
            components: directions.map(|value| value as f32),
            values,
            variance,
        }),
    )
}

pub(super) fn iterate<E>(
    width: usize,
    size: usize,
    blocks: Blocks<'_, E>,
) -> Result<Option<PcaSolution>, E> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let dimensions = dimensions(width, size);
    let start = DMatrix::<f32>::from_fn(width, dimensions, |_, _| rng.sample(StandardNormal));
    let mut basis = start.qr().q();
    let mut projection = basis.transpose();
    drop(basis);
    let mut before = 0.0;
    let mut passes = 0;
    loop {
        passes += 1;
        let mut covariance = DMatrix::<f64>::zeros(dimensions, dimensions);
        let mut next_basis = DMatrix::<f32>::zeros(width, dimensions);
        let mut variance = 0.0;
        blocks(&mut |rows| {
            let codes = &projection * &rows;
            next_basis.gemm(1.0, &rows, &codes.transpose(), 1.0);
            let codes = codes.cast::<f64>();
            covariance.gemm(1.0, &codes, &codes.transpose(), 1.0);
            variance += rows
                .iter()
                .map(|&value| f64::from(value).powi(2))
                .sum::<f64>();
        })?;
        let Some(Spectrum { values, directions }) = Spectrum::decompose(covariance, size) else {
            return Ok(None);
        };
        let captured: f64 = values.iter().sum();
        if captured - before <= CONVERGED * (variance - captured).max(1e-6 * variance)
            || passes == MAX_PASSES
        {
            drop(next_basis);
            return Ok(Some(PcaSolution {
                components: rotate(&projection, &directions),
                values,
                variance,
            }));
        }
        before = captured;
        // The basis takes most of the memory: no more than two copies exist at a time.
        drop(projection);
        basis = next_basis.qr().q();
        projection = basis.transpose();
        drop(basis);
    }
}

/// Returns the product of the transposed basis and the directions within it. It is computed in
/// float64, in blocks of values.
fn rotate(projection: &DMatrix<f32>, directions: &DMatrix<f64>) -> DMatrix<f32> {
    let (width, size) = (projection.ncols(), directions.ncols());
    let mut components = DMatrix::zeros(width, size);
    for first in (0..width).step_by(ROTATED_ROWS) {
        let rows = ROTATED_ROWS.min(width - first);
        let basis = projection.columns(first, rows).transpose().cast::<f64>();
        let rotated = (basis * directions).map(|value| value as f32);
        components.rows_mut(first, rows).copy_from(&rotated);
    }
    components
}

/// Eigenvalues of a symmetric matrix, descending, and their eigenvectors as columns.
pub(super) struct Spectrum {
    pub(super) values: Vec<f64>,
    pub(super) directions: DMatrix<f64>,
}

impl Spectrum {
    /// Decomposes a matrix, and returns the `size` largest eigenvalues. Returns `None` if the matrix
    /// has a value that is not finite, or the decomposition does not converge.
    pub(super) fn decompose(matrix: DMatrix<f64>, size: usize) -> Option<Self> {
        let rows = matrix.nrows();
        if matrix.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let eigen = SymmetricEigen::try_new(matrix, f64::EPSILON, 64 * rows.max(1))?;
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        order.truncate(size);
        let values = order
            .iter()
            .map(|&index| eigen.eigenvalues[index])
            .collect();
        Some(Self {
            values,
            directions: eigen.eigenvectors.select_columns(&order),
        })
    }
}
