//! The types of columns of requests.

use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a column, as written in the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RequestColumnType {
    /// A 64-bit floating point number.
    Float,
    /// A list of 64-bit floating point numbers.
    Floats,
    /// A 64-bit integer.
    Int,
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
}

impl RequestColumnType {
    pub(in crate::source) fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Floats => DataType::new_list(DataType::Float64, true),
            Self::Int => DataType::Int64,
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }
}
