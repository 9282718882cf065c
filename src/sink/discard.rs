//! Sink `discard`: drops records, for benchmarks.

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::sink::{Durable, Identity, Sink, SinkConfig, Writer, Written};
use crate::store::Location;

/// It has no options.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Config {}

impl SinkConfig for Config {
    fn plan(&mut self, _: &SchemaRef, _: &PlanContext) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        Ok(Box::new(Discard))
    }
}

struct Discard;

impl Sink for Discard {
    fn folder(&self) -> Option<Location> {
        None
    }

    fn open(self: Box<Self>, _: Identity) -> Result<Box<dyn Writer>, StageError> {
        Ok(self)
    }
}

impl Writer for Discard {
    fn write(&mut self, _: &Batch) -> Result<Durable, StageError> {
        Ok(Durable::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    fn written(&self) -> Written {
        Written::default()
    }
}
