//! The values that a fingerprint covers, and their digest.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The facts that the digest of a stage covers, in addition to the digests of its inputs.
pub(super) struct FingerprintInput<'a> {
    /// The name of a source, which identifies its splits; empty for other stages.
    pub(super) name: &'a str,
    /// The kind of the stage.
    pub(super) kind: &'a str,
    /// The options that change rows: resolved, or as written for version 0.
    pub(super) options: &'a Map<String, Value>,
    /// The digest of the model; empty for a stage without a model.
    pub(super) model: &'a str,
    /// Other facts on which the rows depend.
    pub(super) dependency: Option<&'a str>,
}

/// Returns the SHA-256 digest of texts. Each text is preceded by its length, so that different
/// lists never result in the same bytes.
pub(super) fn of_parts<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    bytes
        .iter()
        .fold(String::from("sha256:"), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
