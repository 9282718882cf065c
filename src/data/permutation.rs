//! A random permutation of record indices that needs no list of them.

use crate::batch::provenance::splitmix64;

/// A keyed permutation of `0..len` with constant memory: a balanced Feistel network over the next
/// even power of two, which is applied until the result is below `len` (Black and Rogaway 2002,
/// "cycle-walking").
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u64,
    /// Bits of each half of a number.
    half: u32,
    keys: [u64; ROUNDS],
}

/// Rounds of the network. Four are enough against an adversary; numbers with few bits need more
/// rounds until the order looks random.
const ROUNDS: usize = 8;

impl Permutation {
    /// Creates the permutation of `0..len` with the key `seed`.
    pub fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut key = seed;
        let keys = std::array::from_fn(|_| {
            key = splitmix64(key);
            key
        });
        Self {
            len,
            half: bits.div_ceil(2).max(1),
            keys,
        }
    }

    /// Returns the image of `index` under the permutation. An index of `len` or more is taken
    /// modulo `len`.
    pub fn at(&self, index: u64) -> u64 {
        let mut value = index % self.len.max(1);
        // The walk starts inside `0..len` and the network permutes its own range, thus the walk
        // returns into `0..len`.
        loop {
            value = self.network(value);
            if value < self.len.max(1) {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = u64::MAX >> (u64::BITS - self.half);
        let (mut left, mut right) = (value >> self.half, value & mask);
        for key in self.keys {
            (left, right) = (
                right,
                left ^ (splitmix64(right ^ key) >> (u64::BITS - self.half)),
            );
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn order(len: u64, seed: u64) -> Vec<u64> {
        let permutation = Permutation::new(len, seed);
        (0..len).map(|index| permutation.at(index)).collect()
    }

    proptest! {
        #[test]
        fn every_index_is_returned_once(len in 0_u64..3000, seed: u64) {
            let mut all = order(len, seed);
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..len));
        }
    }

    #[test]
    fn huge_length_yields_distinct_indices_in_range() {
        for len in [1 << 40, (1 << 40) + 1, u64::MAX] {
            let permutation = Permutation::new(len, 1);
            let some: std::collections::BTreeSet<u64> =
                (0..1000).map(|index| permutation.at(index)).collect();
            assert_eq!(some.len(), 1000);
            assert!(some.into_iter().all(|value| value < len));
        }
    }

    #[test]
    fn same_seed_gives_same_order_and_other_seed_another() {
        assert_eq!(order(1000, 7), order(1000, 7));
        let same = order(1000, 7)
            .into_iter()
            .zip(order(1000, 8))
            .filter(|(a, b)| a == b)
            .count();
        // Two random orders agree at one index on average.
        assert!(same < 10, "{same}");
    }

    /// Asserts a chi-square value within 5 standard deviations of its mean. The probability of a
    /// larger value is below 1 in 10,000.
    fn assert_uniform(counts: &[u64]) {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let chi: f64 = counts
            .iter()
            .map(|&count| (count as f64 - expected).powi(2) / expected)
            .sum();
        let freedom = counts.len() as f64 - 1.0;
        assert!(
            (chi - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(),
            "{chi} for {freedom} degrees of freedom"
        );
    }

    #[test]
    fn adjacent_places_are_uniform_over_seeds() {
        const LEN: usize = 12;
        let mut pairs = vec![0; LEN * LEN];
        let mut orders = std::collections::BTreeMap::<Vec<u64>, u64>::new();
        for seed in 0..100_000 {
            let permutation = Permutation::new(LEN as u64, seed);
            let (first, second) = (permutation.at(0) as usize, permutation.at(1) as usize);
            pairs[first * LEN + second] += 1;
            *orders.entry(order(4, seed)).or_default() += 1;
        }
        let pairs: Vec<u64> = (0..LEN * LEN)
            .filter(|at| at / LEN != at % LEN)
            .map(|at| pairs[at])
            .collect();
        assert_uniform(&pairs);
        assert_eq!(orders.len(), 24, "all permutations of four occur");
    }

    #[test]
    fn long_order_has_ascents_and_fixed_points_of_random_order() {
        const LEN: u64 = 100_000;
        let order = order(LEN, 3);
        let ascents = order.windows(2).filter(|pair| pair[0] < pair[1]).count() as f64;
        // Mean (n - 1) / 2, variance (n + 1) / 12.
        assert!(
            (ascents - 49_999.5).abs() < 5.0 * (LEN as f64 / 12.0).sqrt(),
            "{ascents}"
        );
        let fixed = order
            .iter()
            .enumerate()
            .filter(|(index, value)| *index as u64 == **value)
            .count();
        assert!(fixed < 12, "{fixed}");
        // The images of the first tenth are uniform.
        let mut counts = vec![0; 100];
        order[..LEN as usize / 10]
            .iter()
            .for_each(|&value| counts[(value / (LEN / 100)) as usize] += 1);
        assert_uniform(&counts);
    }
}
