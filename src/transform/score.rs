//! The transform `score`: measures the reconstruction error between two tensor columns.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anomaly::{AnomalyColumns, AnomalyScorer};
use super::rows::{RejectReason, RejectedRows, TensorRows, append, find_tensor, with_columns};
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::eval_metrics::psnr;
use crate::image::pixel_format::PixelFormat;
use crate::image::ssim::WINDOW;
use crate::model::Loss;
use crate::model::attribution::FeatureAttributor;
use crate::plan_context::PlanContext;
use crate::tensor::TensorShape;

/// Options of `score`: two columns of equal shapes, and the metrics between them. Each metric is
/// added as a float32 column named after it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ScoreConfig {
    /// The tensor column with the original.
    #[schemars(extend("x-changes-rows" = true))]
    pub original: String,
    /// The tensor column with the reconstruction.
    #[schemars(extend("x-changes-rows" = true))]
    pub reconstruction: String,
    /// The metrics to compute. Default: mse.
    #[serde(default = "mse_only")]
    #[schemars(extend("x-changes-rows" = true))]
    pub metrics: Vec<ScoreMetric>,
    /// The prefix of the names of the new columns, as in `noisy_psnr`. Default: empty.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub prefix: String,
    /// For psnr of columns without pixels: the width of the range of the values. Default: 1.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub peak: Option<f64>,
    /// The model that computed the reconstruction, as declared under `models`. Its card states the
    /// errors on its validation data. Required for `zscore`, `feature_zscores` and `top_features`.
    #[serde(default)]
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// Whether to add the column `zscore`: the error of the record according to the loss of the
    /// model, in standard deviations above the mean in the card. A value above 3 is unusual; a
    /// value below 0 is less than the average error. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub zscore: bool,
    /// Whether to add the column `feature_errors`: the squared error of each feature, in the order
    /// of the columns in the model card. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub feature_errors: bool,
    /// Whether to add the column `feature_zscores`: the squared error of each feature, in standard
    /// deviations above its mean. For a feature with a constant error on the validation data, the
    /// smallest nonzero standard deviation of the other features is used. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub feature_zscores: bool,
    /// The number of features in the column `top_features`, which is added if this is set: the most
    /// unusual features in descending order, as a list of `feature` (the name) and `zscore` (of its
    /// own error). For records whose error has a z-score above 3, the first feature is the one
    /// whose move towards its mean removes most of the squared error, and each next one removes
    /// most of the remainder; for that, the model is run once more per feature. `reconstruction`
    /// must be the reconstruction of `original` by `model`. Other records cost no run: their
    /// features are in the order of their z-scores.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub top_features: Option<NonZeroUsize>,
}

fn mse_only() -> Vec<ScoreMetric> {
    vec![ScoreMetric::Mse]
}

/// The metrics between a tensor and its reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScoreMetric {
    /// Mean squared error, in the squared units of the column.
    Mse,
    /// Mean binary cross-entropy, in nats; both columns must lie within 0..1.
    Bce,
    /// Mean absolute error, in the units of the column.
    Mae,
    /// Peak signal-to-noise ratio, in decibels; infinite if the tensors are equal.
    Psnr,
    /// Mean structural similarity of an image's channels (Wang et al. 2004), at most 1.
    Ssim,
}

impl ScoreMetric {
    fn name(self) -> &'static str {
        match self {
            Self::Mse => "mse",
            Self::Bce => "bce",
            Self::Mae => "mae",
            Self::Psnr => "psnr",
            Self::Ssim => "ssim",
        }
    }
}

impl TransformConfig for ScoreConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        let mut find = |key, name| faults.record(find_tensor(input, key, Some(name)));
        let (original, reconstruction) = (
            find("original", &self.original),
            find("reconstruction", &self.reconstruction),
        );
        let anomaly = original
            .as_ref()
            .and_then(|(_, _, shape)| faults.record_all(AnomalyScorer::plan(self, shape, context)));
        let schema = self.schema(input, anomaly.as_ref(), &mut faults);
        let (Some(original), Some(reconstruction)) = (original, reconstruction) else {
            return Err(faults);
        };
        let (shape, other) = (original.2, reconstruction.2);
        if !comparable(&shape, &other) {
            let message = format!(
                "has the shape {other}, but `{}` has the shape {shape}; they must be equal",
                self.original
            );
            faults.push(ConfigError::new("reconstruction", message));
        }
        let formats = [
            PixelFormat::from_field(original.1),
            PixelFormat::from_field(reconstruction.1),
        ];
        if matches!(&formats, [Some(one), Some(two)] if one != two) {
            faults.push(ConfigError::new(
                "reconstruction",
                "its pixel format differs from that of the original",
            ));
        }
        let format = formats.into_iter().flatten().next();
        self.check_metrics(&shape, format.as_ref(), &mut faults);
        let (Some(anomaly), true) = (anomaly, faults.is_empty()) else {
            return Err(faults);
        };
        if format.is_none() && self.metrics.contains(&ScoreMetric::Psnr) {
            self.peak.get_or_insert(1.0);
        }
        let measure = ErrorMeasure {
            format,
            peak: self.peak.unwrap_or(1.0),
        };
        let columns = [(original.0, shape), (reconstruction.0, other)];
        Ok(Box::new(ScorePlan(Arc::new(ScoreParams {
            columns,
            metrics: self.metrics.clone(),
            measure,
            anomaly,
            schema,
        }))))
    }
}

impl ScoreConfig {
    /// The columns of the input, those of the metrics, and those of the anomaly scores.
    fn schema(
        &self,
        input: &SchemaRef,
        anomaly: Option<&AnomalyScorer>,
        faults: &mut Vec<ConfigError>,
    ) -> SchemaRef {
        if self.metrics.is_empty() && !AnomalyScorer::is_requested(self) {
            faults.push(ConfigError::new(
                "metrics",
                "no metric is selected; list at least one",
            ));
        }
        let mut added = Vec::new();
        for (index, metric) in self.metrics.iter().enumerate() {
            if self.metrics[..index].contains(metric) {
                faults.push(ConfigError::new(
                    "metrics",
                    format!("`{}` is listed twice", metric.name()),
                ));
                continue;
            }
            added.push(Field::new(
                format!("{}{}", self.prefix, metric.name()),
                DataType::Float32,
                false,
            ));
        }
        added.extend(
            anomaly
                .map(|anomaly| anomaly.fields(&self.prefix))
                .unwrap_or_default(),
        );
        let mut schema = Arc::clone(input);
        for field in added {
            match append(&schema, "prefix", field) {
                Ok(longer) => schema = longer,
                Err(fault) => faults.push(fault),
            }
        }
        schema
    }

    /// Adds faults of metrics that do not fit the columns, and of a peak that is invalid or has no
    /// effect.
    fn check_metrics(
        &self,
        shape: &TensorShape,
        format: Option<&PixelFormat>,
        faults: &mut Vec<ConfigError>,
    ) {
        if let Some(peak) = self.peak {
            if !(peak.is_finite() && peak > 0.0) {
                faults.push(ConfigError::new(
                    "peak",
                    format!("must be above 0; met {peak}"),
                ));
            } else if format.is_some() {
                faults.push(ConfigError::new(
                    "peak",
                    "the columns hold pixels, whose range is known; leave this out",
                ));
            } else if !self.metrics.contains(&ScoreMetric::Psnr) {
                faults.push(ConfigError::new(
                    "peak",
                    "has no effect without the metric psnr",
                ));
            }
        }
        if let Some(message) = format.and_then(|format| format.check().err()) {
            faults.push(ConfigError::new(
                "original",
                format!("its pixel format is invalid: {message}"),
            ));
        }
        let exceeds_unit_range = |pixels: &PixelFormat| {
            pixels.range[0] < 0.0
                || pixels.range[1] > 1.0
                || !pixels.mean.is_empty()
                || !pixels.std.is_empty()
        };
        if self.metrics.contains(&ScoreMetric::Bce) && format.is_some_and(exceeds_unit_range) {
            faults.push(ConfigError::new(
                "metrics",
                "bce requires values within 0..1, but the pixels have another range",
            ));
        }
        let image = match shape {
            TensorShape::Fixed(shape) => format.and_then(|format| format.size(shape)),
            TensorShape::Variable(dims) => (*dims == 3).then_some((WINDOW, WINDOW)),
        };
        if self.metrics.contains(&ScoreMetric::Ssim) && format.is_none_or(|_| image.is_none()) {
            faults.push(ConfigError::new(
                "metrics",
                "ssim requires images, but the columns do not hold pixels",
            ));
        } else if self.metrics.contains(&ScoreMetric::Ssim)
            && image.is_some_and(|(h, w)| h < WINDOW || w < WINDOW)
        {
            let message = format!(
                "ssim requires images of at least {WINDOW}x{WINDOW} pixels; met the shape {shape}"
            );
            faults.push(ConfigError::new("metrics", message));
        }
    }
}

/// Whether rows of these column shapes can have equal shapes.
fn comparable(one: &TensorShape, other: &TensorShape) -> bool {
    let dims = |shape: &TensorShape| match shape {
        TensorShape::Fixed(shape) => shape.len(),
        TensorShape::Variable(dims) => *dims,
    };
    match (one, other) {
        (TensorShape::Fixed(one), TensorShape::Fixed(other)) => one == other,
        _ => dims(one) == dims(other),
    }
}

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
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;
    use expect_test::{Expect, expect};

    use super::super::testing::{faults, of, part, reasons, run};
    use super::*;
    use crate::image::pixel_format::{Channels, TensorLayout};
    use crate::tensor::{
        fixed_column, tensor_field, variable_column, variable_field, vector_field,
    };

    fn vectors(x: &[f32], y: &[f32], len: usize) -> Batch {
        let column = |values: &[f32]| fixed_column(len, values.to_vec()).unwrap();
        of([
            (vector_field("x", len), column(x)),
            (vector_field("y", len), column(y)),
        ])
    }

    fn images(format: &PixelFormat, side: usize, x: &[f32], y: &[f32]) -> Batch {
        let shape = format.shape(side, side);
        let field = |name| format.annotate(tensor_field(name, &shape).unwrap());
        let column =
            |values: &[f32]| fixed_column(shape.iter().product(), values.to_vec()).unwrap();
        of([(field("x"), column(x)), (field("y"), column(y))])
    }

    fn options(metrics: &str) -> String {
        format!(r#"{{"original": "x", "reconstruction": "y", {metrics}}}"#)
    }

    fn scores(metrics: &str, batch: Batch) -> Vec<f32> {
        let (out, rejects) = run::<ScoreConfig>(&options(metrics), batch);
        assert!(rejects.is_empty(), "{rejects:?}");
        out.records.columns()[2..]
            .iter()
            .map(|scores| scores.as_primitive::<Float32Type>().value(0))
            .collect()
    }

    #[test]
    fn errors_are_means_over_values_of_a_record() {
        let input = vectors(&[0.0, 1.0, 0.5, 1.0], &[0.5, 1.0, 0.5, 0.5], 4);
        let [mse, mae, bce, psnr] =
            scores(r#""metrics": ["mse", "mae", "bce", "psnr"]"#, input)[..]
        else {
            panic!()
        };
        assert_eq!((mse, mae), (0.125, 0.25));
        // Three values contribute -ln 0.5, and one contributes 0 except for the clamp.
        assert!((bce - 0.75 * std::f32::consts::LN_2).abs() < 1e-5);
        assert!((psnr - 9.030_9).abs() < 1e-4);
    }

    #[test]
    fn default_metric_is_mse_and_prefix_is_in_column_name() {
        let (out, _) = run::<ScoreConfig>(
            &options(r#""prefix": "noisy_""#),
            vectors(&[1.0], &[3.0], 1),
        );
        assert_eq!(
            out.records
                .column_by_name("noisy_mse")
                .unwrap()
                .as_primitive::<Float32Type>()
                .value(0),
            4.0
        );
    }

    #[test]
    fn psnr_is_independent_of_pixel_scale() {
        let bytes = |shift: usize| (0..48).map(move |index| ((index * 5 + shift) % 256) as f32);
        let plain = PixelFormat {
            range: [0.0, 255.0],
            ..PixelFormat::default()
        };
        let scaled = PixelFormat {
            mean: vec![0.4; 3],
            std: vec![0.5, 0.25, 0.125],
            ..PixelFormat::default()
        };
        let as_scaled = |shift| -> Vec<f32> {
            let value = |(index, byte): (usize, f32)| {
                let (scale, offset) = scaled.affine(index / 16);
                byte * scale + offset
            };
            bytes(shift).enumerate().map(value).collect()
        };
        let collect = |shift| bytes(shift).collect::<Vec<f32>>();
        let one = scores(
            r#""metrics": ["psnr"]"#,
            images(&plain, 4, &collect(0), &collect(10)),
        );
        let two = scores(
            r#""metrics": ["psnr"]"#,
            images(&scaled, 4, &as_scaled(0), &as_scaled(10)),
        );
        // All pixels differ by 10 steps: 20 log10(25.5).
        assert!((one[0] - 28.130_8).abs() < 1e-3, "{one:?}");
        assert!((one[0] - two[0]).abs() < 1e-3, "{one:?} {two:?}");
    }

    #[test]
    fn perfect_reconstruction_has_infinite_psnr_and_ssim_1() {
        let image: Vec<f32> = (0..12 * 12 * 3)
            .map(|index| (index % 7) as f32 / 7.0)
            .collect();
        let interleaved = PixelFormat {
            layout: TensorLayout::Nhwc,
            ..PixelFormat::default()
        };
        let input = images(&interleaved, 12, &image, &image);
        assert_eq!(
            scores(r#""metrics": ["psnr", "ssim", "mse"]"#, input),
            [f32::INFINITY, 1.0, 0.0]
        );
        assert_eq!(
            scores(r#""metrics": ["psnr"]"#, vectors(&[1.0], &[1.0], 1)),
            [f32::INFINITY]
        );
    }

    #[test]
    fn psnr_of_values_without_pixels_uses_the_peak() {
        let psnr = scores(
            r#""metrics": ["psnr"], "peak": 100"#,
            vectors(&[0.0], &[1.0], 1),
        );
        assert!((psnr[0] - 40.0).abs() < 1e-5);
    }

    #[test]
    fn rows_that_cannot_be_compared_are_rejected() {
        let field = |name| {
            PixelFormat {
                channels: Channels::Gray,
                ..PixelFormat::default()
            }
            .annotate(variable_field(name, 3).unwrap())
        };
        let column = |shapes: &[Vec<usize>], fill: f32| {
            let len = shapes
                .iter()
                .map(|shape| shape.iter().product::<usize>())
                .sum();
            variable_column(3, vec![fill; len], shapes).unwrap()
        };
        let shapes = [
            vec![1, 11, 11],
            vec![1, 4, 4],
            vec![1, 11, 12],
            vec![1, 0, 11],
        ];
        let mut other = shapes.clone();
        other[2] = vec![1, 12, 11];
        let input = of([
            (field("x"), column(&shapes, 0.5)),
            (field("y"), column(&other, 0.5)),
        ]);
        let (out, rejects) = run::<ScoreConfig>(&options(r#""metrics": ["ssim"]"#), input);
        assert_eq!(out.row_ordinals, [0]);
        expect![[r#"
            1: mismatch: ssim requires at least 11x11 pixels; met 4x4
            2: mismatch: the original has the shape [1, 11, 12], but the reconstruction [1, 12, 11]
            3: mismatch: a tensor of shape [1, 0, 11] has no values to compare"#]]
        .assert_eq(&reasons(&rejects));
        let invalid_values = vectors(&[f32::NAN, 2.0, 0.5], &[0.5, 0.5, 0.5], 1);
        let (kept, value_rejects) =
            run::<ScoreConfig>(&options(r#""metrics": ["bce"]"#), invalid_values);
        assert_eq!(kept.row_ordinals, [2]);
        expect![[r#"
            0: not_finite: the original holds NaN
            1: mismatch: bce requires values within 0..1; met 2"#]]
        .assert_eq(&reasons(&value_rejects));
    }

    #[test]
    fn empty_batch_has_the_planned_schema() {
        let (out, _) = run::<ScoreConfig>(
            &options(r#""metrics": ["mse", "psnr"]"#),
            part(&vectors(&[1.0], &[1.0], 1), 0, 0),
        );
        assert_eq!((out.records.num_rows(), out.records.num_columns()), (0, 4));
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |input: &Batch, metrics: &str, expected: Expect| {
            expected.assert_eq(&faults::<ScoreConfig>(&options(metrics), input));
        };
        let plain = vectors(&[0.0], &[0.0], 1);
        check(
            &plain,
            r#""metrics": ["mse", "mse", "ssim"], "peak": 3"#,
            expect![[r#"
                metrics: `mse` is listed twice
                peak: has no effect without the metric psnr
                metrics: ssim requires images, but the columns do not hold pixels"#]],
        );
        check(
            &plain,
            r#""metrics": []"#,
            expect!["metrics: no metric is selected; list at least one"],
        );
        let scaled = PixelFormat {
            range: [-1.0, 1.0],
            ..PixelFormat::default()
        };
        check(
            &images(&scaled, 2, &[0.0; 12], &[0.0; 12]),
            r#""metrics": ["bce", "ssim"]"#,
            expect![[r#"
                metrics: bce requires values within 0..1, but the pixels have another range
                metrics: ssim requires images of at least 11x11 pixels; met the shape [3, 2, 2]"#]],
        );
        let column = |len| fixed_column(len, vec![0.0; 6]).unwrap();
        let unequal = of([
            (vector_field("x", 2), column(2)),
            (
                tensor_field("mse", &[3]).unwrap(),
                fixed_column(3, vec![0.0; 9]).unwrap(),
            ),
        ]);
        expect![[r#"
            prefix: the input already has a column `mse`; choose another name
            reconstruction: has the shape [3], but `x` has the shape [2]; they must be equal"#]]
        .assert_eq(&faults::<ScoreConfig>(
            r#"{"original": "x", "reconstruction": "mse"}"#,
            &unequal,
        ));
    }
}
