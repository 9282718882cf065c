//! Vectors of integers. Every kind of processor gives the same results, also for corrupt data: sums
//! and products wrap, and numbers that are narrowed saturate.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod portable;
#[cfg(test)]
mod tests;

/// Vectors of one kind of processor.
pub(crate) trait Vectors: Copy {
    /// Eight pairs of numbers of 16 bits.
    type Pairs: Copy;
    /// Eight numbers of 32 bits.
    type Wide: Copy;

    /// The products of numbers, of which the lower 16 bits are kept.
    fn products(self, values: &[i16; 16], factors: &[i16; 16]) -> Self::Pairs;

    /// For each pair, the sum of the products with two factors.
    fn dot(self, pairs: Self::Pairs, factors: [i16; 2]) -> Self::Wide;

    /// For each pair, the sum of the products with its own factors.
    fn dot_each(self, pairs: Self::Pairs, factors: &[i16; 16]) -> Self::Wide;

    /// The same number in all places.
    fn splat(self, value: i32) -> Self::Wide;

    /// The sums.
    fn add(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// The differences.
    fn sub(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// Drops the lower bits.
    fn drop_bits<const BITS: i32>(self, a: Self::Wide) -> Self::Wide;

    /// Narrows eight rows to 16 bits, and transposes them. Their columns are in the order 0, 4, 1, 5,
    /// 2, 6, 3, 7. The vector `i` of the result has a pair for each row: of its columns `i` and `i + 4`.
    fn transpose_to_pairs(self, rows: [Self::Wide; 8]) -> [Self::Pairs; 4];

    /// The upper half, then the lower one.
    fn swap_halves(self, a: Self::Wide) -> Self::Wide;

    /// The lower half of `a`, then the upper one of `b`.
    fn join_halves(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;

    /// Narrows four rows to 16 bits, and transposes them. The vectors have the rows 0 and 2, and 1
    /// and 3. The lower half of the result has a pair for each row: of its columns 0 and 2; the
    /// upper one of its columns 1 and 3.
    fn transpose_4_to_pairs(self, rows: [Self::Wide; 2]) -> Self::Pairs;

    /// Narrows four columns to 8 bits, and transposes them to rows. The vectors have the columns 0 and
    /// 2, and 1 and 3.
    fn transpose_4_to_samples(self, columns: [Self::Wide; 2]) -> [[u8; 4]; 4];

    /// Narrows eight columns to 8 bits, and transposes them to rows.
    fn transpose_to_samples(self, columns: [Self::Wide; 8]) -> [[u8; 8]; 8];
}
