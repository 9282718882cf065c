//! The result of an evaluation, which the table, the JSON and the report show.

use serde::Serialize;

use crate::data::{PreparedDataset, RecordOrigin};
use crate::error::StageError;
use crate::model::card::ErrorStats;

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
    pub fn parts_in_words(&self) -> String {
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

/// A reference to a record, with its error.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleRef {
    /// The part of the record.
    pub part: &'static str,
    /// The index of the record in its part, from 0.
    pub index: usize,
    /// The name of the file that the record was read from, and the index of the record in it;
    /// `None` if an earlier version prepared the data.
    #[serde(flatten)]
    pub origin: Option<RecordOrigin>,
    /// The label of the record, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The loss of the model on the record.
    pub error: f64,
}

impl ExampleRef {
    /// Refers to a scored record.
    ///
    /// # Errors
    /// Returns an error if the origin of the record cannot be read.
    pub fn new(prepared: &PreparedDataset, score: &RecordScore) -> Result<Self, StageError> {
        let label = score
            .label
            .and_then(|label| prepared.labels.get(label as usize));
        Ok(Self {
            part: score.part.as_str(),
            index: score.index,
            origin: prepared.subset(score.part).origin(score.index)?,
            label: label.cloned(),
            error: score.error,
        })
    }

    /// Names the record by its origin, or else by its part and index.
    pub fn place(&self) -> String {
        match &self.origin {
            Some(origin) => origin.to_string(),
            None => format!("{} record {}", self.part, self.index),
        }
    }
}

/// The similarity of two sets of images, as means over images. Values are compared without clipping
/// them to their range.
#[derive(Debug, Clone, Serialize)]
pub struct ImageQuality {
    /// Peak signal-to-noise ratio in decibels, over the images that differ; `None` if all images
    /// are identical.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
    /// Structural similarity, at most 1; `None` if all images are smaller than its window of 11
    /// pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// Number of compared images.
    pub images: usize,
    /// Number of images whose structural similarity was measured: all images, or at most 5000 of
    /// them, evenly spaced.
    pub ssim_images: usize,
    /// Number of images that do not differ in any value.
    pub identical: usize,
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

/// The detection of anomalies by their reconstruction errors.
#[derive(Debug, Serialize)]
pub struct AnomalyScores {
    /// Number of scored normal records.
    pub normal: usize,
    /// Number of scored anomalies.
    pub anomalies: usize,
    /// The loss of the model on anomalies.
    pub error: ErrorStats,
    /// The ranking by the loss of the model.
    pub model: RankingScores,
    /// The ranking by the mean squared error of principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<RankingScores>,
    /// The detection rates at the error quantiles of the model card.
    pub thresholds: Vec<ErrorThreshold>,
    /// The anomalies with the largest errors, at most 10, in descending order of the errors.
    pub largest_errors: Vec<ExampleRef>,
    /// The anomalies with the smallest errors, at most 10, in ascending order of the errors.
    pub smallest_errors: Vec<ExampleRef>,
}

/// The quality of a ranking of anomalies above normal records.
#[derive(Debug, Clone, Serialize)]
pub struct RankingScores {
    /// Area under the ROC curve: 0.5 for a random ranking, 1 for a perfect one.
    pub auc_roc: f64,
    /// Average precision: the share of anomalies for a random ranking, 1 for a perfect one.
    pub average_precision: f64,
}

/// The shares of records whose error is above a quantile of the model card, which was measured on
/// the validation data of the training.
#[derive(Debug, Serialize)]
pub struct ErrorThreshold {
    /// `p95` or `p99`.
    pub quantile: &'static str,
    /// The error at the quantile.
    pub error: f64,
    /// The share of anomalies above the error, which is the true positive rate.
    pub anomalies_above: f64,
    /// The share of normal records above the error, which is the false positive rate.
    pub normal_above: f64,
}

/// The quality of records before and after denoising, for one corruption.
#[derive(Debug, Serialize)]
pub struct DenoisingScores {
    /// A summary of the corruption.
    pub corruption: String,
    /// The standard deviation of Gaussian noise if it is the same for all records. For pixels, its
    /// unit is 1/255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Number of corrupted records: all records, or at most 1000 of them, evenly spaced.
    pub records: usize,
    /// The corrupted input, compared with the clean record.
    pub noisy: DenoisingQuality,
    /// The output of the model, compared with the clean record.
    pub output: DenoisingQuality,
}

/// The distance of records from the clean ones.
#[derive(Debug, Clone, Serialize)]
pub struct DenoisingQuality {
    /// Mean squared error, in the squared units of the model's input.
    pub mse: f64,
    /// The image quality; `None` for features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageQuality>,
}

/// The distance between images that are decoded in full and at a fraction of their size, after they
/// are resized for the model.
#[derive(Debug, Serialize)]
pub struct DecodeDistance {
    /// Number of compared records: all records, or at most 1000 of them, evenly spaced.
    pub records: usize,
    /// The mean absolute difference of the values of pixels, in steps of 255.
    pub mean_steps: f64,
    /// The largest difference, in steps of 255.
    pub max_steps: u8,
    /// The mean loss of the model on images that are decoded in full, if the model reconstructs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_error: Option<f64>,
    /// The mean loss on images that are decoded at a fraction of their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaled_error: Option<f64>,
    /// The root mean square of the change of the latents, relative to their standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent: Option<f64>,
}

/// The errors of one record.
#[derive(Debug, Clone)]
pub struct RecordScore {
    /// The part of the record.
    pub part: crate::data::Subset,
    /// The index of the record in its part, from 0.
    pub index: usize,
    /// The label, an index into [`crate::data::PreparedDataset::labels`].
    pub label: Option<u32>,
    /// Whether the record is an anomaly.
    pub anomaly: bool,
    /// The loss of the model on the record.
    pub error: f64,
    /// The mean squared error of the model on the record.
    pub mse: f64,
    /// The mean squared error of principal components on the record.
    pub pca: Option<f64>,
}
