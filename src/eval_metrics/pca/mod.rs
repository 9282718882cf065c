//! Principal components, which have the smallest error of all linear autoencoders of a code size.

pub(crate) mod solve;

use nalgebra::{DMatrix, DMatrixView, DVector};

use crate::eval_metrics::pca::solve::{
    EXACT_WIDTH, OVERSAMPLING, SMALL_WIDTH, exact, in_blocks, iterate,
};

/// Number of values in a block: 8 MiB of float64.
const BLOCK_VALUES: usize = 1 << 20;
/// Number of copies of the basis during an iteration.
const BASIS_COPIES: usize = 2;
/// Number of matrices of the size of the covariance during an exact decomposition.
const EXACT_COPIES: usize = 4;

/// Principal components of a set of rows.
#[derive(Debug)]
pub(crate) struct Pca {
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
    pub(crate) fn basis_values(width: usize, size: usize) -> usize {
        let directions = if width <= EXACT_WIDTH {
            width
        } else {
            dimensions(width, size)
        };
        directions.saturating_mul(width)
    }

    /// Returns the maximum number of bytes that fitting takes, without the rows that `pass` holds.
    pub(crate) fn fit_bytes(width: usize, size: usize) -> u64 {
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

    /// Returns the direction of the component of this index; `None` if there is none.
    pub(crate) fn component(&self, index: usize) -> Option<Vec<f32>> {
        let exists = index < self.size();
        exists.then(|| self.components.column(index).iter().copied().collect())
    }

    /// Returns the variance along each component, descending, in the squared units of the rows.
    /// Sums are divided by the number of rows minus one.
    pub(crate) fn explained(&self) -> &[f64] {
        &self.explained
    }

    /// Returns the share of the variance that the components explain, 0 to 1; 1 for constant rows.
    pub(crate) fn explained_share(&self) -> f64 {
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

#[cfg(test)]
mod tests;
