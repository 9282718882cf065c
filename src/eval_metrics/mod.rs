//! Measures of quality as pure mathematics: what a linear model would have done, and how well codes
//! and errors tell records apart.

pub mod knn;
mod pca;
pub mod linear_probe;
pub mod psnr;
pub mod roc;
#[cfg(test)]
mod testing;

pub use pca::Pca;
pub use psnr::psnr;

use nalgebra::DMatrix;

/// Rows of equal width, laid one after the other; all finite.
#[derive(Debug, Clone, Copy)]
pub struct RowMatrix<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> RowMatrix<'a> {
    /// `values` holds whole rows of `width` values; what is left over at its end is no row.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        let width = width.max(1);
        Self {
            values: &values[..values.len() / width * width],
            width,
        }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Row after row.
    fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.width)
    }

    /// Blocks of `rows` rows, the last perhaps of fewer.
    fn blocks(self, rows: usize) -> impl Iterator<Item = Self> {
        self.values
            .chunks(rows.max(1) * self.width)
            .map(move |values| Self {
                values,
                width: self.width,
            })
    }

    /// The rows as columns of a matrix, which is how a matrix product wants them.
    fn columns(self) -> DMatrix<f64> {
        DMatrix::from_iterator(
            self.width,
            self.len(),
            self.values.iter().map(|&value| f64::from(value)),
        )
    }
}
