//! Matrix products. No other module calls the kernels of the crate `gemm-f32`.

use std::ops::Range;

use gemm_common::Parallelism;
use rayon::prelude::*;

/// Number of multiplications from which another thread is worthwhile.
const MULTIPLICATIONS_PER_THREAD: usize = 1 << 20;

/// A view of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Distance from one row to the next and from one column to the next, in values.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Returns the matrix `[rows, columns]` in row-major order.
    ///
    /// # Panics
    /// When the number of values is not `rows * columns`.
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

    /// Returns a range of the columns.
    ///
    /// # Panics
    /// When the range is outside of the matrix.
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

    /// Returns a range of the rows.
    ///
    /// # Panics
    /// When the range is outside of the matrix.
    pub fn rows(self, range: Range<usize>) -> Self {
        self.transposed().columns(range).transposed()
    }

    /// Returns the transposed matrix without moving values.
    pub(crate) fn transposed(self) -> Self {
        let [row, column] = self.strides;
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [column, row],
            ..self
        }
    }
}

/// How a product is combined with the values in its output buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    /// The product replaces them.
    Replace,
    /// The product is added to them.
    Add,
}

/// Writes `a b`, `[a.rows, b.columns]` in row-major order, to `out`, on the current thread.
///
/// # Panics
/// When the shapes do not match.
#[expect(unsafe_code, reason = "the library takes pointers and strides")]
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: Accumulate) {
    assert_eq!(
        a.columns, b.rows,
        "columns of the left matrix, rows of the right"
    );
    assert_eq!(out.len(), a.rows * b.columns, "values of the product");
    // The kernels are fastest if the columns of the output are contiguous. The columns of the
    // transposed product are the rows of `out`.
    let (left, right, out_strides) = if b.columns > 1 {
        (b.transposed(), a.transposed(), [1, b.columns])
    } else {
        (a, b, [b.columns, 1])
    };
    let [left_row, left_column] = left.strides.map(usize::cast_signed);
    let [right_row, right_column] = right.strides.map(usize::cast_signed);
    let [out_row, out_column] = out_strides.map(usize::cast_signed);
    let kernel = gemm_f32::gemm::f32::get_gemm_fn();
    let (add, keep) = (
        accumulate == Accumulate::Add,
        f32::from(u8::from(accumulate == Accumulate::Add)),
    );
    // SAFETY: the constructors guarantee that the last value that a matrix's strides reach lies
    // within its slice; the lengths were compared above; `out` is borrowed mutably, so nothing else
    // points to it.
    unsafe {
        kernel(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            out_column,
            out_row,
            add,
            left.values.as_ptr(),
            left_column,
            left_row,
            right.values.as_ptr(),
            right_column,
            right_row,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// As [`multiply`], on all threads: each thread computes some of the rows.
///
/// # Panics
/// When the shapes do not match.
pub(crate) fn multiply_on_threads(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    accumulate: Accumulate,
) {
    let threads = (a.rows * a.columns * b.columns / MULTIPLICATIONS_PER_THREAD)
        .clamp(1, rayon::current_num_threads());
    let rows = a.rows.div_ceil(threads).max(1);
    assert_eq!(out.len(), a.rows * b.columns, "values of the product");
    out.par_chunks_mut((rows * b.columns).max(1))
        .enumerate()
        .for_each(|(number, out)| {
            let first = number * rows;
            multiply(
                a.rows(first..(first + rows).min(a.rows)),
                b,
                out,
                accumulate,
            );
        });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn products_equal_values_computed_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 1.0];
        let (a, b) = (Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2));
        let mut out = [1.0; 4];
        multiply(a, b, &mut out, Accumulate::Replace);
        assert_eq!(out, [0.5, 7.0, 2.0, 16.0]);
        multiply(a, b, &mut out, Accumulate::Add);
        assert_eq!(out, [1.0, 14.0, 4.0, 32.0]);
        let mut transposed = [f32::NAN; 9];
        multiply(
            a.transposed(),
            b.transposed(),
            &mut transposed,
            Accumulate::Replace,
        );
        assert_eq!(transposed, [1.0, 7.0, 4.5, 2.0, 8.0, 6.0, 3.0, 9.0, 7.5]);
        multiply(
            a.columns(1..3).transposed(),
            b.transposed(),
            &mut transposed[..6],
            Accumulate::Replace,
        );
        assert_eq!(transposed[..6], [2.0, 8.0, 6.0, 3.0, 9.0, 7.5]);
        let mut column = [1.0; 2];
        multiply(
            a,
            Matrix::new(&[1.0, 2.0, 3.0], 3, 1),
            &mut column,
            Accumulate::Add,
        );
        assert_eq!(column, [15.0, 33.0]);
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
        for (index, found) in out.iter().enumerate() {
            let (row, column) = (index / n, index % n);
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
    fn mismatched_shapes_are_refused() {
        multiply(
            Matrix::new(&[0.0; 6], 2, 3),
            Matrix::new(&[0.0; 6], 2, 3),
            &mut [0.0; 6],
            Accumulate::Replace,
        );
    }
}
