//! Loads a file with its overrides.

use std::path::Path;

use serde_json::Value;

use crate::config::config_file::ConfigFile;
use crate::config::diagnostics::Diagnostics;
use crate::config::key_spans::KeySpans;
use crate::config::names::listed;
use crate::config::overrides::Override;
use crate::config::settings::{ModelTable, PipelineConfig, StageTable};
use crate::config::{overrides, parse, text_of};
use crate::error::config_error::ConfigError;
use crate::registry;

pub(super) fn load(
    kind: ConfigFile,
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<(Value, KeySpans), Diagnostics> {
    let mut key_spans = KeySpans::parse(path, text)?;
    let merged = overrides::apply_overrides(path, text, variables, overrides, &mut key_spans)?;
    match kind.mistaken(path, &merged) {
        None => Ok((merged, key_spans)),
        Some(message) => Err(Diagnostics::new(
            &key_spans,
            vec![ConfigError::new("", message)],
        )),
    }
}

pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads a pipeline file, applies the overrides of `LATENTFLOW__*` variables and of the command
/// line, and splits it into tables.
///
/// # Errors
/// All faults that can be found without resolving the pipeline: a file of another kind, syntax,
/// unknown keys, names, missing kinds.
pub fn read(path: &Path, overrides: &[Override]) -> Result<PipelineConfig, Diagnostics> {
    let text = text_of(ConfigFile::Pipeline, path)?;
    parse(path, &text, variables(), overrides)
}

/// Applies the overrides of `key=value` pairs to a table, such as one from a model card; the last
/// pair of a key takes precedence. Messages show `example` as a valid pair.
///
/// # Errors
/// For an invalid pair.
pub(crate) fn overlay(
    table: &Value,
    sets: &[String],
    example: &str,
) -> Result<Value, Vec<ConfigError>> {
    overrides::overlay(table, sets, example)
}

/// Returns a fault for each model that exists only in overrides and that no stage uses: its name is
/// mistyped, and the model that the override should change would stay as it is.
pub(super) fn unused_overrides(
    key_spans: &KeySpans,
    models: &[ModelTable],
    stages: &[StageTable],
) -> Vec<ConfigError> {
    let is_used = |name: &str| {
        let mut used = stages.iter().flat_map(StageTable::models);
        used.any(|model| model == name)
    };
    let key = |model: &ModelTable| format!("models.{}", model.name);
    let (added, declared): (Vec<&ModelTable>, Vec<&ModelTable>) = models
        .iter()
        .partition(|model| key_spans.is_only_overridden(&key(model)));
    let known: Vec<&str> = declared.iter().map(|model| model.name.as_str()).collect();
    added
        .into_iter()
        .filter(|model| !is_used(&model.name))
        .map(|model| {
            let near = registry::did_you_mean(&model.name, &known);
            let text = format!(
                "no stage uses the model `{}`{near}; models of the file: {}",
                model.name,
                listed(&known)
            );
            ConfigError::new(key(model), text)
        })
        .collect()
}
