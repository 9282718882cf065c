//! Tests of the vectors of this processor against those of any processor.

use crate::idct::{Block, transform_to_4, transform_to_8};
use crate::simd::Vectors;
use crate::simd::portable::Portable;

/// Numbers without a pattern, of 16 bits or fewer.
fn numbers(seed: u32) -> impl Iterator<Item = i16> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16 >> (seed % 16)
    })
}

fn samples<V: Vectors>(vectors: V, side: usize, block: &Block, factors: &Block) -> Vec<u8> {
    let mut out = vec![0; side * side];
    match side {
        8 => transform_to_8(vectors, block, factors, &mut out, 8),
        _ => transform_to_4(vectors, block, factors, &mut out, 4),
    }
    out
}

/// Coefficients and factors, which are not those of a valid image.
fn block(seed: u32) -> (Block, Block) {
    let mut values = numbers(seed);
    let mut next = || Block(std::array::from_fn(|_| values.next().unwrap_or_default()));
    (next(), next())
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vectors_of_avx2_equal_those_of_any_processor() {
    use crate::simd::avx2::Avx2;

    let Some(simd) = pulp::x86::V3::try_new() else {
        return;
    };
    for seed in 0..4096 {
        let (values, factors) = block(seed);
        for side in [8, 4] {
            let expected = samples(Portable, side, &values, &factors);
            let found = samples(Avx2(simd), side, &values, &factors);
            assert_eq!(found, expected, "{seed}, {side}");
        }
    }
}

#[test]
fn flat_block_equals_its_transform() {
    for dc in (i16::MIN..=i16::MAX).step_by(7) {
        let (mut values, mut factors) = (Block([0; 64]), Block([1; 64]));
        (values.0[0], factors.0[0]) = (dc, 1);
        let expected = [crate::idct::flat_sample(dc.into()); 64];
        assert_eq!(samples(Portable, 8, &values, &factors), expected, "{dc}");
        assert_eq!(
            samples(Portable, 4, &values, &factors),
            expected[..16],
            "{dc}"
        );
    }
}
