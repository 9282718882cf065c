//! Vectors as arrays, which the compiler maps to those of the processor.

use crate::simd::Vectors;

/// Vectors of any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn narrow(value: i32) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[inline(always)]
fn map(a: [i32; 8], b: [i32; 8], f: impl Fn(i32, i32) -> i32) -> [i32; 8] {
    let mut out = [0; 8];
    for lane in 0..8 {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

impl Vectors for Portable {
    type Pairs = [i16; 16];
    type Wide = [i32; 8];

    #[inline(always)]
    fn products(self, values: &[i16; 16], factors: &[i16; 16]) -> [i16; 16] {
        let mut out = [0; 16];
        for lane in 0..16 {
            out[lane] = values[lane].wrapping_mul(factors[lane]);
        }
        out
    }

    #[inline(always)]
    fn dot(self, pairs: [i16; 16], [first, second]: [i16; 2]) -> [i32; 8] {
        let mut out = [0_i32; 8];
        for lane in 0..8 {
            let [a, b] = [pairs[2 * lane], pairs[2 * lane + 1]].map(i32::from);
            out[lane] = (a * i32::from(first)).wrapping_add(b * i32::from(second));
        }
        out
    }

    #[inline(always)]
    fn dot_each(self, pairs: [i16; 16], factors: &[i16; 16]) -> [i32; 8] {
        let mut out = [0_i32; 8];
        for (lane, sum) in out.iter_mut().enumerate() {
            let product = |at: usize| i32::from(pairs[at]) * i32::from(factors[at]);
            *sum = product(2 * lane).wrapping_add(product(2 * lane + 1));
        }
        out
    }

    #[inline(always)]
    fn splat(self, value: i32) -> [i32; 8] {
        [value; 8]
    }

    #[inline(always)]
    fn add(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        map(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    fn sub(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        map(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn drop_bits<const BITS: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|value| value >> BITS)
    }

    #[inline(always)]
    fn transpose_to_pairs(self, rows: [[i32; 8]; 8]) -> [[i16; 16]; 4] {
        let mut out = [[0; 16]; 4];
        for (row, values) in rows.iter().enumerate() {
            for (column, pairs) in out.iter_mut().enumerate() {
                pairs[2 * row] = narrow(values[2 * column]);
                pairs[2 * row + 1] = narrow(values[2 * column + 1]);
            }
        }
        out
    }

    #[inline(always)]
    fn swap_halves(self, [a, b, c, d, e, f, g, h]: [i32; 8]) -> [i32; 8] {
        [e, f, g, h, a, b, c, d]
    }

    #[inline(always)]
    fn join_halves(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        [a[0], a[1], a[2], a[3], b[4], b[5], b[6], b[7]]
    }

    #[inline(always)]
    fn transpose_4_to_pairs(self, rows: [[i32; 8]; 2]) -> [i16; 16] {
        let mut out = [0; 16];
        for (at, value) in out.iter_mut().enumerate() {
            let (row, column) = (at % 8 / 2, at / 8 + at % 2 * 2);
            *value = narrow(rows[row % 2][row / 2 * 4 + column]);
        }
        out
    }

    #[inline(always)]
    fn transpose_4_to_samples(self, columns: [[i32; 8]; 2]) -> [[u8; 4]; 4] {
        let mut out = [[0; 4]; 4];
        for (y, row) in out.iter_mut().enumerate() {
            for (x, sample) in row.iter_mut().enumerate() {
                *sample = columns[x % 2][x / 2 * 4 + y].clamp(0, 255) as u8;
            }
        }
        out
    }

    #[inline(always)]
    fn transpose_to_samples(self, columns: [[i32; 8]; 8]) -> [[u8; 8]; 8] {
        let mut out = [[0; 8]; 8];
        for (x, column) in columns.iter().enumerate() {
            for (row, value) in out.iter_mut().zip(column) {
                row[x] = (*value).clamp(0, 255) as u8;
            }
        }
        out
    }
}
