//! What an evaluation has found: all that the table, the JSON and the report show.

use serde::Serialize;

use crate::model::card::ErrorStats;

/// What an evaluation has found. Sections that do not apply to the model or the data are missing.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// What was evaluated.
    pub model: ModelSummary,
    /// With which records.
    pub data: DataSummary,
    /// How much smaller a code is than what it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionRatio>,
    /// How close reconstructions are to what they stand for; of data with anomalies, for normal
    /// records alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<ReconstructionScores>,
    /// How much of a code is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<LatentUsage>,
    /// What a linear model with codes of the same size does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<PcaBaseline>,
    /// How well codes tell labels apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<ClassificationScores>,
    /// How well reconstruction errors tell anomalies apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomalies: Option<AnomalyScores>,
    /// What becomes of corrupted records, one entry per corruption.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denoising: Vec<DenoisingScores>,
    /// What was sampled, left out or could not be measured, in sentences.
    pub notes: Vec<String>,
    /// Every record that was scored, in order: too many for JSON.
    #[serde(skip)]
    pub records: Vec<RecordScore>,
    /// Codes of records that were scored, evenly spread, where the model has codes: too many for
    /// JSON as well.
    #[serde(skip)]
    pub codes: Option<LabeledLatents>,
}

/// Codes, and what is known of the records that they stand for.
#[derive(Debug, Clone)]
pub struct LabeledLatents {
    /// Values of a code.
    pub size: usize,
    /// Codes, one after the other.
    pub values: Vec<f32>,
    /// The label of each, a place in [`crate::data::PreparedDataset::labels`].
    pub labels: Vec<Option<u32>>,
    /// Whether each is that of an anomaly.
    pub anomalies: Vec<bool>,
}

/// The model that was evaluated.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// Its own name.
    pub name: String,
    /// What sort of network it is.
    pub kind: String,
    /// SHA-256 over all that determines its results.
    pub digest: String,
    /// What it takes and gives, in a phrase.
    pub summary: String,
    /// The measure of its reconstruction error.
    pub loss: &'static str,
    /// Values of a code, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_size: Option<usize>,
}

/// The records that a model was evaluated with.
#[derive(Debug, Serialize)]
pub struct DataSummary {
    /// SHA-256 over all records, their labels and parts.
    pub digest: String,
    /// The parts that were looked at.
    pub parts: Vec<&'static str>,
    /// Records of these parts.
    pub records: usize,
    /// Records that were scored: all, or as many as are looked at at most, evenly spread.
    pub scored: usize,
    /// Those of them that are anomalies.
    pub anomalies: usize,
    /// Records that no part holds, since they could not be read.
    pub rejects: u64,
    /// Records on which the model failed, or gave what is not finite.
    pub failed: usize,
}

impl DataSummary {
    /// The parts in words: `test part`, `training, validation and test parts`.
    pub fn parts_in_words(&self) -> String {
        match self.parts.as_slice() {
            [one] => format!("{one} part"),
            [before @ .., last] => format!("{} and {last} parts", before.join(", ")),
            [] => String::new(),
        }
    }
}

/// How much smaller a code is than what it stands for.
#[derive(Debug, Serialize)]
pub struct CompressionRatio {
    /// Values of a record.
    pub input_values: usize,
    /// Values of a code.
    pub code_values: usize,
    /// The first over the second.
    pub values_ratio: f64,
    /// Bytes of a record: one per value of an image, four per feature.
    pub input_bytes: usize,
    /// Bytes of a code, four per value.
    pub code_bytes: usize,
    /// The first over the second.
    pub bytes_ratio: f64,
}

/// How close reconstructions are.
#[derive(Debug, Serialize)]
pub struct ReconstructionScores {
    /// The model's loss per record.
    pub error: ErrorStats,
    /// Mean squared error, in the squared units of the model's input.
    pub mse: f64,
    /// For images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageQuality>,
    /// The record with the least error.
    pub best: ExampleRef,
    /// The record in the middle.
    pub median: ExampleRef,
    /// The record with the greatest error.
    pub worst: ExampleRef,
}

/// A record, so that it can be looked at.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleRef {
    /// The part it is in.
    pub part: &'static str,
    /// Its place there, counted from 0.
    pub index: usize,
    /// The model's loss on it.
    pub error: f64,
}

/// How alike images are, as means over images. Values are compared as they are, not clipped to
/// their range.
#[derive(Debug, Clone, Serialize)]
pub struct ImageQuality {
    /// Peak signal-to-noise ratio in decibels, over the images that differ at all; none where none
    /// does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
    /// Structural similarity, at most 1; none where images are smaller than its window of 11
    /// pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// Images that were compared.
    pub images: usize,
    /// Images whose structural similarity was measured: all, or as many as are measured at most,
    /// evenly spread.
    pub ssim_images: usize,
    /// Images that do not differ in any value.
    pub identical: usize,
}

/// How much of a code is used.
#[derive(Debug, Serialize)]
pub struct LatentUsage {
    /// Codes that were looked at, of normal records.
    pub codes: usize,
    /// The mean share of a code's values that are active: greater, without their sign, than
    /// `threshold`.
    pub active_share: f64,
    /// A tenth of the root mean square of these codes' values.
    pub threshold: f64,
    /// Places of a code that are active in none.
    pub never_active: usize,
}

/// Principal components with codes of the same size, on the model's input.
#[derive(Debug, Serialize)]
pub struct PcaBaseline {
    /// Values of a code.
    pub code_size: usize,
    /// Records of the training part that it was fitted to.
    pub fitted: usize,
    /// The share of the variance of those that its codes hold.
    pub explained_share: f64,
    /// Mean squared error on the records that the model is scored with; of data with anomalies, on
    /// normal ones alone.
    pub mse: f64,
    /// The model's, on the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_mse: Option<f64>,
}

/// How well codes tell labels apart.
#[derive(Debug, Serialize)]
pub struct ClassificationScores {
    /// How many labels there are.
    pub classes: usize,
    /// Records of the training part that classifiers were fitted to.
    pub fitted: usize,
    /// Records that they were scored with.
    pub scored: usize,
    /// By the model's codes.
    pub latent: ClassifierAccuracy,
    /// By codes of principal components, as many values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<ClassifierAccuracy>,
}

/// The share of records whose label is found, 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct ClassifierAccuracy {
    /// By the five nearest neighbours.
    pub neighbours: f64,
    /// By multinomial logistic regression on standardised codes.
    pub probe: f64,
}

/// How well reconstruction errors tell anomalies apart.
#[derive(Debug, Serialize)]
pub struct AnomalyScores {
    /// Normal records that were scored.
    pub normal: usize,
    /// Anomalies that were scored.
    pub anomalies: usize,
    /// The model's loss on anomalies.
    pub error: ErrorStats,
    /// By the model's loss.
    pub model: RankingScores,
    /// By the mean squared error of principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<RankingScores>,
    /// What the thresholds of the model's card find.
    pub thresholds: Vec<ErrorThreshold>,
}

/// How well a score ranks anomalies above normal records.
#[derive(Debug, Clone, Serialize)]
pub struct RankingScores {
    /// Area under the ROC curve: 0.5 by chance, 1 at best.
    pub auc_roc: f64,
    /// Average precision: the share of anomalies by chance, 1 at best.
    pub average_precision: f64,
}

/// What lies above a quantile of the errors on the model's own validation data, by its card.
#[derive(Debug, Serialize)]
pub struct ErrorThreshold {
    /// `p95` or `p99`.
    pub quantile: &'static str,
    /// The error at it.
    pub error: f64,
    /// The share of anomalies above: those that are found.
    pub anomalies_above: f64,
    /// The share of normal records above: false alarms.
    pub normal_above: f64,
}

/// What becomes of records that were corrupted in one way.
#[derive(Debug, Serialize)]
pub struct DenoisingScores {
    /// The corruption, in a phrase.
    pub corruption: String,
    /// Of normal noise its standard deviation, where that is the same for all records: of pixels in
    /// steps of 8 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Records that were corrupted: all, or as many as are at most, evenly spread.
    pub records: usize,
    /// The corrupted input, against the clean record.
    pub noisy: DenoisingQuality,
    /// What the model makes of it, against the clean record.
    pub output: DenoisingQuality,
}

/// How close records are to clean ones.
#[derive(Debug, Clone, Serialize)]
pub struct DenoisingQuality {
    /// Mean squared error, in the squared units of the model's input.
    pub mse: f64,
    /// For images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageQuality>,
}

/// A record and its errors.
#[derive(Debug, Clone)]
pub struct RecordScore {
    /// The part it is in.
    pub part: crate::data::Subset,
    /// Its place there, counted from 0.
    pub index: usize,
    /// Its label, a place in [`crate::data::PreparedDataset::labels`].
    pub label: Option<u32>,
    /// Whether it is an anomaly.
    pub anomaly: bool,
    /// The model's loss on it.
    pub error: f64,
    /// The model's mean squared error on it.
    pub mse: f64,
    /// The mean squared error of principal components.
    pub pca: Option<f64>,
}
