//! The layers of a pipeline: its file, then the environment, then `--set`; the later wins.

use std::path::Path;

use config::{Config, File, FileFormat};
use serde_json::Value;

use super::place::{Places, Problems};
use crate::error::Fault;

/// Variables that override keys begin with this; `__` stands for the dot: `LATENTFLOW__STAGES__OUT__PATH`.
const PREFIX: &str = "LATENTFLOW__";

/// The layers as one value. Notes in `places` which keys came from elsewhere than the file.
pub(super) fn merge(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    sets: &[String],
    places: &mut Places,
) -> Result<Value, Problems> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let mut faults = Vec::new();
    let variables = variables.filter_map(|(name, value)| {
        let key = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
        Some((key, value, format!("environment variable {name}")))
    });
    let mut overrides: Vec<_> = variables.collect();
    overrides.sort();
    for set in sets {
        match set.split_once('=') {
            Some((key, value)) => {
                overrides.push((key.trim().to_owned(), value.trim().to_owned(), format!("--set {set}")));
            }
            None => {
                faults.push(Fault::new("", format!("--set {set}: expected key=value, such as stages.out.path=out")))
            }
        }
    }
    for (key, value, origin) in overrides {
        match builder.clone().set_override(&key, typed(&value)) {
            Ok(with) => {
                builder = with;
                places.overridden(&key, origin);
            }
            Err(_) => faults.push(Fault::new(
                "",
                format!("{origin}: `{key}` is no key; write it with dots, such as stages.out.path"),
            )),
        }
    }
    if !faults.is_empty() {
        return Err(Problems::new(places, faults));
    }
    let merged = builder.build().and_then(Config::try_deserialize::<Value>);
    merged.map_err(|error| Problems::new(places, vec![Fault::new("", format!("{}: {error}", path.display()))]))
}

/// A table with `key=value` pairs laid over it, the later winning. `example`: one that would be understood.
pub(super) fn overlay(table: &Value, sets: &[String], example: &str) -> Result<Value, Vec<Fault>> {
    let wrong = |set: &str| vec![Fault::new("", format!("--set {set}: expected key=value, such as {example}"))];
    let failed = |error: config::ConfigError| vec![Fault::new("", error.to_string())];
    let mut builder = Config::builder().add_source(Config::try_from(table).map_err(failed)?);
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| wrong(set))?;
        builder = builder.set_override(key.trim(), typed(value.trim())).map_err(|_| wrong(set))?;
    }
    builder.build().and_then(Config::try_deserialize).map_err(failed)
}

/// A value as TOML would read it (`32`, `true`, `["a", "b"]`, `{ records = 8 }`); anything else is a string.
fn typed(text: &str) -> config::Value {
    let parsed = Config::builder().add_source(File::from_str(&format!("value = {text}"), FileFormat::Toml)).build();
    let value = parsed.and_then(|parsed| parsed.get::<config::Value>("value"));
    value.unwrap_or_else(|_| config::Value::from(text))
}
