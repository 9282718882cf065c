//! Inverse discrete cosine transforms of blocks of 8x8 coefficients to 8x8, 4x4, 2x2 or 1x1 samples.
//!
//! The transform to 8x8 is the accurate integer transform of libjpeg, to the bit: the algorithm of
//! Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT algorithms with 11 multiplications",
//! 1989) with constants of 13 bits. Those to fewer samples use the lowest coefficients only, of as
//! many frequencies as the block has samples: the samples of a band-limited image.

use crate::simd::Vectors;

/// The quantized coefficients of a block. Their order depends on the number of samples, see
/// [`positions`].
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Block(pub(crate) [i16; 64]);

/// The order of coefficients in a file (T.81, figure 5): for each place, the column of the coefficient,
/// which is its horizontal frequency, and 8 times its row.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The position of a coefficient that the transform does not use.
const UNUSED: u8 = 63;

/// For each place in zigzag order, the index in a [`Block`] for a transform to `side` x `side` samples.
///
/// For 8 x 8, the rows `i` and `i + 4` are neighbors, so that a vector has pairs of rows; so are the
/// columns. For 4 x 4, the rows 0 and 2 are, and 1 and 3. For fewer samples, the coefficients that are
/// used are in row-major order.
const fn arranged(side: usize) -> [u8; 64] {
    let mut out = [UNUSED; 64];
    let mut place = 0;
    while place < 64 {
        let (row, column) = (ZIGZAG[place] as usize / 8, ZIGZAG[place] as usize % 8);
        if side == 8 {
            let lane = column % 4 * 2 + column / 4;
            out[place] = (row % 4 * 16 + lane * 2 + row / 4) as u8;
        } else if side == 4 && row < 4 && column < 4 {
            out[place] = (row % 2 * 8 + column * 2 + row / 2) as u8;
        } else if row < side && column < side {
            out[place] = (row * side + column) as u8;
        }
        place += 1;
    }
    out
}

/// For each place in zigzag order, the index of its coefficient in a [`Block`].
pub(crate) fn positions(side: usize) -> &'static [u8; 64] {
    const POSITIONS: [[u8; 64]; 4] = [arranged(1), arranged(2), arranged(4), arranged(8)];
    match side {
        1 => &POSITIONS[0],
        2 => &POSITIONS[1],
        4 => &POSITIONS[2],
        _ => &POSITIONS[3],
    }
}

/// The number of coefficients that a transform to `side` x `side` samples uses.
pub(crate) fn used(side: usize) -> usize {
    side * side
}

/// The last place in zigzag order whose coefficient a transform to `side` x `side` samples uses.
pub(crate) fn last_place(side: usize) -> usize {
    match side {
        1 => 0,
        2 => 4,
        4 => 24,
        _ => 63,
    }
}

/// Number of bits of the fractions of constants.
const CONSTANT_BITS: u32 = 13;
/// Number of bits of the fractions of values between the two passes.
const PASS_BITS: u32 = 2;

/// A constant with [`CONSTANT_BITS`] bits.
const fn fixed(value: f64) -> i32 {
    (value * (1 << CONSTANT_BITS) as f64 + 0.5) as i32
}

/// The factors of the odd rows 1, 5, 3 and 7, for the sums that the upper rows add and the lower ones
/// subtract. The algorithm of libjpeg shares products; without shared ones, its integers are equal.
const ODD: [[i16; 4]; 4] = {
    const SHARED: i32 = fixed(1.175_875_602);
    const A: i32 = SHARED - fixed(1.961_570_560);
    const B: i32 = SHARED - fixed(0.390_180_644);
    const C: i32 = SHARED - fixed(0.899_976_223);
    const D: i32 = SHARED - fixed(2.562_915_447);
    const R1: i32 = fixed(1.501_321_110) + B - fixed(0.899_976_223);
    const R5: i32 = fixed(2.053_119_869) + B - fixed(2.562_915_447);
    const R3: i32 = fixed(3.072_711_026) + A - fixed(2.562_915_447);
    const R7: i32 = fixed(0.298_631_336) + A - fixed(0.899_976_223);
    [
        [R1 as i16, B as i16, SHARED as i16, C as i16],
        [SHARED as i16, D as i16, R3 as i16, A as i16],
        [B as i16, R5 as i16, D as i16, SHARED as i16],
        [C as i16, SHARED as i16, A as i16, R7 as i16],
    ]
};

/// The transform of 8 columns. The vector `i` has the rows `i` and `i + 4`. `BITS` is the number of
/// bits that are dropped, after `bias` was added.
#[inline(always)]
fn transform_8<const BITS: i32, V: Vectors>(v: V, rows: [V::Pairs; 4], bias: i32) -> [V::Wide; 8] {
    const ONE: i16 = 1 << CONSTANT_BITS;
    const SHARED: i16 = fixed(0.541_196_100) as i16;
    const HIGH: i16 = SHARED + fixed(0.765_366_865) as i16;
    const LOW: i16 = SHARED - fixed(1.847_759_065) as i16;
    let [r04, r15, r26, r37] = rows;
    let bias = v.splat(bias);
    let sum = v.add(v.dot(r04, [ONE, ONE]), bias);
    let difference = v.add(v.dot(r04, [ONE, -ONE]), bias);
    let (high, low) = (v.dot(r26, [HIGH, SHARED]), v.dot(r26, [SHARED, LOW]));
    let even = [
        v.add(sum, high),
        v.add(difference, low),
        v.sub(difference, low),
        v.sub(sum, high),
    ];
    let mut out = [bias; 8];
    for row in 0..4 {
        let [of_1, of_5, of_3, of_7] = ODD[row];
        let odd = v.add(v.dot(r15, [of_1, of_5]), v.dot(r37, [of_3, of_7]));
        out[row] = v.drop_bits::<BITS>(v.add(even[row], odd));
        out[7 - row] = v.drop_bits::<BITS>(v.sub(even[row], odd));
    }
    out
}

/// The sample of a value without fraction.
#[inline(always)]
fn sample(value: i32) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// The sample of a block whose only coefficient is the first one.
#[inline(always)]
pub(crate) fn flat_sample(dc: i32) -> u8 {
    sample(dc.wrapping_add(4) >> 3)
}

/// Transforms the coefficients, multiplied by `factors`, to 8x8 samples. `out` begins with the first
/// sample of the block; its rows have `stride` samples.
#[inline(always)]
pub(crate) fn transform_to_8<V: Vectors>(
    v: V,
    block: &Block,
    factors: &Block,
    out: &mut [u8],
    stride: usize,
) {
    const FIRST: i32 = CONSTANT_BITS as i32 - PASS_BITS as i32;
    const SECOND: i32 = CONSTANT_BITS as i32 + PASS_BITS as i32 + 3;
    let (values, factors) = (block.0.as_chunks::<16>().0, factors.0.as_chunks::<16>().0);
    let mut rows = [v.products(&values[0], &factors[0]); 4];
    for row in 1..4 {
        rows[row] = v.products(&values[row], &factors[row]);
    }
    let rows = transform_8::<FIRST, V>(v, rows, 1 << (FIRST - 1));
    let columns = v.transpose_to_pairs(rows);
    // The bias makes samples unsigned.
    let bias = (1 << (SECOND - 1)) + (128 << SECOND);
    let samples = v.transpose_to_samples(transform_8::<SECOND, V>(v, columns, bias));
    for (row, line) in samples.iter().zip(out.chunks_mut(stride)) {
        line[..8].copy_from_slice(row);
    }
}

/// The transform of 4 columns. The lower half of the vector has the rows 0 and 2, the upper one the
/// rows 1 and 3. `BITS` is the number of bits that are dropped, after `bias` was added to the lower
/// half. Returns the rows 0 and 2, and 1 and 3.
#[inline(always)]
fn transform_4<const BITS: i32, V: Vectors>(v: V, rows: V::Pairs, bias: V::Wide) -> [V::Wide; 2] {
    const ONE: i16 = 1 << CONSTANT_BITS;
    const LOW: i16 = fixed(1.306_562_965) as i16;
    const HIGH: i16 = fixed(0.541_196_100) as i16;
    const OUTER: [i16; 16] = halves([ONE, ONE], [LOW, HIGH]);
    const INNER: [i16; 16] = halves([ONE, -ONE], [HIGH, -LOW]);
    // An even part, then an odd one.
    let outer = v.add(v.dot_each(rows, &OUTER), bias);
    let inner = v.add(v.dot_each(rows, &INNER), bias);
    let (outer_odd, inner_odd) = (v.swap_halves(outer), v.swap_halves(inner));
    let r02 = v.join_halves(v.add(outer, outer_odd), v.sub(inner_odd, inner));
    let r13 = v.join_halves(v.add(inner, inner_odd), v.sub(outer_odd, outer));
    [v.drop_bits::<BITS>(r02), v.drop_bits::<BITS>(r13)]
}

/// Repeats two pairs for each half of a vector.
const fn halves([a, b]: [i16; 2], [c, d]: [i16; 2]) -> [i16; 16] {
    [a, b, a, b, a, b, a, b, c, d, c, d, c, d, c, d]
}

/// Transforms the lowest 4x4 coefficients to 4x4 samples.
#[inline(always)]
pub(crate) fn transform_to_4<V: Vectors>(
    v: V,
    block: &Block,
    factors: &Block,
    out: &mut [u8],
    stride: usize,
) {
    const FIRST: i32 = CONSTANT_BITS as i32 - PASS_BITS as i32;
    const SECOND: i32 = CONSTANT_BITS as i32 + PASS_BITS as i32 + 3;
    let (values, factors) = (block.0.as_chunks::<16>().0, factors.0.as_chunks::<16>().0);
    let lower = |bias: i32| v.join_halves(v.splat(bias), v.splat(0));
    let rows = v.products(&values[0], &factors[0]);
    let rows = transform_4::<FIRST, V>(v, rows, lower(1 << (FIRST - 1)));
    let columns = v.transpose_4_to_pairs(rows);
    // The bias makes samples unsigned.
    let bias = lower((1 << (SECOND - 1)) + (128 << SECOND));
    let columns = transform_4::<SECOND, V>(v, columns, bias);
    let samples = v.transpose_4_to_samples(columns);
    for (row, line) in samples.iter().zip(out.chunks_mut(stride)) {
        line[..4].copy_from_slice(row);
    }
}

/// Transforms the lowest 2x2 coefficients to 2x2 samples.
#[inline(always)]
pub(crate) fn transform_to_2(block: &Block, factors: &Block, out: &mut [u8], stride: usize) {
    let value = |at: usize| i32::from(block.0[at].wrapping_mul(factors.0[at]));
    let (a, b, c, d) = (value(0), value(1), value(2), value(3));
    for (vertical, line) in [1, -1].into_iter().zip(out.chunks_mut(stride)) {
        let even = a.wrapping_add(vertical * c);
        let odd = b.wrapping_add(vertical * d);
        line[0] = flat_sample(even.wrapping_add(odd));
        line[1] = flat_sample(even.wrapping_sub(odd));
    }
}
