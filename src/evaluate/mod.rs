//! Evaluation of a model: reconstruction, compression, denoising, classification and anomaly
//! detection, compared with principal components.
//!
//! A [`request`] opens the model and prepares the records, [`evaluation`] runs the model over them
//! and calls one file for each measurement, and [`result`] holds what they return.

mod accumulator;
mod anomalies;
pub(crate) mod calibration;
mod corruption_argument;
mod decode_distance;
mod denoising;
mod ensemble;
mod evaluation;
mod examples;
mod inference;
mod labels;
pub(crate) mod notes;
pub mod options;
mod pca_baseline;
mod request;
mod result;
mod sampler;
mod scoring;
mod source_argument;
pub(crate) mod summaries;
mod table;

pub use evaluation::evaluate;
pub(crate) use examples::{ExampleRecord, ExampleSet, collect_examples};
pub use options::EvaluationRequest;
pub use pca_baseline::max_pca_bytes;
pub(crate) use request::EvaluationRun;
pub use request::open_folder;
pub(crate) use result::anomaly_scores::*;
pub use result::*;

#[cfg(test)]
mod tests;
