//! The input of the network: the declared input, completed with statistics of the training part,
//! and the range of its values.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use super::TrainError;
use super::epoch_sampler::InputValues;
use super::sequential::RecordShape;
use crate::data::{DatasetStatistics, PreparedDataset};
use crate::error::ConfigError;
use crate::image::{DecodeMode, PixelFormat, TensorLayout};
use crate::model::Scaling;
use crate::model::input::{InputKind, InputSpec, ScalingKind, UNSCALED};

/// The input as written to the model card, and the values that are derived from it.
pub struct NetworkInput {
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

/// The range of the values of a feature or a channel in the input of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueRange {
    /// The feature or the channel.
    pub name: String,
    /// The minimum.
    pub low: f64,
    /// The maximum.
    pub high: f64,
}

/// Tolerance of the rounding of scaled values.
const ROUNDING: f64 = 1e-5;

impl ValueRange {
    /// Whether all values lie in 0..1.
    pub fn is_in_unit_range(&self) -> bool {
        self.low >= -ROUNDING && self.high <= 1.0 + ROUNDING
    }
}

/// The range of the values that a declared input gives, as far as it does not depend on the data.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclaredRange {
    /// The values of the training part lie in 0..1.
    Unit,
    /// The values are those of the data.
    Unscaled,
    /// The values leave 0..1 for this reason.
    Wider(String),
}

/// Returns the range that a declared input gives for records of a kind.
pub fn declared_range(spec: &InputSpec, kind: InputKind) -> DeclaredRange {
    match kind {
        InputKind::Features => match spec.scaling.unwrap_or(ScalingKind::Standard) {
            ScalingKind::MinMax => DeclaredRange::Unit,
            ScalingKind::None => DeclaredRange::Unscaled,
            ScalingKind::Standard => DeclaredRange::Wider(
                "features with `input.scaling = \"standard\"` have a mean of 0; set \
                 input.scaling = \"min_max\", or loss = \"mse\""
                    .to_owned(),
            ),
        },
        InputKind::Image => {
            let ranges = pixel_ranges(&format(spec));
            match ranges.iter().find(|range| !range.is_in_unit_range()) {
                None => DeclaredRange::Unit,
                Some(ValueRange { name, low, high }) => DeclaredRange::Wider(format!(
                    "`input.range`, `input.mean` and `input.std` map the pixels of {name} to \
                     {low}..{high}; set input.range = [0, 1] without mean and std, or loss = \
                     \"mse\""
                )),
            }
        }
    }
}

/// Returns the error of binary cross-entropy with an input whose values leave 0..1 by its
/// declaration.
pub fn cross_entropy_fault(spec: &InputSpec, kind: InputKind) -> Option<ConfigError> {
    match declared_range(spec, kind) {
        DeclaredRange::Wider(reason) => Some(ConfigError::new(
            "loss",
            format!("`bce` is for values in 0..1, but {reason}"),
        )),
        DeclaredRange::Unit | DeclaredRange::Unscaled => None,
    }
}

fn pixel_ranges(format: &PixelFormat) -> Vec<ValueRange> {
    let range = |channel| {
        let (scale, offset) = format.affine(channel);
        ValueRange {
            name: format!("channel {channel}"),
            low: f64::from(offset),
            high: f64::from(255.0_f32.mul_add(scale, offset)),
        }
    };
    (0..format.channels.count()).map(range).collect()
}

/// Refuses features whose range or deviation is larger than float64 holds.
fn check_finite(statistics: &DatasetStatistics, columns: &[String]) -> Result<(), TrainError> {
    let DatasetStatistics { min, max, std, .. } = statistics;
    let is_too_wide = |index: &usize| !(max[*index] - min[*index] + std[*index]).is_finite();
    let Some(index) = (0..min.len()).find(is_too_wide) else {
        return Ok(());
    };
    let message = format!(
        "{} lies in {}..{} in the training part, a range that cannot be scaled; correct its values",
        value_name(columns, min.len(), index),
        min[index],
        max[index]
    );
    Err(TrainError::Faults(vec![ConfigError::new(
        "input.scaling",
        message,
    )]))
}

/// Returns the name of a value of a record: its column, unless columns hold several values.
fn value_name(columns: &[String], values: usize, index: usize) -> String {
    match columns.get(index) {
        Some(name) if columns.len() == values => format!("column `{name}`"),
        _ => format!("value {index}"),
    }
}

/// Returns the ranges of scaled features.
pub fn feature_ranges(
    statistics: &DatasetStatistics,
    columns: &[String],
    scaling: &Scaling,
) -> Vec<ValueRange> {
    let bounds = statistics.min.iter().zip(&statistics.max).enumerate();
    let range = |(index, (min, max)): (usize, (&f64, &f64))| {
        let scale = scaling.feature(index);
        ValueRange {
            name: value_name(columns, statistics.min.len(), index),
            low: scale.scale(*min),
            high: scale.scale(*max),
        }
    };
    bounds.map(range).collect()
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
        && let Err(message) = format(spec).check()
    {
        faults.push(ConfigError::new("input", message));
    }
    if spec.decode == Some(DecodeMode::Scaled) && spec.size.is_none() {
        faults.push(ConfigError::new("input.decode", UNSCALED));
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
    faults
}

/// Returns the declared input with the default of `decode`: JPEGs are decoded at a fraction of their
/// size if they are resized.
pub fn with_decode_mode(spec: &InputSpec) -> InputSpec {
    let decode = spec.decode.or(spec.size.map(|_| DecodeMode::Scaled));
    InputSpec {
        decode,
        ..spec.clone()
    }
}

/// Returns the kind that an input declares, or else images.
fn kind(spec: &InputSpec) -> InputKind {
    let features = spec.columns.is_some() || spec.scaling.is_some();
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
                let scaled = |channel, mean, std| {
                    let (scale, offset) = format.affine(channel);
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
                    ScalingKind::None => {}
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
                let ranges = feature_ranges(&statistics, &prepared.value_names, &scaling);
                Ok(Some(Self {
                    spec,
                    preparing: InputValues::Features(scaling),
                    shape,
                    moments,
                    ranges,
                }))
            }
        }
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
mod tests {
    use super::*;

    #[test]
    fn declared_ranges_of_images_follow_range_mean_and_std() {
        let fault = |spec: InputSpec| cross_entropy_fault(&spec, InputKind::Image);
        assert_eq!(fault(InputSpec::default()), None);
        let range = Some([0.25, 0.75]);
        let narrow = InputSpec {
            range,
            ..InputSpec::default()
        };
        assert_eq!(fault(narrow.clone()), None);
        let wide = InputSpec {
            std: Some(vec![1.0, 1.0, 0.5]),
            ..narrow
        };
        assert_eq!(
            fault(wide),
            Some(ConfigError::new(
                "loss",
                "`bce` is for values in 0..1, but `input.range`, `input.mean` and `input.std` map \
                 the pixels of channel 2 to 0.5..1.5; set input.range = [0, 1] without mean and \
                 std, or loss = \"mse\""
            ))
        );
    }
}
