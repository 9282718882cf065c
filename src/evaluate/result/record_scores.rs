//! Scores of single records and of images.

use serde::Serialize;

use crate::data::{PreparedDataset, RecordOrigin};
use crate::error::StageError;

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
