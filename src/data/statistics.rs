//! Range, mean and standard deviation of each column or channel.

use std::sync::atomic::{AtomicBool, Ordering};

use super::record_file::RecordFile;
use crate::data::record_file::record::{Record, RecordValues};
use crate::error::StageError;
use crate::model::Scaling;
use crate::model::input::scaling::ScalingKind;

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

/// Number of records after which a request to stop is noticed.
const STOP_INTERVAL: usize = 256;

impl DatasetStatistics {
    /// Reads all records once (images) or twice (features: the second pass measures distances from
    /// the mean, which keeps all digits if the mean is large). If there are no records, all numbers
    /// are 0. Returns `None` if `stop` became true before the end.
    ///
    /// # Errors
    /// Returns an error if a record cannot be read.
    pub fn compute(records: &RecordFile, stop: &AtomicBool) -> Result<Option<Self>, StageError> {
        let mut columns = vec![ColumnSums::default(); records.channels()];
        if !add_records(records, stop, &mut columns)? {
            return Ok(None);
        }
        // The sums of pixels are whole numbers, thus exact after one pass.
        if !records.has_pixels() {
            columns.iter_mut().for_each(ColumnSums::start_second_pass);
            if !add_records(records, stop, &mut columns)? {
                return Ok(None);
            }
        }
        Ok(Some(Self::from_sums(&columns)))
    }

    /// Computes the statistics of `width` values that `convert` derives from each feature record,
    /// without those that are NaN. It reads all records twice. Returns `None` if `stop` became true
    /// before the end.
    ///
    /// # Errors
    /// Returns an error if a record cannot be read.
    #[cfg(feature = "train")]
    pub(crate) fn of_converted(
        records: &RecordFile,
        width: usize,
        stop: &AtomicBool,
        convert: &mut dyn FnMut(&[f64], &mut Vec<f64>),
    ) -> Result<Option<Self>, StageError> {
        let mut columns = vec![ColumnSums::default(); width];
        let mut converted = Vec::with_capacity(width);
        for pass in 0..2 {
            if pass == 1 {
                columns.iter_mut().for_each(ColumnSums::start_second_pass);
            }
            let is_complete = each_feature_record(records, stop, &mut |values| {
                converted.clear();
                convert(values, &mut converted);
                let pairs = columns.iter_mut().zip(&converted);
                let present = pairs.filter(|(_, value)| !value.is_nan());
                present.for_each(|(column, &value)| column.add(value));
            })?;
            if !is_complete {
                return Ok(None);
            }
        }
        Ok(Some(Self::from_sums(&columns)))
    }

    fn from_sums(columns: &[ColumnSums]) -> Self {
        let of = |value: fn(&ColumnSums) -> f64| columns.iter().map(value).collect();
        Self {
            min: of(ColumnSums::min),
            max: of(ColumnSums::max),
            mean: of(ColumnSums::mean),
            std: of(ColumnSums::std),
        }
    }

    /// Returns the scaling of the given kind with the parameters from these statistics. Kinds that
    /// require quantiles have no such parameters.
    pub fn scaling(&self, kind: ScalingKind) -> Scaling {
        match kind {
            ScalingKind::None | ScalingKind::Robust | ScalingKind::Quantile => Scaling::None,
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

/// Sums over the values of a column, relative to a shift that is close to their mean, so that the
/// differences keep all digits.
#[derive(Debug, Clone, Copy)]
struct ColumnSums {
    count: f64,
    min: f64,
    max: f64,
    /// The value that is subtracted from all values.
    shift: f64,
    /// The unit of the sums, so that squares neither overflow nor underflow.
    unit: f64,
    sum: f64,
    squares: f64,
}

impl Default for ColumnSums {
    fn default() -> Self {
        Self {
            count: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            shift: 0.0,
            unit: 1.0,
            sum: 0.0,
            squares: 0.0,
        }
    }
}

impl ColumnSums {
    fn add(&mut self, value: f64) {
        if self.is_empty() {
            self.shift = value;
        }
        self.count += 1.0;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let difference = (value - self.shift) / self.unit;
        self.sum += difference;
        self.squares += difference * difference;
    }

    fn is_empty(&self) -> bool {
        self.min > self.max
    }

    /// Starts sums relative to the mean, in units of half the range.
    fn start_second_pass(&mut self) {
        if self.is_empty() {
            return;
        }
        let half_range = self.max / 2.0 - self.min / 2.0;
        *self = Self {
            count: 0.0,
            shift: self.mean(),
            unit: if half_range > 0.0 { half_range } else { 1.0 },
            sum: 0.0,
            squares: 0.0,
            ..*self
        };
    }

    fn min(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.min }
    }

    fn max(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.max }
    }

    fn mean(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let mean = self.shift + self.sum / self.count.max(1.0) * self.unit;
        // The mean of equal values is one of them.
        mean.clamp(self.min, self.max)
    }

    fn std(&self) -> f64 {
        let count = self.count.max(1.0);
        let squares = self.squares - self.sum * self.sum / count;
        (squares.max(0.0) / count).sqrt() * self.unit
    }
}

/// Calls `visit` with the values of each record. Returns `false` if `stop` became true before the
/// end.
///
/// # Errors
/// Returns an error if a record cannot be read.
fn each_record(
    records: &RecordFile,
    stop: &AtomicBool,
    visit: &mut dyn FnMut(&RecordValues),
) -> Result<bool, StageError> {
    let mut record = Record::default();
    for index in 0..records.len() {
        if index % STOP_INTERVAL == 0 && stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        records.read(index, &mut record)?;
        visit(&record.values);
    }
    Ok(true)
}

/// Calls `visit` with the values of each feature record, as [`each_record`].
#[cfg(feature = "train")]
fn each_feature_record(
    records: &RecordFile,
    stop: &AtomicBool,
    visit: &mut dyn FnMut(&[f64]),
) -> Result<bool, StageError> {
    let mut wide = Vec::new();
    each_record(records, stop, &mut |record| match record {
        RecordValues::F64(values) => visit(values),
        RecordValues::F32(values) => {
            wide.clear();
            wide.extend(values.iter().copied().map(f64::from));
            visit(&wide);
        }
        RecordValues::U8(_) => {}
    })
}

/// Adds the values of all records. Returns `false` if `stop` became true before the end.
fn add_records(
    records: &RecordFile,
    stop: &AtomicBool,
    columns: &mut [ColumnSums],
) -> Result<bool, StageError> {
    each_record(records, stop, &mut |record| match record {
        RecordValues::U8(values) => add_values(columns, values),
        RecordValues::F32(values) => add_values(columns, values),
        RecordValues::F64(values) => add_values(columns, values),
    })
}

fn add_values<T: Copy + Into<f64>>(columns: &mut [ColumnSums], values: &[T]) {
    for row in values.chunks_exact(columns.len().max(1)) {
        let pairs = columns.iter_mut().zip(row);
        pairs.for_each(|(column, &value)| column.add(value.into()));
    }
}
