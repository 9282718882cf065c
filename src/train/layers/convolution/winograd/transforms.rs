//! The transforms of F(4x4, 3x3) and their transposes.

use std::ops::{Add, Mul, Sub};

use pulp::Simd;

/// A value, or several values that are transformed together.
pub(super) trait Value:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<f32, Output = Self>
{
}

/// A linear map of a line of values.
pub(super) trait LineTransform<const I: usize, const O: usize> {
    /// Returns the transformed line.
    fn apply<V: Value>(line: [V; I]) -> [V; O];
}

/// Applies a transform to the columns of a tile, and to the rows of the result.
#[inline(always)]
pub(super) fn transform<T: LineTransform<I, O>, V: Value, const I: usize, const O: usize>(
    tile: &[[V; I]; I],
) -> [[V; O]; O] {
    let (mut columns, mut rows) = ([[tile[0][0]; O]; I], [[tile[0][0]; O]; O]);
    for (column, transformed) in columns.iter_mut().enumerate() {
        let mut line = [tile[0][0]; I];
        for (value, row) in line.iter_mut().zip(tile) {
            *value = row[column];
        }
        *transformed = T::apply(line);
    }
    for (row, transformed) in rows.iter_mut().enumerate() {
        let mut line = [tile[0][0]; I];
        for (value, column) in line.iter_mut().zip(&columns) {
            *value = column[row];
        }
        *transformed = T::apply(line);
    }
    rows
}

/// The values of several channels in a SIMD register.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    simd: S,
    values: S::f32s,
}

impl<S: Simd> Lanes<S> {
    /// Returns zeros.
    #[inline(always)]
    pub fn zero(simd: S) -> Self {
        let values = simd.splat_f32s(0.0);
        Self { simd, values }
    }

    /// Reads the first values of a slice.
    #[inline(always)]
    pub fn read(simd: S, values: &[f32]) -> Self {
        let values = S::as_simd_f32s(&values[..S::F32_LANES]).0[0];
        Self { simd, values }
    }

    /// Replaces the first values of a slice.
    #[inline(always)]
    pub fn write(self, to: &mut [f32]) {
        S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = self.values;
    }

    /// Adds to the first values of a slice.
    #[inline(always)]
    pub fn add_to(self, sums: &mut [f32]) {
        (Self::read(self.simd, sums) + self).write(sums);
    }
}

impl Value for f32 {}

impl<S: Simd> Value for Lanes<S> {}

impl<S: Simd> Add for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let values = self.simd.add_f32s(self.values, other.values);
        Self { values, ..self }
    }
}

impl<S: Simd> Sub for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let values = self.simd.sub_f32s(self.values, other.values);
        Self { values, ..self }
    }
}

impl<S: Simd> Mul<f32> for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        let factor = self.simd.splat_f32s(factor);
        let values = self.simd.mul_f32s(self.values, factor);
        Self { values, ..self }
    }
}

/// `B' d`.
pub(super) struct OfInput;

impl LineTransform<6, 6> for OfInput {
    #[inline(always)]
    fn apply<V: Value>([a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
        let (even, odd) = (e - c * 4.0, d - b * 4.0);
        let (far_even, far_odd) = (e - c, (d - b) * 2.0);
        [
            (a - c) * 4.0 + far_even,
            even + odd,
            even - odd,
            far_even + far_odd,
            far_even - far_odd,
            f - d - far_odd * 2.0,
        ]
    }
}

/// `B v`.
pub(super) struct OfInputGradient;

impl LineTransform<6, 6> for OfInputGradient {
    #[inline(always)]
    fn apply<V: Value>([a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
        let (near, near_difference) = (b + c, b - c);
        let (far, far_difference) = (d + e, (d - e) * 2.0);
        [
            a * 4.0,
            (f - near_difference) * 4.0 - far_difference,
            a * -5.0 - near * 4.0 - far,
            near_difference + far_difference - f * 5.0,
            a + near + far,
            f,
        ]
    }
}

/// `G g`.
pub(super) struct OfKernel;

impl LineTransform<3, 6> for OfKernel {
    #[inline(always)]
    fn apply<V: Value>([a, b, c]: [V; 3]) -> [V; 6] {
        let (near, far) = ((a + c) * (-1.0 / 6.0), a * (1.0 / 24.0) + c * (1.0 / 6.0));
        [
            a * 0.25,
            near - b * (1.0 / 6.0),
            near + b * (1.0 / 6.0),
            far + b * (1.0 / 12.0),
            far - b * (1.0 / 12.0),
            c,
        ]
    }
}

/// `G' u`.
pub(super) struct OfKernelGradient;

impl LineTransform<6, 3> for OfKernelGradient {
    #[inline(always)]
    fn apply<V: Value>([a, b, c, d, e, f]: [V; 6]) -> [V; 3] {
        let (near, far) = (b + c, d + e);
        [
            a * 0.25 - near * (1.0 / 6.0) + far * (1.0 / 24.0),
            (c - b) * (1.0 / 6.0) + (d - e) * (1.0 / 12.0),
            (far - near) * (1.0 / 6.0) + f,
        ]
    }
}

/// `A' m`.
pub(super) struct OfProducts;

impl LineTransform<6, 4> for OfProducts {
    #[inline(always)]
    fn apply<V: Value>([a, b, c, d, e, f]: [V; 6]) -> [V; 4] {
        let (near, near_difference) = (b + c, b - c);
        let (far, far_difference) = (d + e, (d - e) * 2.0);
        [
            a + near + far,
            near_difference + far_difference,
            near + far * 4.0,
            near_difference + far_difference * 4.0 + f,
        ]
    }
}

/// `A dy`.
pub(super) struct OfOutputGradient;

impl LineTransform<4, 6> for OfOutputGradient {
    #[inline(always)]
    fn apply<V: Value>([a, b, c, d]: [V; 4]) -> [V; 6] {
        let (even, odd) = (a + c, b + d);
        let (far_even, far_odd) = (a + c * 4.0, b * 2.0 + d * 8.0);
        [
            a,
            even + odd,
            even - odd,
            far_even + far_odd,
            far_even - far_odd,
            d,
        ]
    }
}
