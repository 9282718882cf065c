//! The range of the values of the data, and the faults of losses that need one.

use std::sync::atomic::AtomicBool;

use crate::data::{DatasetStatistics, RecordFile};
use crate::error::config_error::ConfigError;
use crate::image::PixelFormat;
use crate::model::FeatureInput;
use crate::model::input::rules::{FeatureRule, RawType};
use crate::model::input::scaling::ScalingKind;
use crate::model::input::spec::{InputKind, InputSpec};
use crate::train::TrainError;
use crate::train::input::format;

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
    pub(crate) fn is_in_unit_range(&self) -> bool {
        self.low >= -ROUNDING && self.high <= 1.0 + ROUNDING
    }
}

/// The range of the values that a declared input gives, as far as it does not depend on the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DeclaredRange {
    /// The values of the training part lie in 0..1.
    Unit,
    /// The values are those of the data.
    Unscaled,
    /// The values leave 0..1 for this reason.
    Wider(String),
}

/// Returns the range that a declared input gives for records of a kind.
pub(crate) fn declared_range(spec: &InputSpec, kind: InputKind) -> DeclaredRange {
    match kind {
        InputKind::Features if !spec.rules.is_empty() => range_of_rules(&spec.rules),
        InputKind::Features => match spec.scaling.unwrap_or(ScalingKind::Standard) {
            ScalingKind::MinMax | ScalingKind::Quantile => DeclaredRange::Unit,
            ScalingKind::None => DeclaredRange::Unscaled,
            method @ (ScalingKind::Standard | ScalingKind::Robust) => {
                let (name, average) = match method {
                    ScalingKind::Robust => ("robust", "median"),
                    _ => ("standard", "mean"),
                };
                DeclaredRange::Wider(format!(
                    "features with `input.scaling = \"{name}\"` have a {average} of 0; set \
                     input.scaling = \"min_max\", or loss = \"mse\""
                ))
            }
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

/// Returns the range that computed rules give.
fn range_of_rules(rules: &[FeatureRule]) -> DeclaredRange {
    let name = |rule: &FeatureRule| rule.columns.first().cloned().unwrap_or_default();
    let is_centered = |rule: &&FeatureRule| {
        matches!(
            rule.scaling,
            Some(ScalingKind::Standard | ScalingKind::Robust)
        )
    };
    if let Some(rule) = rules.iter().find(is_centered) {
        return DeclaredRange::Wider(format!(
            "the scaling of `{}` centers it at 0; set scaling = \"min_max\" in its rule, or loss = \
             \"mse\"",
            name(rule)
        ));
    }
    if let Some(rule) = rules.iter().find(|rule| !rule.cyclic.is_empty()) {
        return DeclaredRange::Wider(format!(
            "the sine and the cosine of `{}` lie in -1..1; set loss = \"mse\"",
            name(rule)
        ));
    }
    let is_unscaled =
        |rule: &FeatureRule| rule.scaling.is_none_or(|kind| kind == ScalingKind::None);
    let is_number = |rule: &FeatureRule| rule.raw().kind == RawType::Number;
    match rules
        .iter()
        .any(|rule| is_number(rule) && is_unscaled(rule))
    {
        true => DeclaredRange::Unscaled,
        false => DeclaredRange::Unit,
    }
}

/// Returns the error of binary cross-entropy with an input whose values leave 0..1 by its
/// declaration.
pub(crate) fn cross_entropy_fault(spec: &InputSpec, kind: InputKind) -> Option<ConfigError> {
    match declared_range(spec, kind) {
        DeclaredRange::Wider(reason) => Some(ConfigError::new(
            "loss",
            format!("`bce` is for values in 0..1, but {reason}"),
        )),
        DeclaredRange::Unit | DeclaredRange::Unscaled => None,
    }
}

pub(super) fn pixel_ranges(format: &PixelFormat) -> Vec<ValueRange> {
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
pub(super) fn check_finite(
    statistics: &DatasetStatistics,
    columns: &[String],
) -> Result<(), TrainError> {
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

/// Computes the statistics of feature records as [`feature_ranges`] takes them: of the inputs if there
/// are rules, and otherwise of the values before scaling. Returns `None` if `stop` became true.
///
/// # Errors
/// When a record cannot be read.
pub(crate) fn input_statistics(
    records: &RecordFile,
    features: &FeatureInput,
    stop: &AtomicBool,
) -> Result<Option<DatasetStatistics>, TrainError> {
    let Some(encoder) = &features.encoder else {
        return Ok(DatasetStatistics::compute(records, stop)?);
    };
    let mut inputs = Vec::new();
    let mut encode = |values: &[f64], converted: &mut Vec<f64>| {
        inputs.clear();
        encoder.encode(values.iter().copied(), &mut inputs);
        converted.extend(inputs.iter().copied().map(f64::from));
    };
    let width = encoder.groups().inputs();
    Ok(DatasetStatistics::of_converted(
        records,
        width,
        stop,
        &mut encode,
    )?)
}

/// Returns the ranges of the inputs that features become.
pub(crate) fn feature_ranges(
    statistics: &DatasetStatistics,
    columns: &[String],
    features: &FeatureInput,
) -> Vec<ValueRange> {
    let values = features.groups(statistics.min.len());
    let bounds = statistics.min.iter().zip(&statistics.max).enumerate();
    let range = |(index, (min, max)): (usize, (&f64, &f64))| {
        let scale = features.scaling.feature(index);
        ValueRange {
            name: value_name(columns, values.features(), values.feature_of(index)),
            low: scale.scale(*min),
            high: scale.scale(*max),
        }
    };
    bounds.map(range).collect()
}
