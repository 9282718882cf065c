//! The `[data]` table: where records come from, which of them count, and how they are shared out.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan_context::PipelineLimits;
use crate::transform::Comparison;

/// What a model is trained on or evaluated with.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct DataSpec {
    /// Relative paths of sources begin here. Default: the current folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Where records come from, one source after the other: each a table as in pipelines, with
    /// `kind` and its options.
    pub sources: Vec<Value>,
    /// The column of labels. They are kept for measurements; nothing is trained on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Which records are normal, such as `{ column = "y", equals = 0 }`. The others are anomalies:
    /// never trained on, nor validated on; all of them go to the test part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal: Option<Comparison>,
    /// The records to use at all: those for which every one of these comparisons holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Comparison>,
    /// Features: numeric columns to leave out where the input names no columns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The share of records that is kept aside for validation, 0 to 1.
    pub validation: f64,
    /// The share of records that is kept aside for the final test, 0 to 1.
    pub test: f64,
    /// Bounds on what a record may be, as in pipelines.
    pub limits: PipelineLimits,
    /// What the data is, for the model's card.
    pub description: String,
    /// The terms that the data is under, for the model's card.
    pub license: String,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            root: None,
            sources: vec![],
            label: None,
            normal: None,
            keep: vec![],
            without: vec![],
            validation: 0.1,
            test: 0.0,
            limits: PipelineLimits::default(),
            description: String::new(),
            license: String::new(),
        }
    }
}

/// What a record is used for. Its own identity decides, so that it stays the same whatever else the
/// data holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subset {
    /// The model learns from it.
    Training,
    /// It says when to stop.
    Validation,
    /// It is looked at when all is done.
    Test,
}

impl Subset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Training, Self::Validation, Self::Test];

    /// Its name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}
