//! Sources over files of records, in the formats of tables, text and arrays.

pub(crate) mod arrays;
pub(crate) mod arrow_ipc;
pub(crate) mod file_columns;
pub(crate) mod file_source;
pub(crate) mod json;
pub(crate) mod missing_values;
pub(crate) mod parallel_read;
pub(crate) mod parquet;
pub(crate) mod rows;
pub(crate) mod schema_inference;
pub(crate) mod tensor_layout;
pub(crate) mod text;
pub(crate) mod type_misfits;
pub(crate) mod widened_columns;
