//! Cuts record batches to the size that batches may have.

use std::ops::Range;

use arrow::array::{Array, AsArray, OffsetSizeTrait, RecordBatch};
use arrow::datatypes::DataType;

/// How many records, and how many bytes of Arrow memory, travel together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// At most so many records.
    pub(super) records: usize,
    /// At most so many bytes; a single larger record travels alone.
    pub(super) bytes: u64,
}

impl Cut {
    /// The parts of `rows` rows, in order: `records` at a time, halved until each weighs at most `bytes`.
    pub(super) fn parts(self, rows: usize, weigh: &dyn Fn(Range<usize>) -> u64) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        for start in (0..rows).step_by(self.records.max(1)) {
            self.halve(start..rows.min(start + self.records), weigh, &mut parts);
        }
        parts
    }

    fn halve(self, rows: Range<usize>, weigh: &dyn Fn(Range<usize>) -> u64, parts: &mut Vec<Range<usize>>) {
        if rows.len() <= 1 || weigh(rows.clone()) <= self.bytes {
            return parts.push(rows);
        }
        let middle = rows.start + rows.len() / 2;
        self.halve(rows.start..middle, weigh, parts);
        self.halve(middle..rows.end, weigh, parts);
    }
}

/// Bytes of Arrow memory that these rows take, without what they share (dictionaries).
pub(super) fn weight(records: &RecordBatch, rows: Range<usize>) -> u64 {
    records.columns().iter().map(|column| column_weight(column.as_ref(), rows.clone())).sum()
}

fn column_weight(column: &dyn Array, rows: Range<usize>) -> u64 {
    let count = rows.len() as u64;
    let each = |width: usize| width as u64 * count;
    match column.data_type() {
        DataType::Null => 0,
        DataType::Boolean => count.div_ceil(8),
        DataType::Utf8 => each(4) + spanned(column.as_string::<i32>().value_offsets(), &rows),
        DataType::Binary => each(4) + spanned(column.as_binary::<i32>().value_offsets(), &rows),
        DataType::LargeUtf8 => each(8) + spanned(column.as_string::<i64>().value_offsets(), &rows),
        DataType::LargeBinary => each(8) + spanned(column.as_binary::<i64>().value_offsets(), &rows),
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
            column_weight(column.as_fixed_size_list().values().as_ref(), rows.start * len..rows.end * len)
        }
        DataType::Struct(_) => {
            column.as_struct().columns().iter().map(|column| column_weight(column.as_ref(), rows.clone())).sum()
        }
        DataType::Dictionary(keys, _) => each(keys.primitive_width().unwrap_or(0)),
        other => match other.primitive_width() {
            Some(width) => each(width),
            // Unions, run-end encodings, list views: every row an equal share.
            None => (column.get_buffer_memory_size() as u64).saturating_mul(count) / column.len().max(1) as u64,
        },
    }
}

fn inside<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

fn spanned<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> u64 {
    inside(offsets, rows).len() as u64
}

/// The lower half of a view is its length; up to 12 bytes lie in the view itself.
fn viewed(views: &[u128]) -> u64 {
    views.iter().map(|&view| (view & 0xffff_ffff) as u64).filter(|&len| len > 12).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, ListArray, StringArray};
    use arrow::datatypes::Float32Type;

    use super::*;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("c", column)]).unwrap()
    }

    #[test]
    fn parts_keep_both_limits_and_a_large_record_travels_alone() {
        let texts = batch(Arc::new(StringArray::from(vec!["a", "b", "cccccccccccccccccccc", "d", "e", "f"])));
        let cut = Cut { records: 4, bytes: 11 };
        assert_eq!(cut.parts(6, &|rows| weight(&texts, rows)), [0..2, 2..3, 3..4, 4..6]);
    }

    #[test]
    fn slices_of_lists_weigh_what_they_hold() {
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>(
            [1, 5, 2].map(|len| Some((0..len).map(|_| Some(0.0)).collect::<Vec<_>>())),
        );
        let lists = batch(Arc::new(lists));
        assert_eq!(weight(&lists, 1..2), 4 + 20);
        assert_eq!(weight(&lists.slice(1, 2), 1..2), 4 + 8);
        assert_eq!(weight(&batch(Arc::new(Float32Array::from(vec![0.0; 9]))), 2..4), 8);
    }
}
