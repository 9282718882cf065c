//! Unit tests of the module `batch_limits`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float32Array, Int32Array, ListArray, NullArray, StringArray,
};
use arrow::datatypes::Float32Type;

use super::*;

fn batch(column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("c", column)]).unwrap()
}

#[test]
fn parts_keep_both_limits_and_a_large_record_is_alone() {
    let texts = batch(Arc::new(StringArray::from(vec![
        "a",
        "b",
        "cccccccccccccccccccc",
        "d",
        "e",
        "f",
    ])));
    let cut = BatchLimits {
        records: 4,
        bytes: 11,
        soft_max_records: 4,
    };
    assert_eq!(
        cut.split(6, &|rows| arrow_bytes(&texts, rows)),
        [0..2, 2..3, 3..4, 4..6]
    );
}

#[test]
fn batches_of_small_records_exceed_the_soft_maximum() {
    let cut = BatchLimits {
        records: 8,
        bytes: 4 * SMALL,
        soft_max_records: 2,
    };
    let parts = |each: u64| cut.split(8, &move |rows| each * rows.len() as u64);
    let lengths = |each: u64| parts(each).iter().map(Range::len).collect::<Vec<_>>();
    for (each, expected) in [
        (1, vec![8]),
        (SMALL / 4, vec![4, 4]),
        (SMALL, vec![2; 4]),
        (3 * SMALL, vec![1; 8]),
    ] {
        assert_eq!(lengths(each), expected);
        assert_eq!(cut.records_of(each), expected[0] as u64);
    }
}

#[test]
fn configured_number_of_images_has_no_soft_maximum() {
    let configured = BatchSize {
        records: std::num::NonZeroU32::new(100),
        ..BatchSize::default()
    };
    let lengths =
        |batch| [1 << 10, 1 << 18].map(|bytes| BatchLimits::images(batch).records_of(bytes));
    assert_eq!(lengths(configured), [100, 100]);
    assert_eq!(
        lengths(BatchSize::default()),
        [u64::from(IMAGE_RECORDS), 32]
    );
}

#[test]
fn shared_values_count_once_per_use() {
    let word = "a word of twenty chars".to_owned();
    let words: DictionaryArray<Int32Type> = vec![Some(word.as_str()), None, Some(word.as_str())]
        .into_iter()
        .collect();
    assert_eq!(
        arrow_bytes(&batch(Arc::new(words)), 0..3),
        3 * 4 + 3 * (4 + 22),
        "a key, an offset and the word"
    );
    let values = StringArray::from(vec!["abc", "defghij"]);
    let runs = RunArray::try_new(&Int32Array::from(vec![10, 30]), &values).unwrap();
    let runs = batch(Arc::new(runs));
    assert_eq!(arrow_bytes(&runs, 0..30), 10 * (4 + 3) + 20 * (4 + 7));
    assert_eq!(arrow_bytes(&runs, 8..12), 2 * (4 + 3) + 2 * (4 + 7));
    assert_eq!(
        arrow_bytes(&runs.slice(5, 10), 0..10),
        5 * (4 + 3) + 5 * (4 + 7)
    );
    assert_eq!(
        arrow_bytes(&batch(Arc::new(NullArray::new(100))), 0..100),
        400,
        "a missing value becomes a float32"
    );
}

#[test]
fn slices_of_lists_count_only_their_values() {
    let lists = ListArray::from_iter_primitive::<Float32Type, _, _>(
        [1, 5, 2].map(|len| Some((0..len).map(|_| Some(0.0)).collect::<Vec<_>>())),
    );
    let lists = batch(Arc::new(lists));
    assert_eq!(arrow_bytes(&lists, 1..2), 4 + 20);
    assert_eq!(arrow_bytes(&lists.slice(1, 2), 1..2), 4 + 8);
    assert_eq!(
        arrow_bytes(&batch(Arc::new(Float32Array::from(vec![0.0; 9]))), 2..4),
        8
    );
}
