//! Digests as they were made before rules had a version: of options as they were written. Outputs
//! that bear them stay known.

use serde_json::{Map, Number, Value};

use super::fingerprint::{FingerprintInput, of_parts};
use crate::registry::sorted;

/// Options that changed how a stage's records travel or are stored, not what they are.
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
/// Options that said who may send records to a source, and how, not what they are.
const NEUTRAL_OF_SOURCES: [&str; 6] = ["anybody", "limits", "listen", "tls", "token", "window"];
/// The option by which a stage names its model; the model's digest stood for it.
const MODEL: &str = "model";

/// The options that counted, of those of a stage as it is written.
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

/// The digest of a stage whose inputs have these.
pub(super) fn digest(stage: &FingerprintInput<'_>, inputs: &[&str]) -> String {
    let options = sorted(&Value::Object(stage.options.clone()), &Number::to_string);
    let own = [stage.name, stage.kind, &options, stage.model];
    let digest = of_parts(own.into_iter().chain(inputs.iter().copied()));
    stage.known.map_or(digest.clone(), |known| {
        of_parts([digest.as_str(), known].into_iter())
    })
}
