//! A planned stage.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::sink::{OutputIdentity, Sink};
use crate::source::Source;
use crate::source::batch_size::BatchSize;
use crate::transform::TransformPlan;

/// A stage of a plan.
pub struct Stage {
    /// The name of the stage.
    pub name: Arc<str>,
    /// The kind of the stage.
    pub kind: &'static str,
    /// The positions of the inputs in [`Plan::stages`](crate::plan::pipeline::Plan::stages), as declared.
    pub inputs: Vec<usize>,
    /// The planned operator, which a run opens.
    pub operator: StageOperator,
}

/// The role of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRole {
    /// Reads records.
    Source,
    /// Processes records.
    Transform,
    /// Writes records.
    Sink,
}

impl StageRole {
    /// Returns the name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }
}

/// The planned operator of a stage.
pub enum StageOperator {
    /// Reads records.
    Source(Box<dyn Source>, BatchSize),
    /// Processes records.
    Transform(Arc<dyn TransformPlan>),
    /// Writes records.
    Sink(Box<dyn Sink>, OutputIdentity),
}

impl Stage {
    /// Returns the role.
    pub fn role(&self) -> StageRole {
        match &self.operator {
            StageOperator::Source(..) => StageRole::Source,
            StageOperator::Transform(_) => StageRole::Transform,
            StageOperator::Sink(..) => StageRole::Sink,
        }
    }

    /// Returns the output columns; `None` for a sink.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.operator {
            StageOperator::Source(source, _) => Some(source.schema()),
            StageOperator::Transform(transform) => Some(transform.schema()),
            StageOperator::Sink(..) => None,
        }
    }
}

pub(super) fn is_unbounded(stages: &[Stage]) -> bool {
    stages
        .iter()
        .any(|stage| matches!(&stage.operator, StageOperator::Source(source, _) if source.is_unbounded()))
}
