//! The sink `discard`, which drops records, for benchmarks.

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::sink::{CommitProgress, CommitStats, OutputIdentity, Sink, SinkConfig, SinkWriter};
use crate::storage::Location;

/// Options of the sink `discard`, which has none.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct DiscardSinkConfig {}

impl SinkConfig for DiscardSinkConfig {
    fn plan(&mut self, _: &SchemaRef, _: &PlanContext) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        Ok(Box::new(DiscardSink))
    }
}

struct DiscardSink;

impl Sink for DiscardSink {
    fn folder(&self) -> Option<Location> {
        None
    }

    fn open(self: Box<Self>, _: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        Ok(self)
    }
}

impl SinkWriter for DiscardSink {
    fn write(&mut self, _: &Batch) -> Result<CommitProgress, StageError> {
        Ok(CommitProgress::All)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        Ok(())
    }

    fn stats(&self) -> CommitStats {
        CommitStats::default()
    }
}
