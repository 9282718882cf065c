//! Records as a model takes them, slice after slice; evenly spread where there are more than are
//! looked at.

use std::ops::Range;

use crate::data::{Record, RecordFile, RecordValues, Subset};
use crate::error::StageError;
use crate::model::ModelInput;

/// Values of the records that are held at a time: 4 MiB, or one record.
const BATCH_VALUES: usize = 1 << 20;
/// Records that are held at a time.
const BATCH_RECORDS: usize = 4096;

/// Records of one or several parts.
pub(super) struct Subsample<'a> {
    subsets: Vec<(Subset, &'a RecordFile)>,
    total: usize,
    len: usize,
}

impl<'a> Subsample<'a> {
    /// All records of these parts, or `most` of them.
    pub(super) fn new(subsets: Vec<(Subset, &'a RecordFile)>, most: usize) -> Self {
        let total = subsets.iter().map(|(_, records)| records.len()).sum();
        Self {
            subsets,
            total,
            len: most.min(total),
        }
    }

    /// The same parts, or fewer of their records.
    pub(super) fn at_most(&self, most: usize) -> Self {
        Self::new(self.subsets.clone(), most.min(self.len))
    }

    /// Records that are looked at.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Records that there are.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The parts.
    pub(super) fn subsets(&self) -> &[(Subset, &'a RecordFile)] {
        &self.subsets
    }

    /// Reads the records in order, as `input` takes them. Those that are not what it takes, or hold
    /// a value that is not finite, are left out.
    ///
    /// # Errors
    /// When they cannot be read, or what `work` says.
    pub(super) fn read(
        &self,
        input: &ModelInput,
        work: &mut dyn FnMut(&MiniBatch) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let (mut slice, mut record) = (MiniBatch::default(), Record::default());
        for place in 0..self.len {
            let Some((part, records, index)) = self.at(place) else {
                break;
            };
            records.read(index, &mut record)?;
            slice.add(input, &record, (part, index, place));
            if slice.values.len() >= BATCH_VALUES || slice.records.len() >= BATCH_RECORDS {
                work(&slice)?;
                slice.clear();
            }
        }
        if slice.records.is_empty() {
            Ok(())
        } else {
            work(&slice)
        }
    }

    fn at(&self, place: usize) -> Option<(Subset, &'a RecordFile, usize)> {
        let mut left = evenly_spaced(place, self.len, self.total);
        for &(part, records) in &self.subsets {
            if left < records.len() {
                return Some((part, records, left));
            }
            left -= records.len();
        }
        None
    }
}

/// The place of the `n`-th of `few` things that are spread evenly over `many`.
fn evenly_spaced(n: usize, few: usize, many: usize) -> usize {
    // Records are counted in far fewer bits than 64, so that products fit into 128.
    (n as u128 * many as u128 / few.max(1) as u128) as usize
}

/// Whether the `n`-th of `many` things is among `few` that are spread evenly over them.
pub(super) fn is_selected(n: usize, few: usize, many: usize) -> bool {
    few >= many || evenly_spaced(n + 1, many, few) > evenly_spaced(n, many, few)
}

/// Some records, one after the other.
#[derive(Clone, Default)]
pub(super) struct MiniBatch {
    pub(super) records: Vec<RecordRef>,
    pub(super) values: Vec<f32>,
}

/// A record of a slice.
#[derive(Clone)]
pub(super) struct RecordRef {
    /// The part it is in.
    pub(super) subset: Subset,
    /// Its place there.
    pub(super) index: usize,
    /// Its place in the sample.
    pub(super) place: usize,
    pub(super) label: Option<u32>,
    pub(super) anomaly: bool,
    /// The seed of its noise.
    pub(super) identity: u64,
    /// The shape of its tensor.
    pub(super) shape: Vec<usize>,
    /// Where its values are.
    pub(super) at: Range<usize>,
}

impl MiniBatch {
    /// Adds a record as `input` takes it, unless it is none, or holds a value that is not finite.
    pub(super) fn add(
        &mut self,
        input: &ModelInput,
        record: &Record,
        (subset, index, place): (Subset, usize, usize),
    ) {
        let start = self.values.len();
        let shape = tensor(input, record, &mut self.values);
        match shape.filter(|_| self.values[start..].iter().all(|value| value.is_finite())) {
            None => self.values.truncate(start),
            Some(shape) => self.records.push(RecordRef {
                subset,
                index,
                place,
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

    /// The values of a record.
    pub(super) fn of(&self, entry: &RecordRef) -> &[f32] {
        &self.values[entry.at.clone()]
    }
}

/// Appends the values of a record as `input` takes them, and tells their shape; `None` for another
/// sort of record.
fn tensor(input: &ModelInput, record: &Record, values: &mut Vec<f32>) -> Option<Vec<usize>> {
    let start = values.len();
    match (input, &record.values) {
        (ModelInput::Image(image), RecordValues::U8(pixels)) => {
            let [height, width, channels] = record.shape;
            if channels != image.format.channels.count() || pixels.is_empty() {
                return None;
            }
            values.resize(start + pixels.len(), 0.0);
            image.format.normalize(pixels, &mut values[start..]);
            Some(image.format.shape(height, width))
        }
        (ModelInput::Features(features), RecordValues::F32(raw)) => {
            values.extend(raw.iter().enumerate().map(|(place, &value)| {
                let (scale, offset) = features.scaling.affine(place);
                (f64::from(value) * scale + offset) as f32
            }));
            Some(vec![raw.len()])
        }
        (ModelInput::Tensor, RecordValues::F32(raw)) => {
            values.extend_from_slice(raw);
            Some(vec![raw.len()])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_are_each_taken_once_and_evenly() {
        for (few, many) in [(1, 1), (3, 10), (10, 10), (7, 1000)] {
            let taken: Vec<usize> = (0..few).map(|n| evenly_spaced(n, few, many)).collect();
            assert!(
                taken.windows(2).all(|pair| pair[1] - pair[0] >= many / few),
                "{taken:?}"
            );
            assert!(taken.iter().all(|&place| place < many));
            assert_eq!(
                (0..many).filter(|&n| is_selected(n, few, many)).count(),
                few
            );
        }
        assert!(
            is_selected(4, 100, 10),
            "all are taken where there are fewer"
        );
    }
}
