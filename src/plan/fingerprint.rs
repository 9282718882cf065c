//! Digests of what lies upstream of a sink: what changes its rows changes them, nothing else does.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::fingerprint_v0;
use crate::registry::canonical;
use crate::sink::FINGERPRINT_VERSION;

/// The facts that the digest of a stage covers, beside its inputs.
pub(super) struct FingerprintInput<'a> {
    /// A source's name, by which its splits are known; empty for others.
    pub(super) name: &'a str,
    /// Its kind.
    pub(super) kind: &'a str,
    /// Its options that change rows: as they were understood, or, by the rules before the first
    /// version, as written.
    pub(super) options: &'a Map<String, Value>,
    /// The digest of its model; empty where it has none.
    pub(super) model: &'a str,
    /// What its rows depend on beside all that.
    pub(super) known: Option<&'a str>,
}

/// The digest of a stage whose inputs have these, by the rules of a version; `None` for rules that
/// this program does not know.
pub(super) fn of_stage(
    version: u32,
    stage: &FingerprintInput<'_>,
    inputs: &[&str],
) -> Option<String> {
    match version {
        0 => Some(fingerprint_v0::digest(stage, inputs)),
        FINGERPRINT_VERSION => {
            let (rules, options) = (
                FINGERPRINT_VERSION.to_string(),
                canonical(&Value::Object(stage.options.clone())),
            );
            let own = [
                &rules,
                stage.name,
                stage.kind,
                &options,
                stage.model,
                stage.known.unwrap_or_default(),
            ];
            Some(of_parts(own.into_iter().chain(inputs.iter().copied())))
        }
        _ => None,
    }
}

/// SHA-256 over texts, each after its length, so that no two lists of texts give the same bytes.
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
