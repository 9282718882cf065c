//! Products of matrices: the one place that calls the library for them.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

/// Multiplications that are worth another thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// A matrix of numbers that lie elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// From one row to the next, from one column to the next.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// The matrix `[rows, columns]` whose rows lie one after the other.
    ///
    /// # Panics
    /// When there are fewer, or more, values.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a matrix of {rows} x {columns}"
        );
        Self {
            values,
            rows,
            columns,
            strides: [columns, 1],
        }
    }

    /// Some of its columns.
    ///
    /// # Panics
    /// When it has not so many.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.columns,
            "columns {range:?} of {}",
            self.columns
        );
        let skipped = (range.start * self.strides[1]).min(self.values.len());
        Self {
            values: &self.values[skipped..],
            columns: range.len(),
            ..self
        }
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// When it has not so many.
    pub fn rows(self, range: Range<usize>) -> Self {
        self.transposed().columns(range).transposed()
    }

    /// The same with rows and columns exchanged; nothing is moved.
    pub fn transposed(self) -> Self {
        let [row, column] = self.strides;
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [column, row],
            ..self
        }
    }
}

/// What becomes of what stands where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// The product takes its place.
    Replace,
    /// The product is added to it.
    Add,
}

/// Puts `a b`, `[a.rows, b.columns]`, row after row into `out`, on this thread.
///
/// # Panics
/// When the shapes do not fit.
#[expect(unsafe_code, reason = "the library takes pointers and strides")]
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], before: Accumulate) {
    assert_eq!(
        a.columns, b.rows,
        "columns of the left matrix, rows of the right"
    );
    assert_eq!(out.len(), a.rows * b.columns, "values of the product");
    let stride = |matrix: &Matrix<'_>| matrix.strides.map(usize::cast_signed);
    let ([a_row, a_column], [b_row, b_column]) = (stride(&a), stride(&b));
    let (add, keep) = (
        before == Accumulate::Add,
        f32::from(u8::from(before == Accumulate::Add)),
    );
    // SAFETY: by its constructors, the last value that a matrix's strides lead to lies within its
    // slice; the lengths that the product has to do with were compared above; `out` is borrowed
    // mutably, so nothing else points there.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns.cast_signed(),
            add,
            a.values.as_ptr(),
            a_column,
            a_row,
            b.values.as_ptr(),
            b_column,
            b_row,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// As [`multiply`], on all threads: each computes some of the rows.
///
/// # Panics
/// When the shapes do not fit.
pub fn multiply_on_threads(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], before: Accumulate) {
    let worth =
        (a.rows * a.columns * b.columns / WORTH_A_THREAD).clamp(1, rayon::current_num_threads());
    let rows = a.rows.div_ceil(worth).max(1);
    assert_eq!(out.len(), a.rows * b.columns, "values of the product");
    out.par_chunks_mut((rows * b.columns).max(1))
        .enumerate()
        .for_each(|(number, out)| {
            let first = number * rows;
            multiply(a.rows(first..(first + rows).min(a.rows)), b, out, before);
        });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn products_are_those_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 1.0];
        let (a, b) = (Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2));
        let mut out = [1.0; 4];
        multiply(a, b, &mut out, Accumulate::Replace);
        assert_eq!(out, [0.5, 7.0, 2.0, 16.0]);
        multiply(a, b, &mut out, Accumulate::Add);
        assert_eq!(out, [1.0, 14.0, 4.0, 32.0]);
        let mut out = [f32::NAN; 9];
        multiply(
            a.transposed(),
            b.transposed(),
            &mut out,
            Accumulate::Replace,
        );
        assert_eq!(out, [1.0, 7.0, 4.5, 2.0, 8.0, 6.0, 3.0, 9.0, 7.5]);
        multiply(
            a.columns(1..3).transposed(),
            b.transposed(),
            &mut out[..6],
            Accumulate::Replace,
        );
        assert_eq!(out[..6], [2.0, 8.0, 6.0, 3.0, 9.0, 7.5]);
    }

    #[test]
    fn large_products_are_sums_over_rows_and_columns() {
        let (m, k, n) = (67, 531, 95);
        let at = |i: usize| (i * 37 % 19) as f32 - 9.0;
        let a: Vec<f32> = (0..m * k).map(at).collect();
        let b: Vec<f32> = (0..k * n).map(|i| at(i + 5)).collect();
        let (mut out, mut shared) = (vec![0.0; m * n], vec![0.0; m * n]);
        multiply(
            Matrix::new(&a, m, k),
            Matrix::new(&b, k, n),
            &mut out,
            Accumulate::Replace,
        );
        for (place, found) in out.iter().enumerate() {
            let (row, column) = (place / n, place % n);
            let expected: f32 = (0..k).map(|i| a[row * k + i] * b[i * n + column]).sum();
            assert_eq!(*found, expected, "row {row}, column {column}");
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        pool.install(|| {
            multiply_on_threads(
                Matrix::new(&a, m, k),
                Matrix::new(&b, k, n),
                &mut shared,
                Accumulate::Add,
            )
        });
        assert_eq!(shared, out);
    }

    #[test]
    #[should_panic(expected = "columns of the left matrix")]
    fn shapes_that_do_not_fit_are_refused() {
        multiply(
            Matrix::new(&[0.0; 6], 2, 3),
            Matrix::new(&[0.0; 6], 2, 3),
            &mut [0.0; 6],
            Accumulate::Replace,
        );
    }
}
