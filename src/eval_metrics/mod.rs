//! Numerical quality metrics: principal components, classifiers on latents, ranking metrics, and
//! PSNR.

pub(crate) mod kmeans;
pub(crate) mod knn;
pub(crate) mod linear_probe;
pub(crate) mod nearest;
mod pca;
pub mod psnr;
pub(crate) mod roc;
#[cfg(test)]
mod testing;

use nalgebra::DMatrix;

pub(crate) use pca::Pca;
pub use psnr::psnr;

/// A row-major matrix of finite values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowMatrix<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> RowMatrix<'a> {
    /// Creates a matrix of rows of `width` values. An incomplete row at the end is left out.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        let width = width.max(1);
        Self {
            values: &values[..values.len() / width * width],
            width,
        }
    }

    /// Returns the number of values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether the matrix has no rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Iterates over the rows.
    fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.width)
    }

    /// Iterates over blocks of `rows` rows. The last block may have fewer.
    fn blocks(self, rows: usize) -> impl Iterator<Item = Self> {
        self.values
            .chunks(rows.max(1) * self.width)
            .map(move |values| Self {
                values,
                width: self.width,
            })
    }

    /// Returns the rows as columns of a matrix, the form that the matrix products need.
    fn columns(self) -> DMatrix<f64> {
        DMatrix::from_iterator(
            self.width,
            self.len(),
            self.values.iter().map(|&value| f64::from(value)),
        )
    }
}
