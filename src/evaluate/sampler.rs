//! Reads the records of an evaluation in batches of model inputs, and samples them at even spacing
//! if there are more than a maximum.

use std::ops::Range;

use crate::data::{PreparedDataset, Record, RecordFile, RecordValues, Subset};
use crate::error::StageError;
use crate::evaluate::options::EvaluateOptions;
use crate::image::PixelFormat;
use crate::image::normalize::Sample;
use crate::model::{FeatureInput, ModelInput};

/// Number of values at which a batch is complete: 4 MiB. The last record may exceed it.
const BATCH_VALUES: usize = 1 << 20;
/// Number of records at which a batch is complete.
const BATCH_RECORDS: usize = 4096;

/// Maximum number of scored records.
const MAX_SCORED: usize = 100_000;

/// A sample of the records of one or several parts.
pub(super) struct Subsample<'a> {
    subsets: Vec<(Subset, &'a RecordFile)>,
    total: usize,
    len: usize,
}

impl<'a> Subsample<'a> {
    /// Samples `most` records of these parts, or all of them if there are fewer.
    pub(super) fn new(subsets: Vec<(Subset, &'a RecordFile)>, most: usize) -> Self {
        let total = subsets.iter().map(|(_, records)| records.len()).sum();
        Self {
            subsets,
            total,
            len: most.min(total),
        }
    }

    /// Samples the records that the options select for scoring, at most 100,000.
    pub(super) fn scored(prepared: &'a PreparedDataset, options: &EvaluateOptions) -> Self {
        Self::new(scored_parts(prepared, options), MAX_SCORED)
    }

    /// Returns a sample of the same parts with at most `most` records.
    pub(super) fn at_most(&self, most: usize) -> Self {
        Self::new(self.subsets.clone(), most.min(self.len))
    }

    /// Returns the number of records of the sample.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of all records of the parts.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Returns the parts.
    pub(super) fn subsets(&self) -> &[(Subset, &'a RecordFile)] {
        &self.subsets
    }

    /// Reads the records in order, converts them to `input`, and calls `work` with each batch.
    /// Records that do not fit `input`, or have a value that is not finite, are left out.
    ///
    /// # Errors
    /// Returns an error if a record cannot be read, or the error of `work`.
    pub(super) fn read(
        &self,
        input: &ModelInput,
        work: &mut dyn FnMut(&MiniBatch) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let (mut batch, mut record) = (MiniBatch::default(), Record::default());
        for sample_index in 0..self.len {
            let Some((part, records, index)) = self.at(sample_index) else {
                break;
            };
            records.read(index, &mut record)?;
            batch.add(input, &record, (part, index, sample_index));
            if batch.values.len() >= BATCH_VALUES || batch.records.len() >= BATCH_RECORDS {
                work(&batch)?;
                batch.clear();
            }
        }
        if batch.records.is_empty() {
            Ok(())
        } else {
            work(&batch)
        }
    }

    fn at(&self, sample_index: usize) -> Option<(Subset, &'a RecordFile, usize)> {
        let mut left = evenly_spaced(sample_index, self.len, self.total);
        for &(part, records) in &self.subsets {
            if left < records.len() {
                return Some((part, records, left));
            }
            left -= records.len();
        }
        None
    }
}

/// Returns the index of the `n`-th of `few` items that are spaced evenly over `many`.
fn evenly_spaced(n: usize, few: usize, many: usize) -> usize {
    // The product of two 64-bit numbers fits into 128 bits.
    (n as u128 * many as u128 / few.max(1) as u128) as usize
}

/// Whether the `n`-th of `many` items is among `few` that are spaced evenly over them.
pub(super) fn is_selected(n: usize, few: usize, many: usize) -> bool {
    few >= many || evenly_spaced(n + 1, many, few) > evenly_spaced(n, many, few)
}

/// Some records with their values, concatenated.
#[derive(Clone, Default)]
pub(super) struct MiniBatch {
    pub(super) records: Vec<RecordRef>,
    pub(super) values: Vec<f32>,
}

/// A record of a batch.
#[derive(Clone)]
pub(super) struct RecordRef {
    /// The part of the record.
    pub(super) subset: Subset,
    /// The index of the record in its part.
    pub(super) index: usize,
    /// The index of the record in the sample.
    pub(super) sample_index: usize,
    pub(super) label: Option<u32>,
    pub(super) anomaly: bool,
    /// The seed for the record's noise.
    pub(super) identity: u64,
    /// The shape of the record's tensor.
    pub(super) shape: Vec<usize>,
    /// The range of the record's values in the batch.
    pub(super) at: Range<usize>,
}

impl MiniBatch {
    /// Adds the records of another batch.
    pub(super) fn append(&mut self, other: &Self) {
        let start = self.values.len();
        self.values.extend_from_slice(&other.values);
        self.records.extend(other.records.iter().map(|entry| {
            let at = entry.at.start + start..entry.at.end + start;
            RecordRef {
                at,
                ..entry.clone()
            }
        }));
    }

    /// Adds a record, converted to `input`. A record that does not fit `input`, or has a value that
    /// is not finite, is left out.
    pub(super) fn add(
        &mut self,
        input: &ModelInput,
        record: &Record,
        (subset, index, sample_index): (Subset, usize, usize),
    ) {
        let start = self.values.len();
        let shape = tensor(input, record, &mut self.values);
        match shape.filter(|_| self.values[start..].iter().all(|value| value.is_finite())) {
            None => self.values.truncate(start),
            Some(shape) => self.records.push(RecordRef {
                subset,
                index,
                sample_index,
                label: record.label,
                anomaly: record.anomaly,
                identity: record.identity,
                shape,
                at: start..self.values.len(),
            }),
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.values.clear();
    }

    /// Returns the values of a record.
    pub(super) fn record_values(&self, entry: &RecordRef) -> &[f32] {
        &self.values[entry.at.clone()]
    }
}

/// Appends the values of a record, converted to `input`, and returns their shape; `None` if the
/// record does not fit `input`.
fn tensor(input: &ModelInput, record: &Record, values: &mut Vec<f32>) -> Option<Vec<usize>> {
    let start = values.len();
    match (input, &record.values) {
        (ModelInput::Image(image), RecordValues::U8(pixels)) => {
            normalized(&image.format, record.shape, pixels, values)
        }
        (ModelInput::Image(image), RecordValues::F32(samples)) => {
            normalized(&image.format, record.shape, samples, values)
        }
        (ModelInput::Features(features), raw @ (RecordValues::F32(_) | RecordValues::F64(_))) => {
            raw.append_features(features, values);
            Some(vec![values.len() - start])
        }
        (ModelInput::Tensor, raw @ (RecordValues::F32(_) | RecordValues::F64(_))) => {
            raw.append_features(&FeatureInput::default(), values);
            Some(vec![values.len() - start])
        }
        _ => None,
    }
}

/// Appends the tensor of an image and returns its shape; `None` if it has other channels.
fn normalized<T: Sample>(
    format: &PixelFormat,
    [height, width, channels]: [usize; 3],
    samples: &[T],
    values: &mut Vec<f32>,
) -> Option<Vec<usize>> {
    if channels != format.channels.count() || samples.is_empty() {
        return None;
    }
    let start = values.len();
    values.resize(start + samples.len(), 0.0);
    format.normalize_samples(samples, &mut values[start..]);
    Some(format.shape(height, width))
}

/// Returns the parts that are scored.
pub(super) fn scored_parts<'a>(
    prepared: &'a PreparedDataset,
    options: &EvaluateOptions,
) -> Vec<(Subset, &'a RecordFile)> {
    let normal_in_test = prepared.test.len() as u64 > prepared.anomalies;
    let chosen = match options.parts.as_slice() {
        [] if normal_in_test => vec![Subset::Test],
        [] if prepared.anomalies > 0 => vec![Subset::Validation, Subset::Test],
        [] => vec![Subset::Validation],
        chosen => chosen.to_vec(),
    };
    chosen
        .into_iter()
        .map(|part| (part, prepared.subset(part)))
        .collect()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_selects_each_item_once() {
        for (few, many) in [(1, 1), (3, 10), (10, 10), (7, 1000)] {
            let taken: Vec<usize> = (0..few).map(|n| evenly_spaced(n, few, many)).collect();
            assert!(
                taken.windows(2).all(|pair| pair[1] - pair[0] >= many / few),
                "{taken:?}"
            );
            assert!(taken.iter().all(|&index| index < many));
            assert_eq!(
                (0..many).filter(|&n| is_selected(n, few, many)).count(),
                few
            );
        }
        assert!(
            is_selected(4, 100, 10),
            "an item is not selected although there are fewer than the maximum"
        );
    }
}
