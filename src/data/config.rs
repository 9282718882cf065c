//! The `[data]` table: the sources, the selection of records, and the shares of the parts.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan_context::PipelineLimits;
use crate::transform::Comparison;

/// The data that a model is trained on or evaluated with.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct DataSpec {
    /// The folder that relative paths of sources refer to. Default: the current folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The sources, which are read one after the other. Each is a table as in pipelines, with
    /// `kind` and the options of that kind.
    pub sources: Vec<Value>,
    /// The column of labels. Labels are used for metrics only; models are not trained on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The comparison that holds for normal records, such as `{ column = "y", equals = 0 }`. The
    /// other records are anomalies, which are all in the test part and never used for training or
    /// validation. Records without a value in the column (null, NaN, an empty string) are neither
    /// of both and left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal: Option<Comparison>,
    /// Comparisons that must all hold for a record to be used. Default: all records are used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Comparison>,
    /// Features: numeric columns to leave out if the input does not name its columns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// Images: the sample values of black and white in files that have more than 8 bits per sample
    /// and do not state their range, as the option of the stage `pixels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_range: Option<[f64; 2]>,
    /// The share of records that is reserved for validation, 0 to 1. Default: 0.1.
    pub validation: f64,
    /// The share of records that is reserved for the final test, 0 to 1. Default: 0.
    pub test: f64,
    /// Limits on the size of a record, as in pipelines.
    pub limits: PipelineLimits,
    /// A description of the data, for the model card.
    pub description: String,
    /// The license of the data, for the model card.
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
            value_range: None,
            validation: 0.1,
            test: 0.0,
            limits: PipelineLimits::default(),
            description: String::new(),
            license: String::new(),
        }
    }
}

/// The part that a record belongs to. It depends only on the record's own identity, thus it stays
/// the same when other records are added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subset {
    /// The model is trained on the record.
    Training,
    /// The record is used to decide when a training stops.
    Validation,
    /// The record is used to evaluate the finished model.
    Test,
}

impl Subset {
    /// All parts, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Training, Self::Validation, Self::Test];

    /// Returns the name that files and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}
