//! The values that depend on the order of the values of a column: medians, modes and quantiles.
//!
//! They are exact for at most [`MAX_SAMPLE`] records. Of more records, a random sample of that size
//! is taken, so that a quantile is the quantile of a share that differs by at most 0.0023 with a
//! probability of 99.99 % (Dvoretzky, Kiefer and Wolfowitz, 1956; Massart, 1990).

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use crate::data::{Permutation, PreparedDataset, Record, RecordFile, RecordValues};
use crate::error::config_error::ConfigError;
use crate::model::input::rules::{FeatureRule, FillValue, ImputeMethod};
use crate::model::input::scaling::ScalingKind;
use crate::train::TrainError;
use crate::train::input::fit::first_pass::requires_sorted_values;
use crate::train::input::fit::refused;

/// The maximum number of records whose values are sorted.
const MAX_SAMPLE: u64 = 1_000_000;
/// The maximum memory of the values that are sorted together.
const MAX_BYTES: usize = 256 << 20;
/// The key of the order from which the sample is taken.
const SAMPLE_SEED: u64 = 0x7361_6d70_6c65;
/// Number of records after which a request to stop is noticed.
const STOP_INTERVAL: usize = 256;

/// Computes medians, modes and quantiles. Returns `false` if `stop` became true before the end.
pub(super) fn fit_quantiles(
    rules: &mut [FeatureRule],
    prepared: &PreparedDataset,
    stop: &AtomicBool,
) -> Result<bool, TrainError> {
    let ranks = |kind: Option<ScalingKind>| {
        matches!(kind, Some(ScalingKind::Robust | ScalingKind::Quantile))
    };
    let fitted: Vec<usize> = (0..rules.len())
        .filter(|&index| {
            let rule = &rules[index];
            requires_sorted_values(rule) || rule.clip_quantiles.is_some() || ranks(rule.scaling)
        })
        .collect();
    if fitted.is_empty() {
        return Ok(true);
    }
    let sample = sampled_records(&prepared.training);
    let together = (MAX_BYTES / (size_of::<f64>() * sample.len().max(1))).max(1);
    for columns in fitted.chunks(together) {
        let Some(values) = read_columns(&prepared.training, &sample, columns, stop)? else {
            return Ok(false);
        };
        let pairs = columns.iter().zip(values);
        let faults = pairs.filter_map(|(&column, own)| fit_column(&mut rules[column], own));
        let faults: Vec<ConfigError> = faults.collect();
        if !faults.is_empty() {
            return Err(refused(faults));
        }
    }
    Ok(true)
}

/// Returns the indices of the records of the sample, ascending.
fn sampled_records(records: &RecordFile) -> Vec<usize> {
    let len = records.len();
    if len as u64 <= MAX_SAMPLE {
        return (0..len).collect();
    }
    let order = Permutation::new(len as u64, SAMPLE_SEED);
    let indices = (0..MAX_SAMPLE).filter_map(|index| usize::try_from(order.at(index)).ok());
    let mut indices: Vec<usize> = indices.collect();
    indices.sort_unstable();
    indices
}

fn read_columns(
    records: &RecordFile,
    sample: &[usize],
    columns: &[usize],
    stop: &AtomicBool,
) -> Result<Option<Vec<Vec<f64>>>, TrainError> {
    let mut values: Vec<Vec<f64>> = columns
        .iter()
        .map(|_| Vec::with_capacity(sample.len()))
        .collect();
    let mut record = Record::default();
    for (done, &index) in sample.iter().enumerate() {
        if done % STOP_INTERVAL == 0 && stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        records.read(index, &mut record)?;
        if let RecordValues::F64(row) = &record.values {
            let pairs = values.iter_mut().zip(columns);
            pairs.for_each(|(own, &column)| own.push(row[column]));
        }
    }
    Ok(Some(values))
}

/// Computes the values of a rule from the values of its column, of which missing ones are NaN.
/// Returns the fault of values that `log1p` is not defined for.
fn fit_column(rule: &mut FeatureRule, mut values: Vec<f64>) -> Option<ConfigError> {
    let all = values.len();
    values.retain(|value| !value.is_nan());
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() {
        return None;
    }
    if requires_sorted_values(rule) {
        let fill = match rule.impute {
            Some(ImputeMethod::MostFrequent) => most_frequent(&values),
            _ => quantile(&values, 0.5),
        };
        rule.fill_value = Some(FillValue::Number(fill));
    }
    if let Some(fill) = rule.fill_value.as_ref().and_then(FillValue::number) {
        let place = values.partition_point(|&value| value < fill);
        values.splice(place..place, std::iter::repeat_n(fill, all - values.len()));
    }
    if let Some([low, high]) = rule.clip_quantiles {
        rule.clip_min = Some(quantile(&values, low));
        rule.clip_max = Some(quantile(&values, high));
    }
    let (low, high) = (
        rule.clip_min.unwrap_or(f64::NEG_INFINITY),
        rule.clip_max.unwrap_or(f64::INFINITY),
    );
    if rule.log1p && values[0].max(low) <= -1.0 {
        let message = format!(
            "`clip_quantiles` clips {} to values from {low}, but `log1p` requires values above -1; \
             set `clip_min`",
            rule.columns.join(", ")
        );
        return Some(ConfigError::new("rules", message));
    }
    for value in &mut values {
        *value = value.clamp(low, high);
        if rule.log1p {
            *value = value.ln_1p();
        }
    }
    match rule.scaling {
        Some(ScalingKind::Robust) => {
            rule.median = Some(quantile(&values, 0.5));
            let iqr = quantile(&values, 0.75) - quantile(&values, 0.25);
            if iqr == 0.0 {
                let column = rule.columns.join(", ");
                warn!(%column, "the quartiles of the column are equal, so that robust scaling does not divide it");
            }
            rule.iqr = Some(iqr);
        }
        Some(ScalingKind::Quantile) => {
            let count = rule
                .n_quantiles
                .unwrap_or_default()
                .min(values.len())
                .max(2);
            let share = |index: usize| index as f64 / (count - 1) as f64;
            rule.quantiles = Some(
                (0..count)
                    .map(|index| quantile(&values, share(index)))
                    .collect(),
            );
        }
        _ => {}
    }
    None
}

/// The quantile of sorted values, interpolated linearly, as NumPy does by default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (low, high) = (
        sorted[position.floor() as usize],
        sorted[position.ceil() as usize],
    );
    low + (high - low) * position.fract()
}

/// The most frequent of sorted values; of several, the smallest.
fn most_frequent(sorted: &[f64]) -> f64 {
    let runs = sorted.chunk_by(|a, b| a == b);
    let longest = runs.reduce(|best, run| if run.len() > best.len() { run } else { best });
    longest
        .and_then(|run| run.first())
        .copied()
        .unwrap_or_default()
}
