//! The tables of a pipeline, as written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::key_spans::KeySpans;
use crate::error::config_error::ConfigError;
use crate::server::{ConnectionLimits, TlsConfig, TokenSource, check_auth, check_hosts};
use crate::shard::Shard;
use crate::storage::is_url;
use crate::units::HumanDuration;

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
    const PATHS: [&str; 5] = ["path", "encoder", "decoder", "model", "preprocessor"];

    /// The options with the paths of files.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let path = |key: &str| {
            let path = self.options.get(key)?.as_str()?;
            Some((key.to_owned(), PathBuf::from(path)))
        };
        Self::PATHS.into_iter().filter_map(path).collect()
    }

    /// Resolves relative paths of the files against `base`.
    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        for key in Self::PATHS {
            if let Some(Value::String(path)) = self.options.get_mut(key)
                && !is_url(path)
            {
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

impl StageTable {
    /// The names of the models that the stage uses: its option `model`, or each of its option
    /// `models`.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        let one = self.options.get("model").and_then(Value::as_str);
        let several = self.options.get("models").and_then(Value::as_array);
        one.into_iter()
            .chain(several.into_iter().flatten().filter_map(Value::as_str))
    }
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
pub(super) const MAX_STAGES: usize = 256;

impl PipelineSettings {
    /// Returns the faults of values that are out of range.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
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
