//! The input of the network: the declared input, completed with statistics of the training part,
//! and the range of its values.

mod fit;
pub mod value_range;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::TrainError;
use crate::data::{DatasetStatistics, PreparedDataset};
use crate::error::config_error::ConfigError;
use crate::image::{DecodeMode, PixelFormat, TensorLayout};
use crate::model::input::rules::encoder::FeatureEncoder;
use crate::model::input::scaling::ScalingKind;
use crate::model::input::spec::{InputKind, InputSpec, UNSCALED};
use crate::model::{FeatureInput, Scaling};
use crate::train::augmentation::InputValues;
use crate::train::input::fit::fit_rules;
use crate::train::input::value_range::{
    ValueRange, check_finite, feature_ranges, input_statistics, pixel_ranges,
};
use crate::train::record_shape::RecordShape;

/// The input as written to the model card, and the values that are derived from it.
pub(crate) struct NetworkInput {
    /// The input for the model card, with names and scaling filled in.
    pub spec: InputSpec,
    /// The conversion of raw values into the values of a tensor.
    pub preparing: InputValues,
    /// Shape of a record.
    pub shape: RecordShape,
    /// Mean and deviation of the values of the tensor over the training part.
    pub moments: (f64, f64),
    /// Minimum and maximum of each feature over the training part, or the bounds of each channel.
    pub ranges: Vec<ValueRange>,
}

/// Returns the errors of an input that do not depend on the data.
pub fn faults(spec: &InputSpec) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    if spec.layout == Some(TensorLayout::Nhwc) {
        faults.push(ConfigError::new(
            "input.layout",
            "networks are trained on planes (nchw); remove the option",
        ));
    }
    if kind(spec) == InputKind::Image
        && let Err(error) = format(spec).check()
    {
        faults.push(ConfigError::new("input", error.to_string()));
    }
    if spec.decode == Some(DecodeMode::Scaled) && spec.size.is_none() {
        faults.push(ConfigError::new("input.decode", UNSCALED));
    }
    if let Ok(Some(steps)) = spec.preprocessor()
        && !steps.gives_bytes()
    {
        let message = "give samples between two bytes, but a training stores the bytes of images; \
                       use another `library` than tensorflow, and a whole `value`";
        faults.push(ConfigError::new("input.steps", message));
    }
    let learned = [
        ("min", &spec.min),
        ("max", &spec.max),
        ("mean", &spec.mean),
        ("std", &spec.std),
    ];
    for (key, _) in learned
        .into_iter()
        .filter(|(_, given)| given.is_some() && kind(spec) == InputKind::Features)
    {
        faults.push(ConfigError::new(
            format!("input.{key}"),
            "is computed from the training part; remove the option",
        ));
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let found = rule.faults().into_iter().chain(rule.computed_options());
        faults.extend(found.map(|fault| fault.within(&format!("input.rules[{index}]"))));
    }
    faults
}

/// Whether the input of features is computed by rules: it has some, or a scaling that has values of
/// its own for each column.
fn has_rules(spec: &InputSpec) -> bool {
    let ranks = matches!(
        spec.scaling,
        Some(ScalingKind::Robust | ScalingKind::Quantile)
    );
    ranks || !spec.rules.is_empty()
}

/// Returns the declared input with the default of `decode`: JPEGs are decoded at a fraction of their
/// size if they are resized without steps.
pub(crate) fn with_decode_mode(spec: &InputSpec) -> InputSpec {
    let resizes = spec.size.is_some() && spec.steps.is_none();
    let decode = spec.decode.or(resizes.then_some(DecodeMode::Scaled));
    InputSpec {
        decode,
        ..spec.clone()
    }
}

/// Returns the kind that an input declares, or else images.
fn kind(spec: &InputSpec) -> InputKind {
    let features = spec.columns.is_some() || spec.scaling.is_some() || !spec.rules.is_empty();
    spec.kind.unwrap_or(if features {
        InputKind::Features
    } else {
        InputKind::Image
    })
}

fn format(spec: &InputSpec) -> PixelFormat {
    let narrow =
        |values: &Option<Vec<f64>>| values.iter().flatten().map(|&value| value as f32).collect();
    PixelFormat {
        channels: spec.channels.unwrap_or_default(),
        layout: TensorLayout::Nchw,
        range: spec.range.unwrap_or([0.0, 1.0]),
        mean: narrow(&spec.mean),
        std: narrow(&spec.std),
    }
}

impl NetworkInput {
    /// Computes the input from the declaration and the statistics of the training part. Returns
    /// `None` if `stop` became true before the end.
    ///
    /// # Errors
    /// When the training part cannot be read, or the values of a feature are too large for the
    /// scaling.
    pub fn new(
        declared: &InputSpec,
        prepared: &PreparedDataset,
        stop: &AtomicBool,
    ) -> Result<Option<Self>, TrainError> {
        if prepared.kind == InputKind::Features && has_rules(declared) {
            return Self::with_rules(declared, prepared, stop);
        }
        let Some(statistics) = DatasetStatistics::compute(&prepared.training, stop)? else {
            return Ok(None);
        };
        let mut spec = declared.clone();
        spec.kind = Some(prepared.kind);
        match prepared.kind {
            InputKind::Image => {
                let format = format(declared);
                spec.channels = Some(format.channels);
                spec.layout = Some(TensorLayout::Nchw);
                spec.range = Some(format.range);
                let size = declared.size.map(|[height, width]| (height, width));
                let shape = RecordShape::Planes {
                    channels: format.channels.count(),
                    size,
                };
                let scaled = |sample, mean, std| {
                    let (scale, offset) = format.affine(format.sample_index(sample));
                    let (scale, offset) = (f64::from(scale), f64::from(offset));
                    (mean * scale + offset, std * scale)
                };
                let moments = moments(&statistics, scaled);
                let ranges = pixel_ranges(&format);
                Ok(Some(Self {
                    spec,
                    preparing: InputValues::Pixels(format),
                    shape,
                    moments,
                    ranges,
                }))
            }
            InputKind::Features => {
                let method = declared.scaling.unwrap_or(ScalingKind::Standard);
                let scaling = statistics.scaling(method);
                check_finite(&statistics, &prepared.value_names)?;
                spec.scaling = Some(method);
                // A list may have a value with the name of a column, which a card cannot list.
                let names: BTreeSet<&String> = prepared.value_names.iter().collect();
                spec.columns =
                    (names.len() == statistics.mean.len()).then(|| prepared.value_names.clone());
                match method {
                    // These have rules.
                    ScalingKind::None | ScalingKind::Robust | ScalingKind::Quantile => {}
                    ScalingKind::Standard => {
                        (spec.mean, spec.std) =
                            (Some(statistics.mean.clone()), Some(statistics.std.clone()))
                    }
                    ScalingKind::MinMax => {
                        (spec.min, spec.max) =
                            (Some(statistics.min.clone()), Some(statistics.max.clone()))
                    }
                }
                let scaled = |column, mean, std| {
                    let scale = scaling.feature(column);
                    (scale.scale(mean), scale.scale_difference(std))
                };
                let moments = moments(&statistics, scaled);
                let shape = RecordShape::Flat(statistics.mean.len());
                let features = FeatureInput {
                    scaling,
                    ..FeatureInput::default()
                };
                let ranges = feature_ranges(&statistics, &prepared.value_names, &features);
                Ok(Some(Self {
                    spec,
                    preparing: InputValues::Features(features),
                    shape,
                    moments,
                    ranges,
                }))
            }
        }
    }

    /// Computes the values of the rules from the training part, and the input from the rules.
    fn with_rules(
        declared: &InputSpec,
        prepared: &PreparedDataset,
        stop: &AtomicBool,
    ) -> Result<Option<Self>, TrainError> {
        let Some(rules) = fit_rules(declared, prepared, stop)? else {
            return Ok(None);
        };
        let columns = prepared.value_names.clone();
        let within_input = |faults: Vec<ConfigError>| {
            let faults = faults.into_iter().map(|fault| fault.within("input"));
            TrainError::Faults(faults.collect())
        };
        let encoder = FeatureEncoder::new(&columns, &rules).map_err(within_input)?;
        let shape = RecordShape::Flat(encoder.groups().inputs());
        let features = FeatureInput {
            columns: columns.clone(),
            scaling: Scaling::None,
            encoder: Some(Arc::new(encoder)),
        };
        let Some(statistics) = input_statistics(&prepared.training, &features, stop)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            spec: InputSpec {
                kind: Some(InputKind::Features),
                columns: Some(columns),
                scaling: None,
                rules,
                ..declared.clone()
            },
            shape,
            moments: moments(&statistics, |_, mean, std| (mean, std)),
            ranges: feature_ranges(&statistics, &prepared.value_names, &features),
            preparing: InputValues::Features(features),
        }))
    }
}

/// Returns the mean and the deviation over all values, computed from those of each column or
/// channel, which all have the same number of values.
fn moments(
    statistics: &DatasetStatistics,
    scaled: impl Fn(usize, f64, f64) -> (f64, f64),
) -> (f64, f64) {
    let count = statistics.mean.len().max(1) as f64;
    let each: Vec<(f64, f64)> = statistics
        .mean
        .iter()
        .zip(&statistics.std)
        .enumerate()
        .map(|(index, (&mean, &std))| scaled(index, mean, std))
        .collect();
    let mean = each.iter().map(|(mean, _)| mean).sum::<f64>() / count;
    let variance = each
        .iter()
        .map(|(own, std)| std * std + (own - mean) * (own - mean))
        .sum::<f64>()
        / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests;
