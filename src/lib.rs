//! latentflow: a streaming dataflow engine for autoencoders.
//!
//! The modules in reading order: the data, the pipeline file, its checks, and the run.

pub mod error;
pub mod json;
pub mod text_escape;
pub mod temp_dir;
pub mod file_descriptors;
pub mod fs_durable;
pub mod storage;
pub mod shard;
pub mod units;
pub mod system;
pub mod batch;
pub mod coverage;
pub mod tensor;
pub mod arrow_size;
pub mod nested_types;
pub mod schema_display;
pub mod schema_unification;
pub mod column_cast;
pub mod metrics;
pub mod server;
pub mod eval_metrics;
pub mod registry;
pub mod config;
pub mod image;
pub mod corruption;
pub mod model;
pub mod plan_context;
pub mod source;
pub mod transform;
pub mod sink;
pub mod plan;
pub mod topology;
pub mod embed;
pub mod admin;
pub mod daemon;
pub mod data;
pub mod evaluate;
pub mod report;
#[cfg(feature = "train")]
pub mod train;
pub mod cli;
#[cfg(test)]
#[path = "../tests/common/test_data.rs"]
mod test_data;
