//! Normalizations of rows of channels: by the statistics of each channel over a batch, or by those
//! of each record.

use crate::system::simd_dispatch;
use crate::train::normalization::NORMALIZATION_EPSILON;

/// Two sums for each channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ChannelSums {
    /// The sums of the first terms.
    pub first: Vec<f64>,
    /// The sums of the second terms.
    pub second: Vec<f64>,
}

impl ChannelSums {
    /// Replaces the sums with those over rows of `terms` for each value; `pairs` are the rows of
    /// two lists.
    fn replace(
        &mut self,
        channels: usize,
        pairs: [&[f32]; 2],
        terms: impl Fn(usize, f32, f32) -> (f64, f64),
    ) {
        for sums in [&mut self.first, &mut self.second] {
            sums.clear();
            sums.resize(channels, 0.0);
        }
        self.add(pairs, terms);
    }

    fn add(&mut self, [a, b]: [&[f32]; 2], terms: impl Fn(usize, f32, f32) -> (f64, f64)) {
        let Self { first, second } = self;
        let channels = first.len().max(1);
        simd_dispatch(|| {
            for (row, other) in a.chunks_exact(channels).zip(b.chunks_exact(channels)) {
                let sums = first.iter_mut().zip(second.iter_mut());
                for (channel, ((x, y), (sum, other_sum))) in
                    row.iter().zip(other).zip(sums).enumerate()
                {
                    let (one, two) = terms(channel, *x, *y);
                    *sum += one;
                    *other_sum += two;
                }
            }
        });
    }

    /// Replaces the sums with those of the values and of their squares.
    pub(crate) fn of_values(&mut self, channels: usize, values: &[f32]) {
        self.replace(channels, [values, values], |_, x, _| {
            (f64::from(x), f64::from(x) * f64::from(x))
        });
    }

    /// Adds other sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.first.resize(other.first.len(), 0.0);
        self.second.resize(other.second.len(), 0.0);
        let pairs = [
            (&mut self.first, &other.first),
            (&mut self.second, &other.second),
        ];
        for (own, added) in pairs {
            own.iter_mut()
                .zip(added)
                .for_each(|(sum, value)| *sum += value);
        }
    }
}

/// Replaces each value of rows of channels by `f` of its channel, itself and the value of `other` at
/// the same place.
fn map_rows(
    channels: usize,
    values: &mut [f32],
    other: &[f32],
    f: impl Fn(usize, f32, f32) -> f32,
) {
    let channels = channels.max(1);
    simd_dispatch(|| {
        let rows = values
            .chunks_exact_mut(channels)
            .zip(other.chunks_exact(channels));
        for (row, others) in rows {
            for (channel, (value, &paired)) in row.iter_mut().zip(others).enumerate() {
                *value = f(channel, *value, paired);
            }
        }
    });
}

/// The statistics of each channel, by which a batch normalization shifts and scales.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ChannelStatistics {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The variance of each channel with Bessel's correction, as running averages have it.
    pub variance: Vec<f32>,
    /// The reciprocal of the deviation of each channel.
    scale: Vec<f32>,
    /// Number of values of each channel.
    count: f64,
}

fn reciprocal(variance: f64) -> f32 {
    (variance + f64::from(NORMALIZATION_EPSILON)).sqrt().recip() as f32
}

impl ChannelStatistics {
    /// Computes the statistics of a batch from the sums of its values and squares over `count`
    /// values of each channel.
    pub(crate) fn of_batch(sums: &ChannelSums, count: usize) -> Self {
        let count = count.max(1) as f64;
        let means = || sums.first.iter().map(|sum| sum / count);
        let variances: Vec<f64> = means()
            .zip(&sums.second)
            .map(|(mean, squares)| (squares / count - mean * mean).max(0.0))
            .collect();
        let correction = count / (count - 1.0).max(1.0);
        Self {
            mean: means().map(|mean| mean as f32).collect(),
            variance: variances
                .iter()
                .map(|variance| (variance * correction) as f32)
                .collect(),
            scale: variances
                .iter()
                .map(|&variance| reciprocal(variance))
                .collect(),
            count,
        }
    }

    /// Returns running averages as statistics.
    pub(crate) fn of_averages(mean: &[f32], variance: &[f32]) -> Self {
        let scale = variance.iter().map(|&value| reciprocal(f64::from(value)));
        Self {
            mean: mean.to_vec(),
            variance: variance.to_vec(),
            scale: scale.collect(),
            count: 1.0,
        }
    }

    /// Writes the normalized rows of `input`, times `factor` plus `bias`, to `output`.
    pub(crate) fn normalize(&self, [factor, bias]: [&[f32]; 2], input: &[f32], output: &mut [f32]) {
        let Self { mean, scale, .. } = self;
        map_rows(factor.len(), output, input, |channel, _, x| {
            let normal = (x - mean[channel]) * scale[channel];
            normal * factor[channel] + bias[channel]
        });
    }

    /// Replaces `sums` with the sums, over rows, of the gradient and of its product with the
    /// normalized input: the gradients with respect to bias and factor.
    pub(crate) fn gradient_sums(&self, input: &[f32], gradient: &[f32], sums: &mut ChannelSums) {
        let Self { mean, scale, .. } = self;
        sums.replace(mean.len(), [gradient, input], |channel, dy, x| {
            let normal = (x - mean[channel]) * scale[channel];
            (f64::from(dy), f64::from(dy * normal))
        });
    }

    /// Converts the gradient with respect to the output into the gradient with respect to the
    /// input; `sums` are those of [`ChannelStatistics::gradient_sums`] over the entire batch.
    pub(crate) fn back(
        &self,
        factor: &[f32],
        sums: &ChannelSums,
        input: &[f32],
        gradient: &mut [f32],
    ) {
        let Self { mean, scale, .. } = self;
        let means =
            |of: &[f64]| -> Vec<f32> { of.iter().map(|sum| (sum / self.count) as f32).collect() };
        let (first, second) = (means(&sums.first), means(&sums.second));
        map_rows(factor.len(), gradient, input, |channel, dy, x| {
            let normal = (x - mean[channel]) * scale[channel];
            factor[channel] * scale[channel] * (dy - first[channel] - normal * second[channel])
        });
    }
}

/// Number of independent sums over the values of a record, so that the loop is compiled for the
/// processor.
const LANES: usize = 16;

/// Returns the mean of a record and the reciprocal of its deviation.
fn record_moments(values: &[f32]) -> [f32; 2] {
    let mut sums = ChannelSums::default();
    let (lanes, rest) = values.split_at(values.len() / LANES * LANES);
    sums.of_values(LANES, lanes);
    let total = |of_lanes: &[f64], power: i32| {
        let last = rest.iter().map(|&value| f64::from(value).powi(power));
        of_lanes.iter().sum::<f64>() + last.sum::<f64>()
    };
    let count = values.len().max(1) as f64;
    let mean = total(&sums.first, 1) / count;
    let variance = (total(&sums.second, 2) / count - mean * mean).max(0.0);
    [mean as f32, reciprocal(variance)]
}

/// Writes the normalized records of `input`, times `factor` plus `bias` by channel, to `output`,
/// and the moments of each record to `moments`.
pub(crate) fn normalize_records(
    [factor, bias]: [&[f32]; 2],
    width: usize,
    input: &[f32],
    output: &mut [f32],
    moments: &mut Vec<[f32; 2]>,
) {
    let width = width.max(1);
    moments.clear();
    for (out_record, record) in output
        .chunks_exact_mut(width)
        .zip(input.chunks_exact(width))
    {
        let [mean, scale] = record_moments(record);
        moments.push([mean, scale]);
        map_rows(factor.len(), out_record, record, |channel, _, x| {
            (x - mean) * scale * factor[channel] + bias[channel]
        });
    }
}

/// Converts the gradient with respect to the output of [`normalize_records`] into the gradient with
/// respect to its input. Replaces `sums` with the gradients with respect to bias and factor.
pub(crate) fn records_back(
    factor: &[f32],
    moments: &[[f32; 2]],
    input: &[f32],
    gradient: &mut [f32],
    sums: &mut ChannelSums,
) {
    let (channels, width) = (factor.len().max(1), input.len() / moments.len().max(1));
    sums.replace(channels, [&[], &[]], |_, _, _| (0.0, 0.0));
    let records = gradient
        .chunks_exact_mut(width.max(1))
        .zip(input.chunks_exact(width.max(1)));
    for (&[mean, scale], (gradient_record, record)) in moments.iter().zip(records) {
        sums.add([gradient_record, record], |_, dy, x| {
            (f64::from(dy), f64::from(dy * ((x - mean) * scale)))
        });
        let mut own = ChannelSums::default();
        own.replace(channels, [gradient_record, record], |channel, dy, x| {
            let scaled = dy * factor[channel];
            (f64::from(scaled), f64::from(scaled * ((x - mean) * scale)))
        });
        let average = |of: &[f64]| (of.iter().sum::<f64>() / width as f64) as f32;
        let (first, second) = (average(&own.first), average(&own.second));
        map_rows(channels, gradient_record, record, |channel, dy, x| {
            let normal = (x - mean) * scale;
            scale * (dy * factor[channel] - first - normal * second)
        });
    }
}
