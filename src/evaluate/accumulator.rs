//! Accumulates the scores of records: errors, image quality, errors of features, and a sample of
//! latents.

use super::inference::ModelOutput;
use super::result::{ImageQuality, RecordScore};
use super::sampler::{MiniBatch, RecordRef, is_selected};
use crate::eval_metrics::Pca;
use crate::image::PixelFormat;
use crate::model::Loss;
use crate::model::feature_errors::FeatureErrors;
use crate::model::feature_groups::FeatureGroups;

/// Maximum number of images whose structural similarity is measured, which takes 1 to 2 ms per
/// image.
pub(super) const MAX_SSIM_IMAGES: usize = 5000;

/// The scores of the records that a model has processed.
pub(super) struct ScoreAccumulator<'a> {
    loss: Loss,
    pca: Option<&'a Pca>,
    pub(super) scores: Vec<RecordScore>,
    pub(super) quality: Option<ImageQualityAccumulator>,
    pub(super) features: Option<FeatureErrors>,
    pub(super) codes: Option<LatentSample>,
    pub(super) failed: usize,
    /// Number of records with values that the loss clamps.
    pub(super) outside: usize,
}

impl<'a> ScoreAccumulator<'a> {
    /// Creates an accumulator for `records` records: images if there is a `format`, vectors of
    /// `features` if they are set. `codes` is the maximum number of latents in the sample.
    pub(super) fn new(
        loss: Loss,
        (format, features): (Option<PixelFormat>, Option<FeatureGroups>),
        pca: Option<&'a Pca>,
        records: usize,
        codes: Option<usize>,
    ) -> Self {
        Self {
            loss,
            pca,
            scores: Vec::with_capacity(records),
            quality: format.map(|format| ImageQualityAccumulator::new(format, records)),
            features: features.map(FeatureErrors::new),
            codes: codes.map(|most| LatentSample::new(most, records)),
            failed: 0,
            outside: 0,
        }
    }

    /// Adds a batch and the output of the model for it.
    pub(super) fn add(&mut self, batch: &MiniBatch, model_output: &ModelOutput) {
        let pca_codes = self.pca.map(|pca| pca.encode(&batch.values));
        let pca_outputs = self
            .pca
            .zip(pca_codes.as_ref())
            .map(|(pca, codes)| pca.decode(codes));
        for (row, entry) in batch.records.iter().enumerate() {
            if model_output.failed[row] {
                self.failed += 1;
                continue;
            }
            let target = batch.record_values(entry);
            if let (Some(sample), Some(codes)) = (&mut self.codes, &model_output.codes) {
                let codes = row_of(codes, row, batch.records.len());
                let pca = pca_codes
                    .as_ref()
                    .map(|encoded| row_of(encoded, row, batch.records.len()));
                sample.add(entry, codes, pca);
            }
            let Some(outputs) = &model_output.outputs else {
                continue;
            };
            let output = &outputs[entry.at.clone()];
            self.outside += usize::from(self.loss.clamps(target));
            let pca = pca_outputs
                .as_ref()
                .map(|decoded| Loss::Mse.error(target, &decoded[entry.at.clone()]));
            let (error, mse) = (
                self.loss.error(target, output),
                Loss::Mse.error(target, output),
            );
            let (part, index, label, anomaly) =
                (entry.subset, entry.index, entry.label, entry.anomaly);
            self.scores.push(RecordScore {
                part,
                index,
                label,
                anomaly,
                error,
                mse,
                pca,
            });
            if let Some(quality) = self.quality.as_mut().filter(|_| !anomaly) {
                quality.add(entry.sample_index, &entry.shape, target, output);
            }
            if let Some(features) = self.features.as_mut().filter(|_| !anomaly) {
                features.push(target, output);
            }
        }
    }
}

/// Returns the values of a row, if `values` holds `rows` rows of equal length.
pub(super) fn row_of(values: &[f32], row: usize, rows: usize) -> &[f32] {
    let len = values.len() / rows.max(1);
    &values[row * len..(row + 1) * len]
}

/// Accumulates the similarity of images.
pub(super) struct ImageQualityAccumulator {
    format: PixelFormat,
    expected: usize,
    psnr: f64,
    ssim: f64,
    images: usize,
    ssim_images: usize,
    identical: usize,
}

impl ImageQualityAccumulator {
    /// Creates an accumulator for `expected` images.
    pub(super) fn new(format: PixelFormat, expected: usize) -> Self {
        Self {
            format,
            expected,
            psnr: 0.0,
            ssim: 0.0,
            images: 0,
            ssim_images: 0,
            identical: 0,
        }
    }

    /// Compares two images of the same shape. `sample_index` is the index among the expected
    /// images.
    pub(super) fn add(&mut self, sample_index: usize, shape: &[usize], x: &[f32], y: &[f32]) {
        let Some(psnr) = self.format.psnr(shape, x, y) else {
            return;
        };
        self.images += 1;
        if psnr.is_finite() {
            self.psnr += psnr;
        } else {
            self.identical += 1;
        }
        if is_selected(sample_index, MAX_SSIM_IMAGES, self.expected)
            && let Some(ssim) = self.format.ssim(shape, x, y)
        {
            self.ssim += ssim;
            self.ssim_images += 1;
        }
    }

    /// Returns the means; `None` without images.
    pub(super) fn finish(&self) -> Option<ImageQuality> {
        let mean = |sum: f64, count: usize| (count > 0).then(|| sum / count as f64);
        (self.images > 0).then(|| ImageQuality {
            psnr: mean(self.psnr, self.images - self.identical),
            ssim: mean(self.ssim, self.ssim_images),
            images: self.images,
            ssim_images: self.ssim_images,
            identical: self.identical,
        })
    }
}

/// A sample of latents, evenly spaced over the records.
pub(super) struct LatentSample {
    most: usize,
    expected: usize,
    /// The latents, row-major.
    pub(super) codes: Vec<f32>,
    /// The label of each record.
    pub(super) labels: Vec<Option<u32>>,
    /// Whether each record is an anomaly.
    pub(super) anomalies: Vec<bool>,
    /// The principal components of each record, row-major.
    pub(super) pca: Vec<f32>,
}

impl LatentSample {
    fn new(most: usize, expected: usize) -> Self {
        Self {
            most,
            expected,
            codes: vec![],
            labels: vec![],
            anomalies: vec![],
            pca: vec![],
        }
    }

    fn add(&mut self, entry: &RecordRef, code: &[f32], pca: Option<&[f32]>) {
        if is_selected(entry.sample_index, self.most, self.expected) {
            self.codes.extend_from_slice(code);
            self.labels.push(entry.label);
            self.anomalies.push(entry.anomaly);
            self.pca.extend_from_slice(pca.unwrap_or_default());
        }
    }
}
