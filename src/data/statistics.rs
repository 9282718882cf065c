//! Range, mean and standard deviation of each column or channel, in one pass over the records.

use super::record_file::{Record, RecordFile, RecordValues};
use crate::error::StageError;
use crate::model::Scaling;
use crate::model::input::ScalingKind;

/// Statistics of the values of each column (features) or channel (images, 0..255).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatasetStatistics {
    /// The smallest value of each.
    pub min: Vec<f64>,
    /// The largest value of each.
    pub max: Vec<f64>,
    /// The mean of each.
    pub mean: Vec<f64>,
    /// The standard deviation of each, over all values (divided by n, not by n - 1).
    pub std: Vec<f64>,
}

impl DatasetStatistics {
    /// Reads all records once. If there are no records, all numbers are 0.
    ///
    /// # Errors
    /// Returns an error if a record cannot be read.
    pub fn compute(records: &RecordFile) -> Result<Self, StageError> {
        let mut columns = vec![ColumnMoments::default(); records.channels()];
        let mut record = Record::default();
        for index in 0..records.len() {
            records.read(index, &mut record)?;
            match &record.values {
                RecordValues::U8(values) => add(&mut columns, values),
                RecordValues::F32(values) => add(&mut columns, values),
            }
        }
        let of = |value: fn(&ColumnMoments) -> f64| columns.iter().map(value).collect();
        Ok(Self {
            min: of(|column| column.min),
            max: of(|column| column.max),
            mean: of(|column| column.mean),
            std: of(|column| (column.squares / column.count.max(1.0)).sqrt()),
        })
    }

    /// Returns the scaling of the given kind with the parameters from these statistics.
    pub fn scaling(&self, kind: ScalingKind) -> Scaling {
        match kind {
            ScalingKind::None => Scaling::None,
            ScalingKind::Standard => Scaling::Standard {
                mean: self.mean.clone(),
                std: self.std.clone(),
            },
            ScalingKind::MinMax => Scaling::MinMax {
                min: self.min.clone(),
                max: self.max.clone(),
            },
        }
    }
}

/// Moments of a column's values so far, by Welford's method (1962), which keeps its precision if
/// the mean is large.
#[derive(Debug, Clone, Copy, Default)]
struct ColumnMoments {
    count: f64,
    min: f64,
    max: f64,
    mean: f64,
    /// The sum of squared distances from the mean.
    squares: f64,
}

impl ColumnMoments {
    fn add(&mut self, value: f64) {
        if self.count == 0.0 {
            (self.min, self.max) = (value, value);
        }
        self.count += 1.0;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }
}

fn add<T: Copy + Into<f64>>(columns: &mut [ColumnMoments], values: &[T]) {
    for row in values.chunks_exact(columns.len().max(1)) {
        columns
            .iter_mut()
            .zip(row)
            .for_each(|(column, &value)| column.add(value.into()));
    }
}
