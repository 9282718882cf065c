//! Vectors of x86-64 processors with AVX2.

use std::arch::x86_64::__m256i;

use pulp::cast;
use pulp::x86::V3;

use crate::simd::Vectors;

/// Vectors of AVX2, on a processor that has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(crate) V3);

/// Two numbers as one of 32 bits, in the order of memory.
#[inline(always)]
fn pair([first, second]: [i16; 2]) -> i32 {
    i32::from(second) << 16 | i32::from(first as u16)
}

/// For each half of a vector, the 4 x 4 bytes of its columns as rows.
const TRANSPOSE_4: [u8; 32] = {
    let mut out = [0; 32];
    let mut at = 0;
    while at < 32 {
        let (row, column) = (at % 16 / 4, at % 4);
        out[at] = (column * 4 + row) as u8;
        at += 1;
    }
    out
};

/// For each half of a vector, two rows of 4 numbers of 16 bits: the columns 0 and 2 of both, then 1
/// and 3.
const PAIRS_4: [u8; 32] = {
    let mut out = [0; 32];
    let mut at = 0;
    while at < 32 {
        let (half, number) = (at % 16 / 8, at % 8 / 2);
        let (row, column) = (number / 2, half + number % 2 * 2);
        out[at] = (row * 8 + column * 2 + at % 2) as u8;
        at += 1;
    }
    out
};

impl Avx2 {
    /// Takes the even or the odd 32-bit parts of two vectors, in each half.
    #[inline(always)]
    fn parts<const WHICH: i32>(self, a: __m256i, b: __m256i) -> __m256i {
        let avx = self.0.avx;
        let (a, b) = (avx._mm256_castsi256_ps(a), avx._mm256_castsi256_ps(b));
        avx._mm256_castps_si256(avx._mm256_shuffle_ps::<WHICH>(a, b))
    }
}

impl Vectors for Avx2 {
    type Pairs = __m256i;
    type Wide = __m256i;

    #[inline(always)]
    fn products(self, values: &[i16; 16], factors: &[i16; 16]) -> __m256i {
        self.0
            .avx2
            ._mm256_mullo_epi16(cast(*values), cast(*factors))
    }

    #[inline(always)]
    fn dot(self, pairs: __m256i, factors: [i16; 2]) -> __m256i {
        let factors = self.0.avx._mm256_set1_epi32(pair(factors));
        self.0.avx2._mm256_madd_epi16(pairs, factors)
    }

    #[inline(always)]
    fn dot_each(self, pairs: __m256i, factors: &[i16; 16]) -> __m256i {
        self.0.avx2._mm256_madd_epi16(pairs, cast(*factors))
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m256i {
        self.0.avx._mm256_set1_epi32(value)
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        self.0.avx2._mm256_add_epi32(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        self.0.avx2._mm256_sub_epi32(a, b)
    }

    #[inline(always)]
    fn drop_bits<const BITS: i32>(self, a: __m256i) -> __m256i {
        self.0.avx2._mm256_srai_epi32::<BITS>(a)
    }

    #[inline(always)]
    fn transpose_to_pairs(self, rows: [__m256i; 8]) -> [__m256i; 4] {
        let avx2 = self.0.avx2;
        let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
        // The lower halves have the pairs 0 and 1 of two rows, the upper ones the pairs 2 and 3.
        let a = avx2._mm256_packs_epi32(r0, r1);
        let b = avx2._mm256_packs_epi32(r2, r3);
        let c = avx2._mm256_packs_epi32(r4, r5);
        let d = avx2._mm256_packs_epi32(r6, r7);
        let (even, odd) = (self.parts::<0x88>(a, b), self.parts::<0xdd>(a, b));
        let (even_below, odd_below) = (self.parts::<0x88>(c, d), self.parts::<0xdd>(c, d));
        [
            avx2._mm256_permute2x128_si256::<0x20>(even, even_below),
            avx2._mm256_permute2x128_si256::<0x20>(odd, odd_below),
            avx2._mm256_permute2x128_si256::<0x31>(even, even_below),
            avx2._mm256_permute2x128_si256::<0x31>(odd, odd_below),
        ]
    }

    #[inline(always)]
    fn swap_halves(self, a: __m256i) -> __m256i {
        self.0.avx2._mm256_permute2x128_si256::<0x01>(a, a)
    }

    #[inline(always)]
    fn join_halves(self, a: __m256i, b: __m256i) -> __m256i {
        self.0.avx2._mm256_blend_epi32::<0xf0>(a, b)
    }

    #[inline(always)]
    fn transpose_4_to_pairs(self, [r02, r13]: [__m256i; 2]) -> __m256i {
        let avx2 = self.0.avx2;
        let rows = avx2._mm256_packs_epi32(r02, r13);
        let pairs = avx2._mm256_shuffle_epi8(rows, cast(PAIRS_4));
        avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(pairs)
    }

    #[inline(always)]
    fn transpose_4_to_samples(self, [c02, c13]: [__m256i; 2]) -> [[u8; 4]; 4] {
        let avx2 = self.0.avx2;
        let columns = avx2._mm256_packs_epi32(c02, c13);
        // Columns 0 and 1 twice, then 2 and 3 twice.
        let samples = avx2._mm256_packus_epi16(columns, columns);
        let samples = avx2._mm256_permute4x64_epi64::<0b11_10_10_00>(samples);
        let rows: [[u8; 4]; 8] = cast(avx2._mm256_shuffle_epi8(samples, cast(TRANSPOSE_4)));
        let [r0, r1, r2, r3, ..] = rows;
        [r0, r1, r2, r3]
    }

    #[inline(always)]
    fn transpose_to_samples(self, columns: [__m256i; 8]) -> [[u8; 8]; 8] {
        let avx2 = self.0.avx2;
        let [c0, c1, c2, c3, c4, c5, c6, c7] = columns;
        let a = avx2._mm256_packs_epi32(c0, c1);
        let b = avx2._mm256_packs_epi32(c2, c3);
        let c = avx2._mm256_packs_epi32(c4, c5);
        let d = avx2._mm256_packs_epi32(c6, c7);
        let transpose = |columns| avx2._mm256_shuffle_epi8(columns, cast(TRANSPOSE_4));
        let left = transpose(avx2._mm256_packus_epi16(a, b));
        let right = transpose(avx2._mm256_packus_epi16(c, d));
        let [r0, r1, r4, r5]: [[u8; 8]; 4] = cast(avx2._mm256_unpacklo_epi32(left, right));
        let [r2, r3, r6, r7]: [[u8; 8]; 4] = cast(avx2._mm256_unpackhi_epi32(left, right));
        [r0, r1, r2, r3, r4, r5, r6, r7]
    }
}
