//! The result of an evaluation, which the table, the JSON and the report show.

pub(crate) mod anomaly_scores;
mod record_scores;

use serde::Serialize;

use crate::evaluate::result::anomaly_scores::{AnomalyScores, DecodeDistance, DenoisingScores};
use crate::model::card::error_stats::ErrorStats;

pub use record_scores::*;

/// The result of an evaluation. Sections that do not apply to the model or the data are missing.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// The evaluated model.
    pub model: ModelSummary,
    /// The records of the evaluation.
    pub data: DataSummary,
    /// The size of a record relative to the size of its latent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionRatio>,
    /// The quality of reconstructions, over normal records only if the data has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<ReconstructionScores>,
    /// The share of latent values that are active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<LatentUsage>,
    /// The reconstruction error of principal components with the same code size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<PcaBaseline>,
    /// The accuracy of classifiers on latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<ClassificationScores>,
    /// The detection of anomalies by their reconstruction errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomalies: Option<AnomalyScores>,
    /// The quality of denoised records, one entry per corruption.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denoising: Vec<DenoisingScores>,
    /// The distance between full and scaled decoding of JPEGs, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_distance: Option<DecodeDistance>,
    /// Notes on samples, omissions and measurements that were skipped, as sentences.
    pub notes: Vec<String>,
    /// All scored records, in order. They are too many for the JSON.
    #[serde(skip)]
    pub records: Vec<RecordScore>,
    /// Latents of scored records, evenly spaced, if the model has a code. They are too many for the
    /// JSON.
    #[serde(skip)]
    pub codes: Option<LabeledLatents>,
}

/// Latents with the labels and anomaly flags of their records.
#[derive(Debug, Clone)]
pub struct LabeledLatents {
    /// Number of values of a latent.
    pub size: usize,
    /// The latents, row-major.
    pub values: Vec<f32>,
    /// The label of each record, an index into [`crate::data::PreparedDataset::labels`].
    pub labels: Vec<Option<u32>>,
    /// Whether each record is an anomaly.
    pub anomalies: Vec<bool>,
}

/// The model that was evaluated.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// The name on the card, or else the name under which the model was opened.
    pub name: String,
    /// The kind of the network, such as `linear`.
    pub kind: String,
    /// SHA-256 over everything that determines the results of the model.
    pub digest: String,
    /// A summary of input and output.
    pub summary: String,
    /// The loss that defines the reconstruction error.
    pub loss: &'static str,
    /// Number of values of a latent, if the model has a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_size: Option<usize>,
}

/// The records that a model was evaluated with.
#[derive(Debug, Serialize)]
pub struct DataSummary {
    /// SHA-256 over all records, their labels and parts.
    pub digest: String,
    /// The parts that were scored.
    pub parts: Vec<&'static str>,
    /// Number of records of these parts.
    pub records: usize,
    /// Number of scored records: all records, or at most 100,000 of them, evenly spaced.
    pub scored: usize,
    /// Number of anomalies among the scored records.
    pub anomalies: usize,
    /// Number of records that could not be read and are in none of the parts.
    pub rejects: u64,
    /// Number of records without a value in the column of `normal`. They are neither normal nor
    /// anomalies, and in none of the parts.
    pub without_label: u64,
    /// Number of records on which the model failed or returned a value that is not finite.
    pub failed: usize,
}

impl DataSummary {
    /// Returns the parts as text: `test part`, `training, validation and test parts`.
    pub(crate) fn parts_in_words(&self) -> String {
        match self.parts.as_slice() {
            [one] => format!("{one} part"),
            [before @ .., last] => format!("{} and {last} parts", before.join(", ")),
            [] => String::new(),
        }
    }
}

/// The size of a record relative to the size of its latent.
#[derive(Debug, Serialize)]
pub struct CompressionRatio {
    /// Number of values of a record.
    pub input_values: usize,
    /// Number of values of a latent.
    pub code_values: usize,
    /// `input_values / code_values`.
    pub values_ratio: f64,
    /// Number of bytes of a record: one per value of an image, four per feature.
    pub input_bytes: usize,
    /// Number of bytes of a latent, four per value.
    pub code_bytes: usize,
    /// `input_bytes / code_bytes`.
    pub bytes_ratio: f64,
}

/// The quality of reconstructions.
#[derive(Debug, Serialize)]
pub struct ReconstructionScores {
    /// The model's loss per record.
    pub error: ErrorStats,
    /// Mean squared error, in the squared units of the model's input.
    pub mse: f64,
    /// The image quality; `None` for features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageQuality>,
    /// The record with the smallest error.
    pub best: ExampleRef,
    /// The record with the median error.
    pub median: ExampleRef,
    /// The record with the largest error.
    pub worst: ExampleRef,
    /// The records with the largest errors, at most 10, in descending order of the errors.
    pub largest_errors: Vec<ExampleRef>,
}

/// The share of latent values that are active.
#[derive(Debug, Serialize)]
pub struct LatentUsage {
    /// Number of latents of normal records that were measured.
    pub codes: usize,
    /// The mean share of active values of a latent, whose magnitude is above `threshold`.
    pub active_share: f64,
    /// A tenth of the root mean square of all values of these latents.
    pub threshold: f64,
    /// Number of latent dimensions that are not active in any latent.
    pub never_active: usize,
}

/// Principal components of the model's input, with the code size of the model.
#[derive(Debug, Serialize)]
pub struct PcaBaseline {
    /// Number of components.
    pub code_size: usize,
    /// Number of records of the training part that the components were fitted to.
    pub fitted: usize,
    /// The share of the variance of these records that the components explain.
    pub explained_share: f64,
    /// Mean squared error on the scored records, over normal records only if the data has any.
    pub mse: f64,
    /// Mean squared error of the model on the same records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_mse: Option<f64>,
}

/// The accuracy of classifiers that predict labels from latents.
#[derive(Debug, Serialize)]
pub struct ClassificationScores {
    /// Number of distinct labels of the records that classifiers were fitted to.
    pub classes: usize,
    /// Number of records of the training part that classifiers were fitted to.
    pub fitted: usize,
    /// Number of records that classifiers were scored on.
    pub scored: usize,
    /// The accuracy on the latents of the model.
    pub latent: ClassifierAccuracy,
    /// The accuracy on the same number of principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<ClassifierAccuracy>,
}

/// The share of records whose label is predicted correctly, 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct ClassifierAccuracy {
    /// The accuracy of the five nearest neighbors.
    #[serde(rename = "neighbours")]
    pub neighbors: f64,
    /// The accuracy of a multinomial logistic regression on standardized latents.
    pub probe: f64,
}
