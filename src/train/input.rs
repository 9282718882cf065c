//! The input of the network: the declared input, completed with statistics of the training part.

use super::epoch_sampler::InputValues;
use super::sequential::RecordShape;
use crate::data::{DatasetStatistics, PreparedDataset};
use crate::error::{ConfigError, StageError};
use crate::image::{PixelFormat, TensorLayout};
use crate::model::input::{InputKind, InputSpec, ScalingKind};

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
    /// Computes the input from the declaration and the statistics of the training part, which is
    /// read once.
    ///
    /// # Errors
    /// When the training part cannot be read.
    pub fn new(declared: &InputSpec, prepared: &PreparedDataset) -> Result<Self, StageError> {
        let statistics = DatasetStatistics::compute(&prepared.training)?;
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
                let affine = |channel| {
                    let (scale, offset) = format.affine(channel);
                    (f64::from(scale), f64::from(offset))
                };
                let moments = moments(&statistics, affine);
                Ok(Self {
                    spec,
                    preparing: InputValues::Pixels(format),
                    shape,
                    moments,
                })
            }
            InputKind::Features => {
                let method = declared.scaling.unwrap_or(ScalingKind::Standard);
                let scaling = statistics.scaling(method);
                spec.scaling = Some(method);
                // The values of a list column have no names.
                spec.columns = prepared
                    .columns_are_values
                    .then(|| prepared.columns.clone());
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
                let moments = moments(&statistics, |column| scaling.affine(column));
                let shape = RecordShape::Flat(statistics.mean.len());
                Ok(Self {
                    spec,
                    preparing: InputValues::Features(scaling),
                    shape,
                    moments,
                })
            }
        }
    }
}

/// Returns the mean and the deviation over all values, computed from those of each column or
/// channel, which all have the same number of values.
fn moments(statistics: &DatasetStatistics, affine: impl Fn(usize) -> (f64, f64)) -> (f64, f64) {
    let count = statistics.mean.len().max(1) as f64;
    let each: Vec<(f64, f64)> = statistics
        .mean
        .iter()
        .zip(&statistics.std)
        .enumerate()
        .map(|(index, (mean, std))| {
            let (scale, offset) = affine(index);
            (mean * scale + offset, std * scale)
        })
        .collect();
    let mean = each.iter().map(|(mean, _)| mean).sum::<f64>() / count;
    let variance = each
        .iter()
        .map(|(own, std)| std * std + (own - mean) * (own - mean))
        .sum::<f64>()
        / count;
    (mean, variance.sqrt())
}
