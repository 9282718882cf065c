//! Fingerprints of version 0, which cover options as written, to recognize the outputs of earlier
//! versions.

use serde_json::{Map, Number, Value};

use crate::plan::fingerprint_input::{FingerprintInput, of_parts};
use crate::registry::sorted;

/// Options that changed the transport or the storage of records, but not the records.
const NEUTRAL: [&str; 8] = [
    "batch",
    "compression",
    "file",
    "path",
    "readers",
    "rescan",
    "row_group",
    "watch",
];
/// Options that changed the access of clients to a source, but not the records.
const NEUTRAL_OF_SOURCES: [&str; 6] = ["anybody", "limits", "listen", "tls", "token", "window"];
/// The option that names the model of a stage; the digest covered the digest of the model instead.
const MODEL: &str = "model";

/// Returns the options of a stage, as written, that the digest covered.
pub(super) fn options(written: &Map<String, Value>, is_source: bool) -> Map<String, Value> {
    let is_neutral = |key: &str| match is_source {
        true => key != "path" && (NEUTRAL.contains(&key) || NEUTRAL_OF_SOURCES.contains(&key)),
        false => NEUTRAL.contains(&key),
    };
    let counted = written
        .iter()
        .filter(|(key, _)| *key != MODEL && !is_neutral(key));
    counted
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Returns the digest of a stage from the digests of its inputs.
pub(super) fn digest(stage: &FingerprintInput<'_>, inputs: &[&str]) -> String {
    let options = sorted(&Value::Object(stage.options.clone()), &Number::to_string);
    let own = [stage.name, stage.kind, &options, stage.model];
    let digest = of_parts(own.into_iter().chain(inputs.iter().copied()));
    stage.dependency.map_or(digest.clone(), |dependency| {
        of_parts([digest.as_str(), dependency].into_iter())
    })
}
