//! A pipeline file as written, with the overrides of the environment and of `--set`, split into its
//! tables. [`parse`] validates its syntax, keys and names; `plan` validates the rest.

mod config_file;
pub(crate) mod diagnostics;
mod key_spans;
pub mod load;
pub(crate) mod names;
mod overrides;
pub(crate) mod settings;
mod syntax_errors;

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::load::{load, unused_overrides, variables};
use crate::config::names::{check_names, undeclared_stage};
use crate::config::settings::{
    MAX_STAGES, ModelTable, PipelineConfig, PipelineSettings, StageTable,
};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::registry;

use config_file::ConfigFile;

pub use crate::config::diagnostics::Diagnostics;
pub(crate) use key_spans::{KeySpans, is_at_or_below};
pub use overrides::Override;
pub(crate) use syntax_errors::explain;

/// Loads a training file, applies the overrides of `LATENTFLOW__*` variables and then those of the
/// command line, and locates its keys.
///
/// # Errors
/// If the file cannot be read or is of another kind, for every syntax error, and for every invalid
/// override.
pub fn read_training_file(
    path: &Path,
    overrides: &[Override],
) -> Result<(Value, KeySpans), Diagnostics> {
    let text = text_of(ConfigFile::Training, path)?;
    parse_training_file(path, &text, variables(), overrides)
}

/// As [`read_training_file`], from the text of the file and from given variables of the environment.
///
/// # Errors
/// For every syntax error, and for every invalid override.
pub fn parse_training_file(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<(Value, KeySpans), Diagnostics> {
    load(ConfigFile::Training, path, text, variables, overrides)
}

fn text_of(kind: ConfigFile, path: &Path) -> Result<String, Diagnostics> {
    let fault = |message| {
        let location = path.display().to_string();
        Diagnostics::at([(location, ConfigError::new("", message))])
    };
    kind.read(path).map_err(fault)
}

/// As [`load::read`], with the text of the file and the variables of the environment as arguments.
///
/// # Errors
/// As [`load::read`].
pub fn parse(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<PipelineConfig, Diagnostics> {
    let (merged, key_spans) = load(ConfigFile::Pipeline, path, text, variables, overrides)?;
    let effective = merged.clone();
    let (model_tables, stage_tables, rest) = tables(merged);
    let (settings, mut faults) = registry::parse_options_lenient::<PipelineSettings>(rest);
    let settings = settings.unwrap_or_default();
    let mut models: Vec<ModelTable> = faults
        .record(model_tables)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, options)| ModelTable { name, options })
        .collect();
    models.sort_by_key(|model| key_spans.order(&format!("models.{}", model.name)));
    let stage_tables = faults.record(stage_tables).unwrap_or_default();
    let is_declared = |name: &&String| !key_spans.is_only_overridden(&format!("stages.{name}"));
    let declared: Vec<String> = stage_tables.keys().filter(is_declared).cloned().collect();
    let mut stages = Vec::new();
    for (name, table) in stage_tables {
        let key = format!("stages.{name}");
        if !declared.contains(&name) && table.is_object() && table.get("kind").is_none() {
            faults.push(ConfigError::new(key, undeclared_stage(&name, &declared)));
            continue;
        }
        let (stage, found) = stage(name, table);
        stages.push(stage);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
    }
    stages.sort_by_key(|stage| key_spans.order(&format!("stages.{}", stage.name)));
    let stem = path.file_stem().map(|stem| {
        stem.to_string_lossy()
            .to_lowercase()
            .replace([' ', '.'], "-")
    });
    let name = settings.name.clone().or(stem).unwrap_or_default();
    faults.extend(check_names(&name, &models, &stages));
    faults.extend(unused_overrides(&key_spans, &models, &stages));
    if stages.len() > MAX_STAGES {
        let message = format!(
            "{} stages are too many; a pipeline has at most {MAX_STAGES} stages",
            stages.len()
        );
        return Err(Diagnostics::new(
            &key_spans,
            vec![ConfigError::new("stages", message)],
        ));
    }
    if stages.is_empty() && faults.is_empty() {
        faults.push(ConfigError::new(
            "",
            "no stages: a pipeline needs at least a source and a sink; see `latentflow init`",
        ));
    }
    faults.extend(settings.faults());
    if !faults.is_empty() {
        // The caller also checks the stages that could be read.
        return Err(Diagnostics::partial(
            &key_spans,
            faults,
            PipelineConfig {
                name,
                models,
                stages,
                settings,
                effective,
                key_spans: key_spans.clone(),
                shard: None,
            },
        ));
    }
    Ok(PipelineConfig {
        name,
        models,
        stages,
        settings,
        effective,
        key_spans,
        shard: None,
    })
}

type SplitTables = Result<Map<String, Value>, ConfigError>;

/// Separates the tables of models and stages from the others. They are read one by one, so that a
/// fault in one does not hide faults in the others.
fn tables(merged: Value) -> (SplitTables, SplitTables, Value) {
    let Value::Object(mut root) = merged else {
        return (Ok(Map::new()), Ok(Map::new()), merged);
    };
    let mut take = |name: &str, example: &str| match root.remove(name) {
        None => Ok(Map::new()),
        Some(Value::Object(table)) => Ok(table),
        Some(_) => Err(ConfigError::new(
            name,
            format!("expected tables, such as [{name}.{example}]"),
        )),
    };
    let (models, stages) = (take("models", "photo"), take("stages", "photos"));
    (models, stages, Value::Object(root))
}

/// Splits the table of a stage into the keys of all stages and the options of its kind. If the kind
/// is missing or not a string, it is empty.
fn stage(name: String, table: Value) -> (StageTable, Vec<ConfigError>) {
    let Value::Object(mut table) = table else {
        let stage = StageTable {
            name,
            kind: String::new(),
            inputs: Vec::new(),
            options: Value::Null,
        };
        return (
            stage,
            vec![ConfigError::new(
                "",
                "expected a table, such as [stages.photos]",
            )],
        );
    };
    let mut faults = Vec::new();
    let kind = match table.remove("kind") {
        Some(Value::String(kind)) => Some(kind),
        Some(other) => {
            faults.push(ConfigError::new(
                "kind",
                format!("expected a string, found {other}"),
            ));
            None
        }
        None => {
            faults.push(ConfigError::new(
                "",
                "`kind` is missing; expected the kind of the stage, such as kind = \"images\"",
            ));
            None
        }
    };
    let inputs = match table
        .remove("inputs")
        .map(serde_json::from_value::<Vec<String>>)
    {
        None => Vec::new(),
        Some(Ok(inputs)) => inputs,
        Some(Err(_)) => {
            faults.push(ConfigError::new(
                "inputs",
                "expected a list of stage names, such as [\"photos\"]",
            ));
            Vec::new()
        }
    };
    (
        StageTable {
            name,
            kind: kind.unwrap_or_default(),
            inputs,
            options: Value::Object(table),
        },
        faults,
    )
}
