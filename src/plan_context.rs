//! What every stage may ask for while it is planned: the models by name, and the limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::registry::did_you_mean;
use crate::server::Listeners;
use crate::system;
use crate::units::ByteSize;

/// Bounds on what one record may be, whatever it claims of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct PipelineLimits {
    /// Pixels that an image may have, by its header, before it is decoded. An image whose decoding
    /// takes more than 12 bytes for each pixel, such as one of 32-bit floats, may have fewer.
    pub pixels: u64,
    /// Bytes that a record may have as it is stored (an image file, a line of text, an archive
    /// member), and in Arrow memory (a row of Parquet, Arrow or NumPy files, dictionaries and runs
    /// written out).
    pub record_bytes: ByteSize,
    /// Bytes that batches in flight, models and workers may take together. Where it is written,
    /// batches, workers and what an image may have become smaller until they fit. Default: half of
    /// what the process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl Default for PipelineLimits {
    fn default() -> Self {
        // 100 megapixels is beyond every camera that is held in a hand; 64 MiB beyond the files
        // they write.
        Self {
            pixels: 100_000_000,
            record_bytes: ByteSize(64 << 20),
            memory: None,
        }
    }
}

/// Bytes that a source may hold in addition to its batches if the pipeline does not limit the
/// memory.
const HELD: u64 = 512 << 20;

impl PipelineLimits {
    /// Bytes that a source may hold while it reads a file, in addition to its batches: the largest
    /// unit that its format decodes.
    pub fn buffer_bytes(&self) -> u64 {
        self.memory.map_or_else(
            || HELD.min(system::memory_limit() / 2),
            |memory| memory.0 / 2,
        )
    }
}

/// What stages are planned with.
#[derive(Clone)]
pub struct PlanContext {
    /// The models that could be opened; `None` for one whose faults are reported already.
    pub models: BTreeMap<String, Option<Arc<Model>>>,
    /// Bounds on records.
    pub limits: PipelineLimits,
    /// For stages that tell of more than the records that they take and give.
    pub metrics: Arc<Metrics>,
    /// What the listeners of the run share.
    pub listeners: Arc<Listeners>,
}

impl PlanContext {
    /// With metrics of its own.
    pub fn new(models: BTreeMap<String, Option<Arc<Model>>>, limits: PipelineLimits) -> Self {
        Self {
            models,
            limits,
            metrics: Arc::default(),
            listeners: Arc::default(),
        }
    }

    /// The model of that name.
    ///
    /// # Errors
    /// A fault at `model` where no such model is declared; none where it is declared, but could not
    /// be opened.
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
