//! latentflow: a streaming dataflow engine for autoencoders.
//!
//! The crate is the library of the program `latentflow`, and can be used without it:
//!
//! - **Run a pipeline.** [`config::parse`] reads a pipeline, [`plan::resolve`] checks it and fixes
//!   schemas, shapes and memory, and [`topology::Topology`] runs it (`examples/run_pipeline.rs`).
//! - **Process records in memory.** [`embed::EmbeddedPipeline`] applies the stages between a source
//!   and a sink to Arrow record batches (`examples/encode_batch.rs`).
//! - **Add a source, a transform or a sink.** A type implements [`source::SourceConfig`],
//!   [`transform::TransformConfig`] or [`sink::SinkConfig`], and [`plan::Kinds`] gives it a name
//!   (`examples/own_source.rs`).
//!
//! The data: a [`batch::Batch`] is an Arrow record batch with the source rows that it covers
//! ([`batch::provenance`]), [`coverage`] holds the rows that are committed, and a record that cannot
//! be processed is a reject ([`batch::reject`]). Errors of stages have a stable
//! [`error::code::ErrorCode`]. [`metrics::Metrics`] are those of Prometheus.
//!
//! Interfaces may change between versions before 1.0. Modules that are not listed here belong to the
//! program.

// Docs of the library also serve those who read its source.
#![allow(rustdoc::private_intra_doc_links)]

pub mod batch;
pub mod columns;
pub mod config;
pub mod coverage;
pub mod embed;
pub mod error;
pub mod image;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod plan_context;
pub mod registry;
pub mod sink;
pub mod source;
pub mod storage;
pub mod tensor;
pub mod topology;
pub mod transform;
pub mod units;

// Parts of the program that its tests and the Python package use.
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod data;
#[doc(hidden)]
pub mod evaluate;
#[doc(hidden)]
pub mod file_descriptors;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod system;
#[doc(hidden)]
pub mod temporary_folder;
#[cfg(feature = "train")]
#[doc(hidden)]
pub mod train;

mod admin;
mod arrow_size;
mod column_cast;
mod corruption;
mod daemon;
mod eval_metrics;
mod fs_durable;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod nested_types;
mod schema_display;
mod schema_unification;
mod search;
mod server;
mod shard;
#[cfg(test)]
#[path = "../tests/common/test_data.rs"]
mod test_data;
mod text_escape;
mod text_excerpt;
