//! The transform `score`: measures the reconstruction error between two tensor columns.

pub(crate) mod config;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::SchemaRef;

use super::anomaly::{AnomalyColumns, AnomalyScorer};
use super::rows::{RejectReason, RejectedRows, TensorRows, with_columns};
use super::{Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::eval_metrics::psnr;
use crate::image::pixel_format::PixelFormat;
use crate::image::ssim::WINDOW;
use crate::model::Loss;
use crate::model::attribution::FeatureAttributor;
use crate::tensor::TensorShape;
use crate::transform::score::config::ScoreMetric;

struct ScoreParams {
    /// The index and shape of the original and of the reconstruction.
    columns: [(usize, TensorShape); 2],
    metrics: Vec<ScoreMetric>,
    measure: ErrorMeasure,
    anomaly: AnomalyScorer,
    schema: SchemaRef,
}

struct ScorePlan(Arc<ScoreParams>);

impl TransformPlan for ScorePlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(ScoreTransform {
            attributor: self.0.anomaly.attributor()?,
            params: Arc::clone(&self.0),
        }))
    }

    fn depends_on(&self) -> Option<String> {
        self.0.anomaly.fingerprint()
    }

    fn scratch_bytes(&self) -> u64 {
        self.0.anomaly.attributor_bytes()
    }

    fn summary(&self) -> String {
        let metrics = self.0.metrics.iter();
        let names = metrics.map(|metric| metric.name().to_owned());
        names
            .chain(self.0.anomaly.summary())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

struct ScoreTransform {
    params: Arc<ScoreParams>,
    /// Ranks the features of unusual records, if `top_features` is set.
    attributor: Option<FeatureAttributor>,
}

impl Transform for ScoreTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let params = Arc::clone(&self.params);
        let [original, reconstruction] = params
            .columns
            .each_ref()
            .map(|(index, shape)| TensorRows::new(&batch, *index, shape));
        let mut scores = vec![Vec::with_capacity(batch.row_ordinals.len()); params.metrics.len()];
        let (mut added, mut rejected) = (AnomalyColumns::default(), RejectedRows::default());
        for row in 0..batch.row_ordinals.len() {
            match self.score(&original, &reconstruction, row, &mut added) {
                Ok(row) => scores
                    .iter_mut()
                    .zip(row)
                    .for_each(|(scores, score)| scores.push(score)),
                Err(reason) => rejected.add(row, reason),
            }
        }
        let batch = rejected.remove_from(batch, rejects)?;
        let column = |metric_scores| Arc::new(Float32Array::from(metric_scores)) as ArrayRef;
        let mut columns: Vec<ArrayRef> = scores.into_iter().map(column).collect();
        columns.extend(params.anomaly.columns(added)?);
        with_columns(batch, &params.schema, columns)
    }
}

impl ScoreTransform {
    /// Computes all metrics of a row, and appends the anomaly scores to `added`.
    fn score(
        &mut self,
        original: &TensorRows,
        reconstruction: &TensorRows,
        row: usize,
        added: &mut AnomalyColumns,
    ) -> Result<Vec<f32>, RejectReason> {
        let ((x, shape), (y, other)) = (original.get(row)?, reconstruction.get(row)?);
        if shape != other {
            return Err((
                RejectCode::Mismatch,
                format!("the original has the shape {shape:?}, but the reconstruction {other:?}"),
            ));
        }
        if shape.contains(&0) {
            return Err((
                RejectCode::Mismatch,
                format!("a tensor of shape {shape:?} has no values to compare"),
            ));
        }
        for (name, values) in [("original", x), ("reconstruction", y)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err((RejectCode::NotFinite, format!("the {name} holds {value}")));
            }
        }
        let params = &self.params;
        let metrics = params.metrics.iter();
        let scores = metrics
            .map(|&metric| Ok(params.measure.compute(metric, x, y, &shape)? as f32))
            .collect::<Result<_, _>>()?;
        params.anomaly.add(x, y, self.attributor.as_mut(), added);
        Ok(scores)
    }
}

/// The scale of the values for the metrics.
#[derive(Debug, Clone)]
struct ErrorMeasure {
    format: Option<PixelFormat>,
    /// The width of the range of values, for columns without pixels.
    peak: f64,
}

impl ErrorMeasure {
    /// Computes a metric of two non-empty tensors of equal shapes with finite values.
    fn compute(
        &self,
        metric: ScoreMetric,
        x: &[f32],
        y: &[f32],
        shape: &[usize],
    ) -> Result<f64, RejectReason> {
        match metric {
            ScoreMetric::Mse => Ok(Loss::Mse.error(x, y)),
            ScoreMetric::Mae => Ok(mae(x, y)),
            ScoreMetric::Bce => match x
                .iter()
                .chain(y)
                .find(|value| !(0.0..=1.0).contains(*value))
            {
                Some(value) => Err((
                    RejectCode::Mismatch,
                    format!("bce requires values within 0..1; met {value}"),
                )),
                None => Ok(Loss::Bce.error(x, y)),
            },
            ScoreMetric::Psnr => self.psnr(x, y, shape),
            ScoreMetric::Ssim => self.ssim(x, y, shape),
        }
    }

    fn psnr(&self, x: &[f32], y: &[f32], shape: &[usize]) -> Result<f64, RejectReason> {
        match &self.format {
            None => Ok(psnr(Loss::Mse.error(x, y), self.peak)),
            Some(format) => format
                .psnr(shape, x, y)
                .ok_or_else(|| shape_mismatch(shape)),
        }
    }

    fn ssim(&self, x: &[f32], y: &[f32], shape: &[usize]) -> Result<f64, RejectReason> {
        let format = self.format.clone().unwrap_or_default();
        let (height, width) = format.size(shape).ok_or_else(|| shape_mismatch(shape))?;
        format.ssim(shape, x, y).ok_or_else(|| {
            (
                RejectCode::Mismatch,
                format!("ssim requires at least {WINDOW}x{WINDOW} pixels; met {height}x{width}"),
            )
        })
    }
}

fn shape_mismatch(shape: &[usize]) -> RejectReason {
    (
        RejectCode::Mismatch,
        format!("the shape {shape:?} does not match the pixel format"),
    )
}

fn mae(x: &[f32], y: &[f32]) -> f64 {
    let sum: f64 = x
        .iter()
        .zip(y)
        .map(|(&x, &y)| (f64::from(x) - f64::from(y)).abs())
        .sum();
    sum / x.len() as f64
}

#[cfg(test)]
mod tests;
