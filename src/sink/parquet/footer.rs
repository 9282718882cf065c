//! The provenance in the footer of a Parquet file, which is the checkpoint of a run.

use parquet::file::metadata::{KeyValue, ParquetMetaData};
use serde::de::DeserializeOwned;

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::OutputIdentity;
use crate::storage::Location;

/// The prefix of the keys of latentflow.
pub(crate) const KEY_PREFIX: &str = "latentflow.";

const PROVENANCE: &str = "latentflow.provenance";
const PIPELINE: &str = "latentflow.pipeline";
const STAGE: &str = "latentflow.stage";
const DIGEST: &str = "latentflow.digest";
const MODELS: &str = "latentflow.models";
const STAGES: &str = "latentflow.stages";
/// The sinks that can reject records; written only to rejects, and only if there are such sinks.
const SINKS: &str = "latentflow.sinks";
const VERSION: &str = "latentflow.version";

/// The writer and the source rows of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenanceFooter {
    /// The pipeline, the stage, the digest, and the content of the digest.
    pub identity: OutputIdentity,
    /// The version of latentflow that wrote the file.
    pub version: String,
    /// All source rows of the file, including rows that were dropped by stages.
    pub coverage: Coverage,
}

impl ProvenanceFooter {
    /// A footer of this version of latentflow.
    pub fn new(identity: OutputIdentity, coverage: Coverage) -> Self {
        Self {
            identity,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            coverage,
        }
    }

    /// The footer as key-value metadata.
    #[expect(
        clippy::expect_used,
        reason = "maps of strings and numbers always have a JSON form"
    )]
    pub fn to_metadata(&self) -> Vec<KeyValue> {
        let provenance =
            serde_json::to_string(&self.coverage).expect("a map of strings to numbers");
        let models =
            serde_json::to_string(&self.identity.models).expect("a map of strings to strings");
        let stages =
            serde_json::to_string(&self.identity.stages).expect("a map of strings to JSON");
        let sinks = Some(&self.identity.sinks).filter(|sinks| !sinks.is_empty());
        let sinks = sinks.map(|sinks| {
            (
                SINKS,
                serde_json::to_string(sinks).expect("a map of strings to JSON"),
            )
        });
        let entries = [
            (PROVENANCE, provenance),
            (PIPELINE, self.identity.pipeline.clone()),
            (STAGE, self.identity.stage.clone()),
            (DIGEST, self.identity.digest.clone()),
            (MODELS, models),
            (STAGES, stages),
            (VERSION, self.version.clone()),
        ];
        entries
            .into_iter()
            .chain(sinks)
            .map(|(key, value)| KeyValue::new(key.to_owned(), value))
            .collect()
    }

    /// The footer of a file; `None` if another program wrote the file.
    ///
    /// # Errors
    /// If the file has keys of latentflow with missing or invalid values. The message contains the
    /// location.
    pub fn from_metadata(
        file: &Location,
        metadata: &ParquetMetaData,
    ) -> Result<Option<Self>, StageError> {
        let entries = metadata
            .file_metadata()
            .key_value_metadata()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let find = |key: &str| {
            entries
                .iter()
                .find(|entry| entry.key == key)?
                .value
                .as_deref()
        };
        let Some(provenance) = find(PROVENANCE) else {
            return Ok(None);
        };
        let damaged = |key: &str, what: &str| {
            StageError::new(
                ErrorCode::StateCorrupt,
                format!("{file}: the footer entry `{key}` {what}; restore or remove the file"),
            )
        };
        let text = |key: &str| {
            find(key)
                .map(str::to_owned)
                .ok_or_else(|| damaged(key, "is missing"))
        };
        let identity = OutputIdentity {
            pipeline: text(PIPELINE)?,
            stage: text(STAGE)?,
            digest: text(DIGEST)?,
            models: json(MODELS, &text(MODELS)?, &damaged)?,
            stages: json(STAGES, &text(STAGES)?, &damaged)?,
            sinks: find(SINKS)
                .map(|sinks| json(SINKS, sinks, &damaged))
                .transpose()?
                .unwrap_or_default(),
            ..OutputIdentity::default()
        };
        let coverage = json(PROVENANCE, provenance, &damaged)?;
        Ok(Some(Self {
            identity,
            version: text(VERSION)?,
            coverage,
        }))
    }
}

fn json<T: DeserializeOwned>(
    key: &str,
    text: &str,
    damaged: &dyn Fn(&str, &str) -> StageError,
) -> Result<T, StageError> {
    serde_json::from_str(text).map_err(|error| damaged(key, &format!("is invalid: {error}")))
}
