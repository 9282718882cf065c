//! The context in which stages are planned: the models by name, the limits, metrics and listeners.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::registry::did_you_mean;
use crate::server::Listeners;
use crate::shard::Shard;
use crate::storage::{Location, LocationError};
use crate::system;
use crate::units::ByteSize;

/// Limits on memory and on a single record, independent of the sizes that its header declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct PipelineLimits {
    /// Maximum number of pixels of an image, checked against its header before it is decoded. The
    /// limit is lower for images that need more than 12 bytes per pixel to decode, such as 32-bit
    /// floats.
    pub pixels: u64,
    /// Maximum size of a record, both as stored (an image file, a line of text, an archive member)
    /// and in Arrow memory (a row of Parquet, Arrow or NumPy files, with dictionaries and
    /// run-length encodings expanded).
    pub record_bytes: ByteSize,
    /// Maximum memory of the batches in flight, the models and the workers together. If it is set,
    /// the batch sizes, the number of workers and the maximum size of an image are reduced until
    /// they fit. Default: half of the memory that the process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl Default for PipelineLimits {
    fn default() -> Self {
        // 100 megapixels is more than any handheld camera records; 64 MiB is more than the files it
        // writes.
        Self {
            pixels: 100_000_000,
            record_bytes: ByteSize(64 << 20),
            memory: None,
        }
    }
}

/// Bytes that a source may hold in addition to its batches if the pipeline does not limit memory.
const HELD: u64 = 512 << 20;

impl PipelineLimits {
    /// Bytes that a source may hold while it reads a file, in addition to its batches: the largest
    /// unit that its format decodes.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.memory.map_or_else(
            || HELD.min(system::memory_limit() / 2),
            |memory| memory.0 / 2,
        )
    }
}

/// The inputs of planning a stage.
#[derive(Clone)]
pub struct PlanContext {
    /// The models by name; `None` for a model that could not be opened, whose faults are already
    /// reported.
    pub models: BTreeMap<String, Option<Arc<Model>>>,
    /// Bounds on records.
    pub limits: PipelineLimits,
    /// Metrics for stages that report more than the number of records.
    pub metrics: Arc<Metrics>,
    /// State that the listeners of the run share.
    pub listeners: Arc<Listeners>,
    /// The columns of the records that an embedding program supplies; `None` without one.
    pub supplied: Option<SchemaRef>,
    /// The shard whose share of the inputs is read; `None` for all inputs.
    pub shard: Option<Shard>,
}

impl PlanContext {
    /// A context with new metrics and listeners.
    pub fn new(models: BTreeMap<String, Option<Arc<Model>>>, limits: PipelineLimits) -> Self {
        Self {
            models,
            limits,
            metrics: Arc::default(),
            listeners: Arc::default(),
            supplied: None,
            shard: None,
        }
    }

    /// The folder below a configured path in which the run writes: the folder of the shard, or the
    /// path itself without shards.
    ///
    /// # Errors
    /// Those of [`Location::from_path`].
    pub(crate) fn output_folder(&self, path: &Path) -> Result<Location, LocationError> {
        let location = Location::from_path(path)?;
        Ok(match self.shard {
            Some(shard) => location.join(&shard.folder()),
            None => location,
        })
    }

    /// The model with this name.
    ///
    /// # Errors
    /// Returns a fault at `model` if the model is not declared, and an empty list if it is declared
    /// but could not be opened, because that fault is already reported.
    pub fn model(&self, name: &str) -> Result<Arc<Model>, Vec<ConfigError>> {
        match self.models.get(name) {
            Some(Some(model)) => Ok(Arc::clone(model)),
            Some(None) => Err(Vec::new()),
            None => {
                let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
                let message = match known.as_slice() {
                    [] => format!(
                        "no model `{name}`: the pipeline declares none; add [models.{name}]"
                    ),
                    _ => format!(
                        "no model `{name}`{}; declared: {}",
                        did_you_mean(name, &known),
                        known.join(", ")
                    ),
                };
                Err(vec![ConfigError::new("model", message)])
            }
        }
    }
}
