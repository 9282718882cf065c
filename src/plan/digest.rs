//! Digests of what lies upstream of a sink: what changes its rows changes them, nothing else does.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::sink::StageIdentity;
use crate::spec::StageTable;

/// Options that change how a stage's records travel or are stored, not what they are.
const NEUTRAL: [&str; 9] =
    ["batch", "compression", "file", "path", "readers", "rescan", "retry_timeout", "row_group", "watch"];
/// Options that say who may send records to a source, and how, not what they are.
const NEUTRAL_OF_SOURCES: [&str; 6] = ["anybody", "limits", "listen", "tls", "token", "window"];
/// The option by which a stage names its model; the model's digest stands for it.
const MODEL: &str = "model";

/// A stage as it goes into the identity of outputs, given the digests of its inputs and of its model.
///
/// A source's path counts: other input is another output. So does its name, by which its splits are known. A sink's path
/// does not: a moved output is the same.
pub(super) fn of_stage(table: &StageTable, inputs: &[&str], model: Option<&str>) -> StageIdentity {
    let is_source = table.inputs.is_empty();
    let is_neutral = |key: &str| match is_source {
        true => key != "path" && (NEUTRAL.contains(&key) || NEUTRAL_OF_SOURCES.contains(&key)),
        false => NEUTRAL.contains(&key),
    };
    let changes_rows = |key: &str| key != MODEL && !is_neutral(key);
    let options = table.options.as_object().into_iter().flatten();
    let options = options.filter(|(key, _)| changes_rows(key)).map(|(key, value)| (key.clone(), value.clone()));
    let options: Map<String, Value> = options.collect();
    let text = canonical(&Value::Object(options.clone()));
    let name = if is_source { table.name.as_str() } else { "" };
    let own = [name, table.kind.as_str(), &text, model.unwrap_or_default()];
    let digest = of_parts(own.into_iter().chain(inputs.iter().copied()));
    StageIdentity { kind: table.kind.clone(), digest, options }
}

/// SHA-256 over texts, each after its length, so that no two lists of texts give the same bytes.
pub(super) fn of_parts<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    bytes.iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// JSON with the keys of every table sorted.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries =
                entries.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}
