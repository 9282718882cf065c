//! The numbers of words, by which categories are compared and hashed.

use sha2::{Digest, Sha256};

/// The number of a word: the first 52 bits of the SHA-256 of its UTF-8 bytes, which float64 holds
/// exactly. It is the same in every version and on every machine.
pub(crate) fn word_number(word: &str) -> f64 {
    let digest = Sha256::digest(word.as_bytes());
    let bits = digest
        .iter()
        .take(7)
        .fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
    (bits >> 4) as f64
}

/// The bucket of a word number.
pub(super) fn bucket(number: f64, buckets: usize) -> usize {
    (number as u64 % buckets.max(1) as u64) as usize
}
