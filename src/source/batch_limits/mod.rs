//! The size limits of batches, and the split of record batches to these limits.

use std::ops::Range;

use arrow::array::{Array, AsArray, OffsetSizeTrait, RecordBatch, RunArray};
use arrow::datatypes::{
    ArrowNativeType as _, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType,
};

use crate::source::batch_size::{BatchSize, FEATURE_RECORDS, IMAGE_RECORDS};

/// Limits on the number of records and the bytes of Arrow memory of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// Maximum number of records.
    pub(super) records: usize,
    /// Maximum size in bytes; a single larger record is a batch of its own.
    pub(super) bytes: u64,
    /// Maximum number of records of a batch that exceeds [`SMALL`] bytes.
    pub(super) soft_max_records: usize,
}

/// Size in bytes up to which a batch may exceed `soft_max_records`: the processing of a smaller
/// batch takes less time than its transfer between threads.
const SMALL: u64 = 1 << 20;

/// Default maximum number of images in a batch that exceeds [`SMALL`] bytes.
const SOFT_MAX_IMAGES: usize = 32;

impl BatchLimits {
    /// The limits for images, as configured in the pipeline or by default.
    pub(super) fn images(batch: BatchSize) -> Self {
        let records = batch.records_or(IMAGE_RECORDS);
        let soft_max_records = if batch.records.is_some() {
            records
        } else {
            records.min(SOFT_MAX_IMAGES)
        };
        Self {
            records,
            bytes: batch.bytes(),
            soft_max_records,
        }
    }

    /// The limits for feature records, as configured in the pipeline or by default.
    pub(super) fn features(batch: BatchSize) -> Self {
        let records = batch.records_or(FEATURE_RECORDS);
        Self {
            records,
            bytes: batch.bytes(),
            soft_max_records: records,
        }
    }

    /// Whether `records` records of `bytes` bytes in total fit into one batch.
    pub(super) fn fits(self, records: usize, bytes: u64) -> bool {
        records <= self.records
            && bytes <= self.bytes
            && (records <= self.soft_max_records || bytes <= SMALL)
    }

    /// The number of records of `bytes` bytes each in one batch; at least 1.
    pub(super) fn records_of(self, bytes: u64) -> u64 {
        let fitting = |total: u64| total / bytes.max(1);
        let soft_max = fitting(SMALL).max(self.soft_max_records as u64);
        fitting(self.bytes)
            .min(self.records as u64)
            .min(soft_max)
            .max(1)
    }

    /// Splits `rows` rows into parts, in order: parts of `records` rows, halved until each fits.
    pub(super) fn split(
        self,
        rows: usize,
        weigh: &dyn Fn(Range<usize>) -> u64,
    ) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        for start in (0..rows).step_by(self.records.max(1)) {
            self.halve(start..rows.min(start + self.records), weigh, &mut parts);
        }
        parts
    }

    fn halve(
        self,
        rows: Range<usize>,
        weigh: &dyn Fn(Range<usize>) -> u64,
        parts: &mut Vec<Range<usize>>,
    ) {
        if rows.len() <= 1 || self.fits(rows.len(), weigh(rows.clone())) {
            return parts.push(rows);
        }
        let middle = rows.start + rows.len() / 2;
        self.halve(rows.start..middle, weigh, parts);
        self.halve(middle..rows.end, weigh, parts);
    }
}

/// The reject reason of a record that exceeds `limits.record_bytes`.
pub(super) fn too_large(bytes: u64, maximum: u64) -> String {
    format!("a record has {bytes} bytes; the maximum is {maximum} (limits.record_bytes)")
}

/// The Arrow memory of these rows in bytes. Values that dictionaries, runs and views share count
/// once per use, since stages expand them.
pub(super) fn arrow_bytes(records: &RecordBatch, rows: Range<usize>) -> u64 {
    records
        .columns()
        .iter()
        .map(|column| column_weight(column.as_ref(), rows.clone()))
        .sum()
}

fn column_weight(column: &dyn Array, rows: Range<usize>) -> u64 {
    let count = rows.len() as u64;
    let each = |width: usize| width as u64 * count;
    match column.data_type() {
        // Numbers, including missing ones, become float32 in the stages and count at least as many
        // bytes.
        DataType::Null | DataType::Boolean => each(VALUE_BYTES),
        DataType::Utf8 => each(4) + spanned(column.as_string::<i32>().value_offsets(), &rows),
        DataType::Binary => each(4) + spanned(column.as_binary::<i32>().value_offsets(), &rows),
        DataType::LargeUtf8 => each(8) + spanned(column.as_string::<i64>().value_offsets(), &rows),
        DataType::LargeBinary => {
            each(8) + spanned(column.as_binary::<i64>().value_offsets(), &rows)
        }
        DataType::Utf8View => each(16) + viewed(&column.as_string_view().views()[rows]),
        DataType::BinaryView => each(16) + viewed(&column.as_binary_view().views()[rows]),
        DataType::FixedSizeBinary(width) => each(usize::try_from(*width).unwrap_or(0)),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            each(4) + column_weight(list.values().as_ref(), inside(list.value_offsets(), &rows))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            each(8) + column_weight(list.values().as_ref(), inside(list.value_offsets(), &rows))
        }
        DataType::Map(..) => {
            let map = column.as_map();
            each(4) + column_weight(map.entries(), inside(map.value_offsets(), &rows))
        }
        DataType::FixedSizeList(_, len) => {
            let len = usize::try_from(*len).unwrap_or(0);
            column_weight(
                column.as_fixed_size_list().values().as_ref(),
                rows.start * len..rows.end * len,
            )
        }
        DataType::Struct(_) => column
            .as_struct()
            .columns()
            .iter()
            .map(|column| column_weight(column.as_ref(), rows.clone()))
            .sum(),
        DataType::Dictionary(keys, _) => {
            each(keys.primitive_width().unwrap_or(0)) + dictionary_values(column, rows)
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => runs(column.as_run::<Int16Type>(), rows),
            DataType::Int32 => runs(column.as_run::<Int32Type>(), rows),
            _ => runs(column.as_run::<Int64Type>(), rows),
        },
        DataType::ListView(_) => {
            let list = column.as_list_view::<i32>();
            each(8) + listed(list.value_sizes(), list.values().as_ref(), &rows)
        }
        DataType::LargeListView(_) => {
            let list = column.as_list_view::<i64>();
            each(16) + listed(list.value_sizes(), list.values().as_ref(), &rows)
        }
        other => match other.primitive_width() {
            Some(width) => each(width.max(VALUE_BYTES)),
            // Unions: every row counts an equal share.
            None => {
                (column.get_buffer_memory_size() as u64).saturating_mul(count)
                    / column.len().max(1) as u64
            }
        },
    }
}

/// Size of a float32 in bytes.
const VALUE_BYTES: usize = 4;

/// The weight of one value of a column in bytes; 0 for a position beyond its end.
fn value_weight(values: &dyn Array, at: usize) -> u64 {
    if at < values.len() {
        column_weight(values, at..at + 1)
    } else {
        0
    }
}

/// The weight of the dictionary values that these rows refer to.
fn dictionary_values(column: &dyn Array, rows: Range<usize>) -> u64 {
    let part = column.slice(rows.start, rows.len());
    let dictionary = part.as_any_dictionary();
    if dictionary.values().is_empty() {
        return 0;
    }
    dictionary
        .normalized_keys()
        .into_iter()
        .map(|key| value_weight(dictionary.values().as_ref(), key))
        .sum()
}

/// The weight of the values of these rows of a run-end encoded column.
fn runs<R: RunEndIndexType>(column: &RunArray<R>, rows: Range<usize>) -> u64 {
    let (mut at, mut sum) = (rows.start, 0_u64);
    while at < rows.end {
        let run = column.get_physical_index(at);
        let ends = column.run_ends();
        let end = ends
            .values()
            .get(run)
            .map_or(rows.end, |end| end.as_usize().saturating_sub(ends.offset()));
        let end = end.clamp(at + 1, rows.end);
        sum = sum.saturating_add(
            value_weight(column.values().as_ref(), run).saturating_mul((end - at) as u64),
        );
        at = end;
    }
    sum
}

/// The weight of the values of these lists, at the average weight of a value.
fn listed<O: OffsetSizeTrait>(sizes: &[O], values: &dyn Array, rows: &Range<usize>) -> u64 {
    let referenced: u64 = sizes[rows.clone()]
        .iter()
        .map(|size| size.as_usize() as u64)
        .sum();
    let all = column_weight(values, 0..values.len());
    u64::try_from(u128::from(referenced) * u128::from(all) / values.len().max(1) as u128)
        .unwrap_or(u64::MAX)
}

fn inside<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

fn spanned<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> u64 {
    inside(offsets, rows).len() as u64
}

/// The bytes outside of the views. The lower 32 bits of a view are its length; a value of up to 12
/// bytes is stored in the view itself.
fn viewed(views: &[u128]) -> u64 {
    views
        .iter()
        .map(|&view| (view & 0xffff_ffff) as u64)
        .filter(|&len| len > 12)
        .sum()
}

#[cfg(test)]
mod tests;
