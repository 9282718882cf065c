//! Unit tests of the module `cast_size`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{
    BinaryArray, DictionaryArray, FixedSizeListArray, Float64Array, Int8Array, Int32Array,
    ListArray, NullArray, StringArray, StringViewArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;

use super::*;

fn targets() -> [DataType; 6] {
    let list = DataType::new_list(DataType::Float64, true);
    [
        DataType::Float64,
        DataType::Int64,
        DataType::Boolean,
        DataType::Utf8,
        DataType::Binary,
        list,
    ]
}

fn columns() -> Vec<ArrayRef> {
    let text = "a text of some length, which is repeated".repeat(20);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", text.as_str()]));
    let keys = Int8Array::from_iter_values((0..1000).map(|row| i8::from(row % 2 == 0)));
    let dictionary = DictionaryArray::new(keys, Arc::clone(&texts));
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![10, 5000]), &texts).unwrap();
    let nulls: ArrayRef = Arc::new(NullArray::new(6000));
    let item = Arc::new(Field::new_list_field(DataType::Null, true));
    let lists = ListArray::new(
        Arc::clone(&item),
        OffsetBuffer::from_lengths([3000, 3000]),
        Arc::clone(&nulls),
        None,
    );
    let fixed = FixedSizeListArray::new(item, 3000, Arc::clone(&nulls), None);
    vec![
        nulls,
        Arc::new(dictionary),
        Arc::new(runs),
        Arc::new(lists),
        Arc::new(fixed),
        Arc::new(StringViewArray::from(vec![text.as_str(); 500])),
        Arc::new(BinaryArray::from(vec![text.as_bytes(); 50])),
        Arc::new(Float64Array::from(vec![1.0e-300; 100])),
        Arc::new(Int8Array::from(vec![-7; 1000])),
        texts,
    ]
}

#[test]
fn cast_size_is_an_upper_bound_of_the_allocation() {
    let mut casts = 0;
    for column in columns() {
        for target in targets() {
            let (Ok(size), Ok(cast)) = (cast_size(&column, &target), cast(&column, &target)) else {
                continue;
            };
            casts += 1;
            // Columns and lists of the same type share their values.
            let is_shared = *column.data_type() == target
                || matches!(
                    &target,
                    DataType::List(item) if item.data_type() == column.data_type()
                );
            let kept = if is_shared {
                column.get_buffer_memory_size()
            } else {
                0
            };
            let taken = cast
                .to_data()
                .get_slice_memory_size()
                .unwrap()
                .saturating_sub(kept) as u64;
            assert!(
                size >= taken,
                "{} to {target}: {size} < {taken}",
                column.data_type()
            );
        }
    }
    assert!(casts > 30, "{casts}");
}

#[test]
fn cast_size_of_repeated_text_is_close_to_the_allocation() {
    let all = columns();
    let long = 40 * 20;
    let dictionary = cast_size(&all[1], &DataType::Utf8).unwrap();
    assert!(
        (500 * long..500 * long + 40_000).contains(&dictionary),
        "{dictionary}"
    );
    let runs = cast_size(&all[2], &DataType::Utf8).unwrap();
    assert!(
        (4990 * long..4990 * long + 100_000).contains(&runs),
        "{runs}"
    );
}

#[test]
fn cast_size_of_declared_lengths_allocates_nothing() {
    let nulls: ArrayRef = Arc::new(NullArray::new(usize::MAX / 2));
    assert!(cast_size(&nulls, &DataType::Float64).unwrap() >= 1 << 60);
    let structs = DataType::Struct(vec![Field::new("a", DataType::Null, true)].into());
    let column = arrow::array::new_null_array(&structs, 3);
    assert!(cast_size(&column, &DataType::Utf8).is_err());
}
