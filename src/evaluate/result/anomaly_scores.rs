//! Scores of anomaly detection and denoising.

use serde::Serialize;

use crate::evaluate::result::record_scores::{ExampleRef, ImageQuality};
use crate::model::card::error_stats::ErrorStats;

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
    /// The ranking by the mean over several models, if other models were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<EnsembleScores>,
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

impl AnomalyScores {
    /// The measured rankings with their names; `None` for principal components that were not fitted.
    pub(crate) fn rankings(&self) -> Vec<(&'static str, Option<&RankingScores>)> {
        let ensemble = self.ensemble.as_ref().map(|scores| &scores.ranking);
        let mut all = vec![("model", Some(&self.model))];
        all.extend(ensemble.map(|ranking| ("ensemble", Some(ranking))));
        all.push(("PCA", self.pca.as_ref()));
        all
    }
}

/// The detection of anomalies by several models.
#[derive(Debug, Serialize)]
pub struct EnsembleScores {
    /// The names of the models.
    pub models: Vec<String>,
    /// The ranking by the mean over the models of the error of a record, divided by the mean error
    /// in the card of the model.
    #[serde(flatten)]
    pub ranking: RankingScores,
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
