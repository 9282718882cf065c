//! Principal components, which have the smallest error of all linear autoencoders of a code size.

use nalgebra::{DMatrix, DMatrixView, DVector, SymmetricEigen};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Maximum width of a row for an exact decomposition of the covariance, which takes a few seconds
/// and 8 MiB.
const EXACT_WIDTH: usize = 1024;
/// Maximum width of a row for an exact decomposition of fewer rows than values.
const SMALL_WIDTH: usize = 128;
/// Number of directions that are computed in addition to the components (oversampling), so that the
/// iteration converges faster.
const OVERSAMPLING: usize = 16;
/// Maximum number of iterations, each of which reads all rows.
const MAX_PASSES: usize = 16;
/// The iteration has converged if a pass increases the captured variance by less than this share of
/// the variance that is not captured.
const CONVERGED: f64 = 1e-4;
/// Number of values in a block: 8 MiB of float64.
const BLOCK_VALUES: usize = 1 << 20;
/// Number of rows of the components that are computed at a time.
const ROTATED_ROWS: usize = 1 << 12;
/// Number of copies of the basis during an iteration.
const BASIS_COPIES: usize = 2;
/// Number of matrices of the size of the covariance during an exact decomposition.
const EXACT_COPIES: usize = 4;

/// Principal components of a set of rows.
#[derive(Debug)]
pub struct Pca {
    mean: DVector<f32>,
    /// Width x code size, with orthonormal columns.
    components: DMatrix<f32>,
    explained: Vec<f64>,
    variance: f64,
}

impl Pca {
    /// Fits `size` components (at most `width`) to rows of `width` values. `pass` calls its
    /// argument with the same rows each time, some complete rows per call. All values must be
    /// finite. `pass` is called twice for rows of at most 1,024 values, whose covariance is
    /// decomposed exactly, and up to 17 times for longer ones and for fewer rows than values,
    /// which are decomposed by block subspace iteration (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM
    /// Review 53(2), 2011). Returns `None` if there are fewer than two rows, `size` is 0, a value
    /// is not finite, or the decomposition does not converge.
    ///
    /// # Errors
    /// Returns the error of `pass`.
    pub fn fit<E>(
        width: usize,
        size: usize,
        mut pass: impl FnMut(&mut dyn FnMut(&[f32])) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let size = size.min(width);
        let (mut count, mut sums) = (0, DVector::<f64>::zeros(width));
        pass(&mut |rows| {
            for row in rows.chunks_exact(width.max(1)) {
                count += 1;
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, &value)| *sum += f64::from(value));
            }
        })?;
        if count < 2 || size == 0 {
            return Ok(None);
        }
        let mean = sums / count as f64;
        let mut blocks = |work: &mut dyn FnMut(DMatrix<f32>)| in_blocks(&mean, &mut pass, work);
        // Fewer rows than values have few directions, which the iteration finds sooner.
        let is_exact = width <= SMALL_WIDTH || (width <= EXACT_WIDTH && count >= width);
        let found = if is_exact {
            exact(width, size, &mut blocks)?
        } else {
            iterate(width, size, &mut blocks)?
        };
        Ok(found
            .filter(|found| found.variance.is_finite())
            .map(|found| {
                let freedom = (count - 1) as f64;
                let explained = found.values.iter().map(|value| value.max(0.0) / freedom);
                Self {
                    mean: mean.map(|value| value as f32),
                    components: found.components,
                    explained: explained.collect(),
                    variance: found.variance / freedom,
                }
            }))
    }

    /// Returns the number of values of the directions that `size` components for rows of `width`
    /// values are computed from.
    pub fn basis_values(width: usize, size: usize) -> usize {
        let directions = if width <= EXACT_WIDTH {
            width
        } else {
            dimensions(width, size)
        };
        directions.saturating_mul(width)
    }

    /// Returns the maximum number of bytes that fitting takes, without the rows that `pass` holds.
    pub fn fit_bytes(width: usize, size: usize) -> u64 {
        let bytes = |values: usize, each: usize, copies: usize| {
            (values as u64).saturating_mul((each * copies) as u64)
        };
        let iterated = bytes(
            dimensions(width, size).saturating_mul(width),
            size_of::<f32>(),
            BASIS_COPIES,
        );
        let decomposed = match width {
            ..=EXACT_WIDTH => bytes(width * width, size_of::<f64>(), EXACT_COPIES),
            _ => 0,
        };
        // A block exists in both precisions, and transposed.
        let blocks = bytes(BLOCK_VALUES.max(width), size_of::<f64>(), 3);
        iterated.max(decomposed).saturating_add(blocks)
    }

    /// Returns the number of components.
    pub fn size(&self) -> usize {
        self.components.ncols()
    }

    /// Returns the variance along each component, descending, in the squared units of the rows.
    /// Sums are divided by the number of rows minus one.
    pub fn explained(&self) -> &[f64] {
        &self.explained
    }

    /// Returns the share of the variance that the components explain, 0 to 1; 1 for constant rows.
    pub fn explained_share(&self) -> f64 {
        if self.variance > 0.0 {
            (self.explained.iter().sum::<f64>() / self.variance).min(1.0)
        } else {
            1.0
        }
    }

    /// Returns the codes of rows, row-major.
    pub fn encode(&self, rows: &[f32]) -> Vec<f32> {
        let mut centered =
            DMatrixView::from_slice(rows, self.mean.len(), rows.len() / self.mean.len())
                .into_owned();
        centered
            .column_iter_mut()
            .for_each(|mut row| row -= &self.mean);
        (self.components.transpose() * centered).data.into()
    }

    /// Returns the reconstructions of codes, row-major.
    pub fn decode(&self, codes: &[f32]) -> Vec<f32> {
        let codes = DMatrixView::from_slice(codes, self.size(), codes.len() / self.size());
        let mut rows = &self.components * codes;
        rows.column_iter_mut().for_each(|mut row| row += &self.mean);
        rows.data.into()
    }
}

/// Returns the number of directions that the iteration computes.
fn dimensions(width: usize, size: usize) -> usize {
    size.saturating_add(OVERSAMPLING).min(width)
}

/// Components with the sums of squares along them, descending, and the sum of all squares.
struct PcaSolution {
    /// Width x code size.
    components: DMatrix<f32>,
    values: Vec<f64>,
    variance: f64,
}

/// Calls `work` with blocks of the rows, centered, as columns of matrices.
fn in_blocks<E>(
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

fn exact<E>(width: usize, size: usize, blocks: Blocks<'_, E>) -> Result<Option<PcaSolution>, E> {
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

fn iterate<E>(width: usize, size: usize, blocks: Blocks<'_, E>) -> Result<Option<PcaSolution>, E> {
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
struct Spectrum {
    values: Vec<f64>,
    directions: DMatrix<f64>,
}

impl Spectrum {
    /// Decomposes a matrix, and returns the `size` largest eigenvalues. Returns `None` if the matrix
    /// has a value that is not finite, or the decomposition does not converge.
    fn decompose(matrix: DMatrix<f64>, size: usize) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::clouds;
    use super::*;

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
}
