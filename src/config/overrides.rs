//! Overrides of a pipeline file: environment variables, then `--set`, which takes precedence.

use std::path::Path;

use config::{Config, File, FileFormat};
use serde_json::Value;

use super::key_spans::KeySpans;
use crate::config::diagnostics::Diagnostics;
use crate::error::config_error::ConfigError;
use crate::text_excerpt::excerpt;

/// The prefix of variables that override keys; `__` separates the parts of the key:
/// `LATENTFLOW__STAGES__OUT__PATH`.
const PREFIX: &str = "LATENTFLOW__";

/// The beginning of variables that users write in place of [`PREFIX`].
const SINGLE_PREFIX: &str = "LATENTFLOW_";

/// Maximum number of parts of a key; no option is nested more deeply.
const MAX_DEPTH: usize = 32;

/// An override from the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// The key and the value, separated by `=`.
    pair: String,
    /// The option as the user wrote it, which messages name.
    origin: String,
}

impl Override {
    /// An override by `--set`, as a pair `key=value`.
    pub fn set(pair: &str) -> Self {
        Self {
            pair: pair.to_owned(),
            origin: format!("--set {pair}"),
        }
    }

    /// An override by another option: `option` is the option with its value, such as `--workers 4`.
    pub fn option(option: String, key: &str, value: &str) -> Self {
        Self {
            pair: format!("{key}={value}"),
            origin: option,
        }
    }
}

/// Logs a variable that would override a key if its parts were separated by two underscores.
fn warn_of_single_underscores(name: &str, key_spans: &KeySpans) {
    if name.starts_with(PREFIX) {
        return;
    }
    let Some(rest) = name.strip_prefix(SINGLE_PREFIX) else {
        return;
    };
    if let Some(key) = key_spans.key_of_words(&rest.to_lowercase()) {
        let expected = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
        tracing::warn!(
            variable = name,
            %expected,
            "an environment variable is ignored, because single underscores separate its parts"
        );
    }
}

/// Merges the file and its overrides, and records the overridden keys in `key_spans`.
pub(super) fn apply_overrides(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    options: &[Override],
    key_spans: &mut KeySpans,
) -> Result<Value, Diagnostics> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let mut faults = Vec::new();
    let mut overrides = Vec::new();
    for (name, value) in variables {
        warn_of_single_underscores(&name, key_spans);
        if let Some(key) = name.strip_prefix(PREFIX) {
            let key = key.to_lowercase().replace("__", ".");
            overrides.push((key, value, format!("environment variable {name}")));
        }
    }
    overrides.sort();
    for Override { pair, origin } in options {
        match pair.split_once('=') {
            Some((key, value)) => overrides.push((
                key.trim().to_owned(),
                value.trim().to_owned(),
                origin.clone(),
            )),
            None => {
                let message = "expected key=value, such as stages.out.path=out";
                faults.push((origin.clone(), ConfigError::new("", message)));
            }
        }
    }
    for (key, value, origin) in overrides {
        if key.split('.').count() > MAX_DEPTH {
            let shown = excerpt(&origin, 60).into_owned();
            let message = format!("the key has more than {MAX_DEPTH} parts, the maximum");
            faults.push((shown, ConfigError::new("", message)));
            continue;
        }
        match builder.clone().set_override(&key, parse_value(&value)) {
            Ok(with) => {
                builder = with;
                key_spans.overridden(&key, origin);
            }
            Err(_) => {
                let message = format!(
                    "`{key}` is not a key; expected parts separated by dots, such as \
                     stages.out.path"
                );
                faults.push((origin, ConfigError::new("", message)));
            }
        }
    }
    if !faults.is_empty() {
        return Err(Diagnostics::at(faults));
    }
    let merged = builder.build().and_then(Config::try_deserialize::<Value>);
    let merged = merged.map_err(|error| {
        Diagnostics::new(
            key_spans,
            vec![ConfigError::new("", format!("{}: {error}", path.display()))],
        )
    })?;
    let mut infinite = Vec::new();
    add_infinite("", &merged, &mut infinite);
    if infinite.is_empty() {
        Ok(merged)
    } else {
        Err(Diagnostics::new(key_spans, infinite))
    }
}

/// Adds a fault for each number that is not finite. TOML has such numbers, but JSON does not: they
/// become `null`, which TOML does not have, and the option would silently have its default.
fn add_infinite(key: &str, value: &Value, faults: &mut Vec<ConfigError>) {
    match value {
        Value::Null => faults.push(ConfigError::new(
            key,
            "is not a finite number; write one, or omit the key",
        )),
        Value::Object(table) => {
            for (name, nested) in table {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                add_infinite(&key, nested, faults);
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|element| add_infinite(key, element, faults)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Applies the overrides of `key=value` pairs to a table; the last pair of a key takes precedence.
/// Messages show `example` as a valid pair.
pub(super) fn overlay(
    table: &Value,
    sets: &[String],
    example: &str,
) -> Result<Value, Vec<ConfigError>> {
    let invalid = |set: &str| {
        vec![ConfigError::new(
            "",
            format!("--set {set}: expected key=value, such as {example}"),
        )]
    };
    let failed = |error: config::ConfigError| vec![ConfigError::new("", error.to_string())];
    let mut builder = Config::builder().add_source(Config::try_from(table).map_err(failed)?);
    for set in sets {
        let (key, value) = set
            .split_once('=')
            .filter(|(key, _)| key.split('.').count() <= MAX_DEPTH)
            .ok_or_else(|| invalid(set))?;
        builder = builder
            .set_override(key.trim(), parse_value(value.trim()))
            .map_err(|_| invalid(set))?;
    }
    builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(failed)
}

/// Parses a value as TOML (`32`, `true`, `["a", "b"]`, `{ records = 8 }`); any other text is a
/// string.
fn parse_value(text: &str) -> config::Value {
    let parsed = Config::builder()
        .add_source(File::from_str(&format!("value = {text}"), FileFormat::Toml))
        .build();
    let value = parsed.and_then(|parsed| parsed.get::<config::Value>("value"));
    value.unwrap_or_else(|_| config::Value::from(text))
}
