//! A pipeline as written: the file, overlaid by the environment and by `--set`, split into its
//! tables.

mod overrides;
mod key_spans;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ConfigError;
use crate::registry;
use crate::server::{ConnectionLimits, TlsConfig, TokenSource, check_auth, check_hosts};
use crate::units::HumanDuration;

pub use key_spans::{Diagnostics, KeySpans};

/// What a pipeline file says, before any of it is resolved.
#[derive(Debug)]
pub struct PipelineConfig {
    /// The pipeline's name.
    pub name: String,
    /// `[models.*]`, in the file's order.
    pub models: Vec<ModelTable>,
    /// `[stages.*]`, in the file's order.
    pub stages: Vec<StageTable>,
    /// Everything beside models and stages.
    pub settings: PipelineSettings,
    /// All of it as it was read, layers put together.
    pub effective: Value,
    /// Where each key stands, for messages.
    pub key_spans: KeySpans,
}

/// One `[models.NAME]`.
#[derive(Debug)]
pub struct ModelTable {
    /// What stages call it.
    pub name: String,
    /// What the table holds.
    pub options: Value,
}

/// One `[stages.NAME]`.
#[derive(Debug)]
pub struct StageTable {
    /// What other stages call it; a label of metrics.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// The stages whose output it takes.
    pub inputs: Vec<String>,
    /// What else the table holds: the options of its kind, and a source's `batch`.
    pub options: Value,
}

/// The tables of a pipeline file that are neither models nor stages.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PipelineSettings {
    /// The pipeline's name: `[a-z0-9_-]+`. Default: the file's name without its ending.
    pub name: Option<String>,
    /// Workers that carry batches through the graph. Default: the cores that the process may use.
    pub workers: Option<std::num::NonZeroU16>,
    /// Where journals are kept. Default: `_latentflow` in the folder of the first sink that writes
    /// files.
    pub state: Option<PathBuf>,
    /// Where records go that cannot be used, and how many there may be.
    pub rejects: RejectsSettings,
    /// Where metrics and health are served.
    pub admin: AdminSettings,
    /// When what was taken is made durable.
    pub commit: CommitSettings,
    /// How a run ends that is asked to stop.
    pub shutdown: ShutdownSettings,
    /// Bounds on what a record may be; see `latentflow schema`.
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
    /// A folder for Parquet files. Default: `_latentflow/rejects` in the folder of the first sink
    /// that writes files.
    pub path: Option<PathBuf>,
    /// A run that rejects a larger share of its records than this ends with exit code 3, and as
    /// soon as that is certain: 0 to 1. Where the number of records is not known beforehand, the
    /// first thousand are waited for. Default: any share.
    pub max_share: Option<f64>,
    /// A run that rejects more records than this stops, with exit code 3. Default: any number.
    pub max: Option<u64>,
    /// Keep the original of each reject, so that the source `rejects` can give it again: an image's
    /// bytes, a line, a row. With `false`, only the place of the record and the reason are kept: it
    /// cannot be replayed from there, but only be read from its own source again. Default: true.
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
    /// An address such as "127.0.0.1:9464"; `--metrics` goes before it. An address that other
    /// machines can reach needs `token` or `allow_unauthenticated`. Default: nothing is served.
    pub listen: Option<SocketAddr>,
    /// Where the token is that clients send as `Authorization: Bearer TOKEN`: { file = "..." } or {
    /// variable = "..." }. Browsers send it as the password of the user `latentflow`. `/healthz`
    /// and `/readyz` answer without it.
    pub token: Option<TokenSource>,
    /// Serve everybody, on an address that other machines can reach. Default: false.
    pub allow_unauthenticated: bool,
    /// Without a token: names under which clients may send requests, in addition to numeric
    /// addresses and localhost.
    pub hosts: Vec<String>,
    /// Speak TLS: { certificate = "cert.pem", key = "key.pem" }.
    pub tls: Option<TlsConfig>,
    /// Bounds on connections.
    pub limits: ConnectionLimits,
}

impl AdminSettings {
    /// What is wrong with the listener; keys are relative to the table.
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
    /// Sinks commit what has waited for so long: a Parquet file ends then, full or not. Default:
    /// "1m" where a source has no end; else files end when they are full, and when the run does.
    pub age: Option<HumanDuration>,
}

/// `[shutdown]`
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ShutdownSettings {
    /// How long a run that is asked to stop may take to finish and commit what it has begun; then
    /// it ends at once, and the next run does the rest. Default: "25s" where a source has no end;
    /// else as long as that takes.
    pub grace: Option<HumanDuration>,
}

/// Bytes that a pipeline file may have; what people write has some thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Stages that a pipeline may have: what is done for each pair of them is bounded with it.
/// Workers of a pipeline: each is a thread with sessions of its own.
const MAX_WORKERS: u16 = 1024;
const MAX_STAGES: usize = 256;

/// A TOML file under what overrides it, `LATENTFLOW__*` variables and then `key=value` pairs, and
/// where its keys stand.
///
/// # Errors
/// When it cannot be read, every error of syntax, and what overrides no key.
pub fn load_with_overrides(path: &Path, sets: &[String]) -> Result<(Value, KeySpans), Diagnostics> {
    let text = text_of(path).map_err(|error| Diagnostics::unreadable(path, &error))?;
    let mut places = KeySpans::of(path, &text)?;
    let merged = overrides::apply_overrides(path, &text, variables(), sets, &mut places)?;
    Ok((merged, places))
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads a pipeline file, overlays `LATENTFLOW__*` variables and `key=value` pairs, and splits it
/// into tables.
///
/// # Errors
/// Every fault that shows without resolving anything: syntax, unknown keys, names, missing kinds.
pub fn read(path: &Path, sets: &[String]) -> Result<PipelineConfig, Diagnostics> {
    let text = text_of(path).map_err(|error| Diagnostics::unreadable(path, &error))?;
    parse(path, &text, variables(), sets)
}

/// A table, such as a model's card keeps, with `key=value` pairs laid over it; the later wins.
/// `example` is one that would be understood.
///
/// # Errors
/// Pairs that are none.
pub fn overlay(table: &Value, sets: &[String], example: &str) -> Result<Value, Vec<ConfigError>> {
    overrides::overlay(table, sets, example)
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than a pipeline file may be, at most {MAX_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// [`read`] without the file system: the file's text, and the environment as pairs.
///
/// # Errors
/// As [`read`].
pub fn parse(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<PipelineConfig, Diagnostics> {
    let mut key_spans = KeySpans::of(path, text)?;
    let merged = overrides::apply_overrides(path, text, variables, sets, &mut key_spans)?;
    let effective = merged.clone();
    let (models, stages, rest) = tables(merged);
    let (settings, mut faults) = registry::parse_options_lenient::<PipelineSettings>(rest);
    let settings = settings.unwrap_or_default();
    let models = models
        .map_err(|fault| faults.push(fault))
        .unwrap_or_default();
    let mut models: Vec<ModelTable> = models
        .into_iter()
        .map(|(name, options)| ModelTable { name, options })
        .collect();
    models.sort_by_key(|model| key_spans.order(&format!("models.{}", model.name)));
    let mut stages_read = Vec::new();
    for (name, table) in stages
        .map_err(|fault| faults.push(fault))
        .unwrap_or_default()
    {
        let key = format!("stages.{name}");
        let (stage, found) = stage(name, table);
        stages_read.push(stage);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
    }
    let mut stages = stages_read;
    stages.sort_by_key(|stage| key_spans.order(&format!("stages.{}", stage.name)));
    let stem = path.file_stem().map(|stem| {
        stem.to_string_lossy()
            .to_lowercase()
            .replace([' ', '.'], "-")
    });
    let name = settings.name.clone().or(stem).unwrap_or_default();
    faults.extend(check_names(&name, &models, &stages));
    if stages.len() > MAX_STAGES {
        let text = format!(
            "there are {} stages; a pipeline has at most {MAX_STAGES}",
            stages.len()
        );
        return Err(Diagnostics::new(
            &key_spans,
            vec![ConfigError::new("stages", text)],
        ));
    }
    if stages.is_empty() && faults.is_empty() {
        faults.push(ConfigError::new(
            "",
            "no stages: a pipeline needs at least a source and a sink; see `latentflow init`",
        ));
    }
    if let Some(share) = settings
        .rejects
        .max_share
        .filter(|share| !(0.0..=1.0).contains(share))
    {
        faults.push(ConfigError::new(
            "rejects.max_share",
            format!("{share} is no share; write a number from 0 to 1"),
        ));
    }
    if let Some(workers) = settings
        .workers
        .filter(|workers| workers.get() > MAX_WORKERS)
    {
        let text = format!(
            "{workers} threads; a pipeline has at most {MAX_WORKERS} workers, and needs about one a core"
        );
        faults.push(ConfigError::new("workers", text));
    }
    faults.extend(
        settings
            .admin
            .faults()
            .into_iter()
            .map(|fault| fault.within("admin")),
    );
    if !faults.is_empty() {
        // Stages that could be read are checked by the caller together with these.
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
    })
}

type SplitTables = Result<Map<String, Value>, ConfigError>;

/// Takes the tables of models and stages out of the file's; they are read one by one, so that a
/// fault in one does not hide those of the others.
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

/// Splits a stage's table into what every stage has and what its kind makes of the rest.
/// A stage whose kind is missing or wrong has the empty kind.
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
                format!("expected a string, met {other}"),
            ));
            None
        }
        None => {
            faults.push(ConfigError::new(
                "",
                "`kind` is missing: it says what the stage is",
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

fn check_names(name: &str, models: &[ModelTable], stages: &[StageTable]) -> Vec<ConfigError> {
    let models = models
        .iter()
        .map(|model| (format!("models.{}", model.name), model.name.as_str()));
    let stages = stages
        .iter()
        .map(|stage| (format!("stages.{}", stage.name), stage.name.as_str()));
    let named = std::iter::once(("name".to_owned(), name))
        .chain(models)
        .chain(stages);
    named
        .filter_map(|(key, name)| Some(ConfigError::new(key, name_fault(name)?)))
        .collect()
}

/// What is wrong with a name, if anything.
pub fn name_fault(name: &str) -> Option<String> {
    (!is_name(name))
        .then(|| format!("`{name}` is no name: use a-z, 0-9, _ and -, at most 64 of them"))
}

/// Names become labels of metrics, file names and environment variables: what is allowed is what
/// all of them take.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}
