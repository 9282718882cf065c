//! Inverse discrete cosine transforms of blocks of 8x8 coefficients to 8x8, 4x4, 2x2 or 1x1 samples.
//!
//! The transform to 8x8 is the accurate integer transform of libjpeg, to the bit: the algorithm of
//! Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT algorithms with 11 multiplications",
//! 1989) with constants of 13 bits. Those to fewer samples use the lowest coefficients only, of as
//! many frequencies as the block has samples: the samples of a band-limited image.

/// The coefficients of a block in row-major order, dequantized.
pub(crate) type Block = [i32; 64];

/// The order of coefficients in a file (T.81, figure 5): for each place, the index in a [`Block`].
/// Places beyond the last one are not used.
pub(crate) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

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
const BITS: u32 = 13;
/// Number of bits of the fractions of values between the two passes.
const PASS_BITS: u32 = 2;

/// A constant with [`BITS`] bits.
const fn fixed(value: f64) -> i32 {
    (value * (1 << BITS) as f64 + 0.5) as i32
}

/// A value in each of `N` columns or rows.
type Lanes<const N: usize> = [i32; N];

// Corrupt data may exceed the range of valid coefficients, so sums wrap.
#[inline(always)]
fn map<const N: usize>(a: Lanes<N>, b: Lanes<N>, f: impl Fn(i32, i32) -> i32) -> Lanes<N> {
    let mut out = [0; N];
    for lane in 0..N {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

#[inline(always)]
fn add<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    map(a, b, i32::wrapping_add)
}

#[inline(always)]
fn sub<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    map(a, b, i32::wrapping_sub)
}

#[inline(always)]
fn scale<const N: usize>(a: Lanes<N>, by: i32) -> Lanes<N> {
    map(a, a, |value, _| value.wrapping_mul(by))
}

/// Rounds and drops `bits` bits.
#[inline(always)]
fn round<const N: usize>(a: Lanes<N>, bits: u32) -> Lanes<N> {
    map(a, a, |value, _| value.wrapping_add(1 << (bits - 1)) >> bits)
}

/// The transform of 8 columns. `bits` is the number of bits that are dropped.
#[inline(always)]
fn transform_8(rows: [Lanes<8>; 8], bits: u32) -> [Lanes<8>; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let shared = scale(add(r2, r6), fixed(0.541_196_100));
    let low = sub(shared, scale(r6, fixed(1.847_759_065)));
    let high = add(shared, scale(r2, fixed(0.765_366_865)));
    let sum = scale(add(r0, r4), 1 << BITS);
    let difference = scale(sub(r0, r4), 1 << BITS);
    let even = [
        add(sum, high),
        add(difference, low),
        sub(difference, low),
        sub(sum, high),
    ];
    let (a, b) = (add(r7, r3), add(r5, r1));
    let turned = scale(add(a, b), fixed(1.175_875_602));
    let a = sub(turned, scale(a, fixed(1.961_570_560)));
    let b = sub(turned, scale(b, fixed(0.390_180_644)));
    let c = scale(add(r7, r1), fixed(0.899_976_223));
    let d = scale(add(r5, r3), fixed(2.562_915_447));
    let odd = [
        add(sub(scale(r1, fixed(1.501_321_110)), c), b),
        add(sub(scale(r3, fixed(3.072_711_026)), d), a),
        add(sub(scale(r5, fixed(2.053_119_869)), d), b),
        add(sub(scale(r7, fixed(0.298_631_336)), c), a),
    ];
    let mut out = [[0; 8]; 8];
    for row in 0..4 {
        out[row] = round(add(even[row], odd[row]), bits);
        out[7 - row] = round(sub(even[row], odd[row]), bits);
    }
    out
}

/// Alternates the values of the lower or the upper halves of two rows, in parts of `PART` values.
#[inline(always)]
fn interleave<const N: usize, const PART: usize>(
    a: Lanes<N>,
    b: Lanes<N>,
    upper: bool,
) -> Lanes<N> {
    let first = if upper { N / 2 } else { 0 };
    let mut out = [0; N];
    for (lane, value) in out.iter_mut().enumerate() {
        let (part, within) = (lane / PART, lane % PART);
        let from = first + part / 2 * PART + within;
        *value = if part.is_multiple_of(2) {
            a[from]
        } else {
            b[from]
        };
    }
    out
}

/// Transposes by interleaving each row of the upper half with one of the lower half, three times.
#[inline(always)]
fn transpose_8(rows: [Lanes<8>; 8]) -> [Lanes<8>; 8] {
    let mut rows = rows;
    for _ in 0..3 {
        let mut next = [[0; 8]; 8];
        for row in 0..4 {
            next[2 * row] = interleave::<8, 1>(rows[row], rows[row + 4], false);
            next[2 * row + 1] = interleave::<8, 1>(rows[row], rows[row + 4], true);
        }
        rows = next;
    }
    rows
}

#[inline(always)]
fn transpose_4(rows: [Lanes<4>; 4]) -> [Lanes<4>; 4] {
    let mut out = [[0; 4]; 4];
    for row in 0..4 {
        for column in 0..4 {
            out[column][row] = rows[row][column];
        }
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

/// Transforms the lowest `ROWS` x `ROWS` coefficients, 4 or 8, to 8x8 samples; the others are zero. `out` begins with the first sample of the block; its rows have
/// `stride` samples.
#[inline(always)]
pub(crate) fn transform_to_8<const ROWS: usize>(block: &Block, out: &mut [u8], stride: usize) {
    let mut rows = [[0; 8]; 8];
    for (row, values) in rows.iter_mut().zip(block.as_chunks::<8>().0).take(ROWS) {
        *row = *values;
    }
    let mut columns = transpose_8(transform_8(rows, BITS - PASS_BITS));
    for column in &mut columns[ROWS..] {
        *column = [0; 8];
    }
    let rows = transpose_8(transform_8(columns, BITS + PASS_BITS + 3));
    for (row, line) in rows.iter().zip(out.chunks_mut(stride)) {
        let line = &mut line[..8];
        for (out, value) in line.iter_mut().zip(row) {
            *out = sample(*value);
        }
    }
}

/// The transform of 4 columns of 4 values. `bits` is the number of bits that are dropped.
#[inline(always)]
fn transform_4([r0, r1, r2, r3]: [Lanes<4>; 4], bits: u32) -> [Lanes<4>; 4] {
    const LOW: i32 = fixed(1.306_562_965);
    const HIGH: i32 = fixed(0.541_196_100);
    let sum = scale(add(r0, r2), 1 << BITS);
    let difference = scale(sub(r0, r2), 1 << BITS);
    let outer = add(scale(r1, LOW), scale(r3, HIGH));
    let inner = sub(scale(r1, HIGH), scale(r3, LOW));
    [
        add(sum, outer),
        add(difference, inner),
        sub(difference, inner),
        sub(sum, outer),
    ]
    .map(|row| round(row, bits))
}

/// Transforms the lowest 4x4 coefficients to 4x4 samples.
#[inline(always)]
pub(crate) fn transform_to_4(block: &Block, out: &mut [u8], stride: usize) {
    let rows = [0, 8, 16, 24].map(|at| [block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let columns = transpose_4(transform_4(rows, BITS - PASS_BITS));
    let rows = transpose_4(transform_4(columns, BITS + PASS_BITS + 3));
    for (row, line) in rows.iter().zip(out.chunks_mut(stride)) {
        for (out, value) in line[..4].iter_mut().zip(row) {
            *out = sample(*value);
        }
    }
}

/// Transforms the lowest 2x2 coefficients to 2x2 samples.
#[inline(always)]
pub(crate) fn transform_to_2(block: &Block, out: &mut [u8], stride: usize) {
    let [a, b, c, d] = [block[0], block[1], block[8], block[9]];
    for (vertical, line) in [1, -1].into_iter().zip(out.chunks_mut(stride)) {
        let even = a.wrapping_add(vertical * c);
        let odd = b.wrapping_add(vertical * d);
        line[0] = flat_sample(even.wrapping_add(odd));
        line[1] = flat_sample(even.wrapping_sub(odd));
    }
}
