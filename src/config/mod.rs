//! A pipeline file as written, with the overrides of the environment and of `--set`, split into its
//! tables. [`parse`] validates its syntax, keys and names; `plan` validates the rest.

mod config_file;
mod overrides;
mod key_spans;
mod syntax_errors;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{ConfigError, RecordFaults};
use crate::registry;
use crate::server::{ConnectionLimits, TlsConfig, TokenSource, check_auth, check_hosts};
use crate::shard::Shard;
use crate::units::HumanDuration;

use config_file::ConfigFile;
pub use key_spans::{Diagnostics, KeySpans, is_at_or_below};
pub use overrides::Override;
pub use syntax_errors::explain;

/// A pipeline file with its overrides, before it is resolved.
#[derive(Debug)]
pub struct PipelineConfig {
    /// The pipeline's name.
    pub name: String,
    /// `[models.*]`, in the file's order.
    pub models: Vec<ModelTable>,
    /// `[stages.*]`, in the file's order.
    pub stages: Vec<StageTable>,
    /// All other tables.
    pub settings: PipelineSettings,
    /// The complete pipeline with the overrides applied.
    pub effective: Value,
    /// The line of each key, for messages.
    pub key_spans: KeySpans,
    /// The shard of the run, from the command line; `None` for a run over all inputs.
    pub shard: Option<Shard>,
}

/// One `[models.NAME]`.
#[derive(Debug)]
pub struct ModelTable {
    /// The name by which stages refer to the model.
    pub name: String,
    /// The options of the table.
    pub options: Value,
}

impl ModelTable {
    /// The options with the paths of files.
    const PATHS: [&str; 4] = ["path", "encoder", "decoder", "model"];

    /// The options with the paths of files.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let path = |key: &str| {
            let path = self.options.get(key)?.as_str()?;
            Some((key.to_owned(), PathBuf::from(path)))
        };
        Self::PATHS.into_iter().filter_map(path).collect()
    }

    /// Resolves relative paths of the files against `base`.
    pub fn resolve_paths(&mut self, base: &Path) {
        for key in Self::PATHS {
            if let Some(Value::String(path)) = self.options.get_mut(key) {
                *path = base.join(&*path).display().to_string();
            }
        }
    }
}

/// One `[stages.NAME]`.
#[derive(Debug)]
pub struct StageTable {
    /// The name by which other stages refer to the stage; a label of metrics.
    pub name: String,
    /// The kind of the stage.
    pub kind: String,
    /// The stages whose output the stage takes.
    pub inputs: Vec<String>,
    /// The other keys of the table: the options of the kind, and the `batch` of a source.
    pub options: Value,
}

/// The tables of a pipeline file that are neither models nor stages.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PipelineSettings {
    /// Name of the pipeline, 1 to 64 characters of a-z, 0-9, `_` and `-`. Default: the name of the
    /// file without its extension.
    pub name: Option<String>,
    /// Number of workers, each of which processes one batch at a time through all transforms, 1 to
    /// 1024. Default: the number of available cores, or twice that number if the workers share
    /// their sessions.
    pub workers: Option<std::num::NonZeroU16>,
    /// Folder of the journals. Default: `_latentflow` in the folder of the first sink that writes
    /// files.
    pub state: Option<PathBuf>,
    /// Storage and limits of rejects.
    pub rejects: RejectsSettings,
    /// Listener for metrics and health.
    pub admin: AdminSettings,
    /// Commits of the sinks.
    pub commit: CommitSettings,
    /// Shutdown of a run on request.
    pub shutdown: ShutdownSettings,
    /// Limits on records and memory; see `latentflow schema`.
    pub limits: Value,
    /// ONNX Runtime: library, execution providers, threads.
    pub runtime: Value,
    /// Models by name.
    pub models: Map<String, Value>,
    /// Stages by name.
    pub stages: Map<String, Value>,
}

/// `[rejects]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RejectsSettings {
    /// Folder for the Parquet files of the rejects. Default: `_latentflow/rejects` in the folder of
    /// the first sink that writes files.
    pub path: Option<PathBuf>,
    /// Maximum share of rejected records, 0 to 1. A run that exceeds it ends with exit code 3 as
    /// soon as the excess is certain. If the number of records is not known in advance, the share
    /// is checked after the first 1000 records. Default: unlimited.
    pub max_share: Option<f64>,
    /// Maximum number of rejected records. A run that exceeds it ends with exit code 3. Default:
    /// unlimited.
    pub max: Option<u64>,
    /// Whether to store the original of each reject (the bytes of an image, a line, a row), so that
    /// the source `rejects` can replay it. With `false`, only the location of the record and the
    /// reason are stored, and the record has to be read from its own source again. Default: true.
    pub record: bool,
}

impl Default for RejectsSettings {
    fn default() -> Self {
        Self {
            path: None,
            max_share: None,
            max: None,
            record: true,
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdminSettings {
    /// Address of the listener, such as "127.0.0.1:9464"; `--metrics` takes precedence. An address
    /// that other machines can reach requires `token` or `allow_unauthenticated`. Default: no
    /// listener.
    pub listen: Option<SocketAddr>,
    /// Location of the token that clients send as `Authorization: Bearer TOKEN`: { file = "..." }
    /// or { variable = "..." }. Browsers send it as the password of the user `latentflow`.
    /// `/healthz` and `/readyz` do not require it.
    pub token: Option<TokenSource>,
    /// Whether to serve clients without a token on an address that other machines can reach.
    /// Default: false.
    pub allow_unauthenticated: bool,
    /// Without a token: host names that clients may send in requests, in addition to numeric
    /// addresses and localhost.
    pub hosts: Vec<String>,
    /// Certificate and key for TLS: { certificate = "cert.pem", key = "key.pem" }. Default: no TLS.
    pub tls: Option<TlsConfig>,
    /// Limits on connections.
    pub limits: ConnectionLimits,
}

impl AdminSettings {
    /// Returns the faults of the listener; keys are relative to the table.
    pub fn faults(&self) -> Vec<ConfigError> {
        let open = ("allow_unauthenticated", self.allow_unauthenticated);
        let access = self
            .listen
            .map(|listen| check_auth(listen, self.token.as_ref(), open));
        let limits = self
            .limits
            .faults()
            .into_iter()
            .map(|fault| fault.within("limits"));
        access
            .into_iter()
            .flatten()
            .chain(check_hosts(&self.hosts))
            .chain(limits)
            .collect()
    }
}

/// `[commit]`
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommitSettings {
    /// Maximum age of an uncommitted record. When it is reached, the sinks commit, and a Parquet
    /// file ends even if it is not full. Default: "1m" with an unbounded source; otherwise a file
    /// ends when it is full or the run ends.
    pub age: Option<HumanDuration>,
}

/// `[shutdown]`
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ShutdownSettings {
    /// Maximum time to commit the records in flight after a signal to stop. When it has elapsed,
    /// the process ends immediately, and the next run processes the remaining records. Default:
    /// "25s" with an unbounded source; otherwise unlimited.
    pub grace: Option<HumanDuration>,
}

/// Maximum number of workers; each is a thread, and may have its own sessions.
const MAX_WORKERS: u16 = 1024;

/// Maximum number of stages, which bounds the work on pairs of stages.
const MAX_STAGES: usize = 256;

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

fn load(
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

fn variables() -> impl Iterator<Item = (String, String)> {
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
pub fn overlay(table: &Value, sets: &[String], example: &str) -> Result<Value, Vec<ConfigError>> {
    overrides::overlay(table, sets, example)
}

/// As [`read`], with the text of the file and the variables of the environment as arguments.
///
/// # Errors
/// As [`read`].
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

/// The message about a stage that exists only in overrides and has no kind: a mistyped name.
fn undeclared_stage(name: &str, declared: &[String]) -> String {
    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
    format!(
        "unknown stage `{name}`{}; known: {}; a new stage requires `kind`",
        registry::did_you_mean(name, &known),
        listed(&known)
    )
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Returns a fault for each model that exists only in overrides and that no stage uses: its name is
/// mistyped, and the model that the override should change would stay as it is.
fn unused_overrides(
    key_spans: &KeySpans,
    models: &[ModelTable],
    stages: &[StageTable],
) -> Vec<ConfigError> {
    let is_used = |name: &str| {
        let model = |stage: &StageTable| stage.options.get("model")?.as_str().map(str::to_owned);
        stages
            .iter()
            .any(|stage| model(stage).as_deref() == Some(name))
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

impl PipelineSettings {
    /// Returns the faults of values that are out of range.
    fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if let Some(share) = self
            .rejects
            .max_share
            .filter(|share| !(0.0..=1.0).contains(share))
        {
            faults.push(ConfigError::new(
                "rejects.max_share",
                format!("{share} is not a share; expected a number from 0 to 1"),
            ));
        }
        if let Some(workers) = self.workers.filter(|workers| workers.get() > MAX_WORKERS) {
            let text = format!(
                "{workers} is too many; a pipeline has at most {MAX_WORKERS} workers, and needs \
                 about one per core"
            );
            faults.push(ConfigError::new("workers", text));
        }
        faults.extend(
            self.admin
                .faults()
                .into_iter()
                .map(|fault| fault.within("admin")),
        );
        faults
    }
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

fn check_names(pipeline: &str, models: &[ModelTable], stages: &[StageTable]) -> Vec<ConfigError> {
    let models = models
        .iter()
        .map(|model| (format!("models.{}", model.name), model.name.as_str()));
    let stages = stages
        .iter()
        .map(|stage| (format!("stages.{}", stage.name), stage.name.as_str()));
    let named = std::iter::once(("name".to_owned(), pipeline))
        .chain(models)
        .chain(stages);
    named
        .filter_map(|(key, name)| Some(ConfigError::new(key, name_fault(name)?)))
        .collect()
}

/// Returns the fault of an invalid name.
pub fn name_fault(name: &str) -> Option<String> {
    (!is_name(name)).then(|| {
        format!("`{name}` is not a name; expected 1 to 64 characters of a-z, 0-9, `_` and `-`")
    })
}

/// Names become metric labels, file names and environment variables, so only characters that are
/// valid in all of them are allowed.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}
