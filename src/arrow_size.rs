//! Size of records in Arrow memory. Slices and views count only the values that they show, not the
//! buffers behind them.

use std::sync::Arc;

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, GenericByteViewArray, OffsetSizeTrait,
    RecordBatch,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ByteViewType, DataType};

/// The size of all columns in bytes. The same rows have the same size, independent of the arrays
/// that they were sliced from.
pub fn record_bytes(records: &RecordBatch) -> u64 {
    records.columns().iter().map(array_bytes).sum()
}

/// The maximum number of leading rows of `records` that have at most `room` bytes together, which
/// may be zero.
pub(crate) fn rows_that_fit(records: &RecordBatch, room: u64) -> usize {
    if record_bytes(records) <= room {
        return records.num_rows();
    }
    let (mut fits, mut exceeds) = (0, records.num_rows());
    while fits + 1 < exceeds {
        let middle = fits.midpoint(exceeds);
        if record_bytes(&records.slice(0, middle)) <= room {
            fits = middle;
        } else {
            exceeds = middle;
        }
    }
    fits
}

fn array_bytes(array: &ArrayRef) -> u64 {
    let rows = wide(array.len());
    let validity = if array.nulls().is_some() {
        rows.div_ceil(8)
    } else {
        0
    };
    let values = match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 => shown(array.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => shown(array.as_string::<i64>().offsets()),
        DataType::Binary => shown(array.as_binary::<i32>().offsets()),
        DataType::LargeBinary => shown(array.as_binary::<i64>().offsets()),
        DataType::Utf8View => view_bytes(array.as_string_view()),
        DataType::BinaryView => view_bytes(array.as_binary_view()),
        DataType::List(_) => list_bytes(
            array.as_list::<i32>().offsets(),
            array.as_list::<i32>().values(),
        ),
        DataType::LargeList(_) => list_bytes(
            array.as_list::<i64>().offsets(),
            array.as_list::<i64>().values(),
        ),
        DataType::Map(_, _) => {
            let entries: ArrayRef = Arc::new(array.as_map().entries().clone());
            list_bytes(array.as_map().offsets(), &entries)
        }
        DataType::FixedSizeList(_, _) => array_bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::Dictionary(_, _) => dictionary_bytes(array.as_any_dictionary()),
        DataType::FixedSizeBinary(width) => rows * u64::try_from(*width).unwrap_or(0),
        other => other
            .primitive_width()
            .map_or(wide(array.get_array_memory_size()), |width| {
                rows * wide(width)
            }),
    };
    values + validity
}

/// The size of the offsets, and of the bytes between the first and the last of them.
fn shown<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> u64 {
    let values = offsets[offsets.len() - 1].as_usize() - offsets[0].as_usize();
    wide(size_of_val(&**offsets)) + wide(values)
}

fn list_bytes<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> u64 {
    let (from, to) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    wide(size_of_val(&**offsets)) + array_bytes(&values.slice(from, to - from))
}

fn view_bytes<T: ByteViewType>(views: &GenericByteViewArray<T>) -> u64 {
    let long = views
        .lengths()
        .filter(|&length| length > 12)
        .map(u64::from)
        .sum::<u64>();
    wide(size_of_val(&**views.views())) + long
}

/// A dictionary counts as if it were expanded: each row counts its value.
fn dictionary_bytes(dictionary: &dyn AnyDictionaryArray) -> u64 {
    let values = dictionary.values();
    if values.is_empty() {
        return array_bytes(&dictionary.keys().slice(0, dictionary.len()));
    }
    let each: Vec<u64> = (0..values.len())
        .map(|place| array_bytes(&values.slice(place, 1)))
        .collect();
    dictionary
        .normalized_keys()
        .into_iter()
        .map(|key| each[key])
        .sum()
}

fn wide(size: usize) -> u64 {
    // No platform has a `usize` of more than 64 bits.
    size as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{DictionaryArray, Float32Array, StringArray, StringViewArray};
    use arrow::datatypes::{Int32Type, Schema};

    use super::*;
    use crate::tensor::{fixed_column, variable_column, variable_field, vector_field};

    fn records() -> RecordBatch {
        let shapes = vec![vec![1, 2], vec![2, 3], vec![1, 1], vec![4, 4]];
        let names = StringArray::from(vec!["a", "bcd", "", "a much longer name than the others"]);
        let words: DictionaryArray<Int32Type> = vec![Some("red"), None, Some("red"), Some("green")]
            .into_iter()
            .collect();
        let named_columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(names.clone())),
            ("view", Arc::new(names.iter().collect::<StringViewArray>())),
            ("word", Arc::new(words)),
            (
                "score",
                Arc::new(Float32Array::from(vec![
                    Some(1.0),
                    None,
                    Some(3.0),
                    Some(4.0),
                ])),
            ),
        ];
        let mut records = RecordBatch::try_from_iter_with_nullable(
            named_columns.into_iter().map(|(n, c)| (n, c, true)),
        )
        .unwrap();
        for (field, column) in [
            (
                vector_field("latent", 8),
                fixed_column(8, vec![0.5; 32]).unwrap(),
            ),
            (
                variable_field("pixels", 2).unwrap(),
                variable_column(2, vec![0.5; 25], &shapes).unwrap(),
            ),
        ] {
            let fields = records
                .schema()
                .fields()
                .iter()
                .cloned()
                .chain([Arc::new(field)])
                .collect::<Vec<_>>();
            let columns = records.columns().iter().cloned().chain([column]).collect();
            records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        }
        records
    }

    #[test]
    fn slice_has_the_size_of_a_copy_of_its_rows() {
        let records = records();
        for (from, len) in [(0, 4), (1, 2), (3, 1), (2, 0)] {
            let slice = records.slice(from, len);
            let rows = arrow::array::UInt32Array::from_iter_values(
                (from..from + len).map(|row| u32::try_from(row).unwrap()),
            );
            let copy = arrow::compute::take_record_batch(&records, &rows).unwrap();
            let (slice, copy) = (record_bytes(&slice), record_bytes(&copy));
            // A copy may lack a validity bitmap that it does not need: at most one byte per column.
            assert!(
                slice.abs_diff(copy) <= 4,
                "rows {from}..{}: {slice} and {copy}",
                from + len
            );
        }
    }

    #[test]
    fn vector_column_has_the_size_of_its_values() {
        let column = fixed_column(8, vec![0.5; 32]).unwrap();
        let records = RecordBatch::try_from_iter([("latent", column)]).unwrap();
        assert_eq!(record_bytes(&records), 32 * 4);
        assert_eq!(record_bytes(&records.slice(1, 2)), 16 * 4);
    }

    #[test]
    fn rows_that_fit_is_the_maximum_for_the_room() {
        let column = fixed_column(8, vec![0.5; 32]).unwrap();
        let records = RecordBatch::try_from_iter([("latent", column)]).unwrap();
        for (room, rows) in [
            (0, 0),
            (31, 0),
            (32, 1),
            (95, 2),
            (96, 3),
            (127, 3),
            (128, 4),
            (u64::MAX, 4),
        ] {
            assert_eq!(rows_that_fit(&records, room), rows, "room for {room} bytes");
        }
        assert_eq!(rows_that_fit(&records.slice(0, 0), 0), 0);
    }
}
