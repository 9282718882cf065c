//! The options of the transform `score`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::pixel_format::PixelFormat;
use crate::image::ssim::WINDOW;
use crate::plan_context::PlanContext;
use crate::tensor::TensorShape;
use crate::transform::anomaly::{AnomalyOptions, AnomalyScorer};
use crate::transform::rows::{append, find_tensor};
use crate::transform::score::{ErrorMeasure, ScoreParams, ScorePlan};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `score`: two columns of equal shapes, and the metrics between them. Each metric is
/// added as a float32 column named after it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ScoreConfig {
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
pub(crate) enum ScoreMetric {
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
    pub(super) fn name(self) -> &'static str {
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
    const ERROR_COLUMNS: &'static [&'static str] = &["zscore", "mse", "bce", "mae", "psnr", "ssim"];

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
        let options = self.anomaly_options();
        let anomaly = original.as_ref().and_then(|(_, _, shape)| {
            faults.record_all(AnomalyScorer::plan(&options, shape, context))
        });
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
    fn anomaly_options(&self) -> AnomalyOptions<'_> {
        AnomalyOptions {
            model: self.model.as_deref(),
            zscore: self.zscore,
            feature_errors: self.feature_errors,
            feature_zscores: self.feature_zscores,
            top_features: self.top_features.map_or(0, NonZeroUsize::get),
        }
    }

    /// The columns of the input, those of the metrics, and those of the anomaly scores.
    pub(super) fn schema(
        &self,
        input: &SchemaRef,
        anomaly: Option<&AnomalyScorer>,
        faults: &mut Vec<ConfigError>,
    ) -> SchemaRef {
        if self.metrics.is_empty() && !self.anomaly_options().is_any() {
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
