//! Unit tests of the module `filter`.

#![allow(clippy::unwrap_used)]

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float32Array, Float64Array, Int8Array, Int64Array,
    LargeStringArray, StringArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use expect_test::{Expect, expect};

use super::super::testing::{batch, faults, floats, part, run, strings};
use super::*;

/// The ordinals of the records that satisfy the comparison.
fn kept(column: ArrayRef, comparison: &str) -> Vec<u32> {
    let (out, rejects) = run::<FilterConfig>(
        &format!(r#"{{"column": "x", {comparison}}}"#),
        batch([("x", column)]),
    );
    assert!(rejects.is_empty(), "a filter does not reject records");
    out.row_ordinals
}

#[test]
fn each_comparison_keeps_the_records_that_satisfy_it() {
    let x = || floats(&[1.0, 2.0, 3.0]);
    assert_eq!(kept(x(), r#""above": 2"#), [2]);
    assert_eq!(kept(x(), r#""at_least": 2.0"#), [1, 2]);
    assert_eq!(kept(x(), r#""below": 2"#), [0]);
    assert_eq!(kept(x(), r#""at_most": 2"#), [0, 1]);
    assert_eq!(kept(x(), r#""equals": 2"#), [1]);
    assert_eq!(kept(x(), r#""not_equals": 2"#), [0, 2]);
}

#[test]
fn strings_booleans_and_integers_are_compared_exactly() {
    assert_eq!(
        kept(strings(&["tcp", "udp", "tcp"]), r#""equals": "tcp""#),
        [0, 2]
    );
    assert_eq!(
        kept(
            Arc::new(LargeStringArray::from(vec!["a", "b"])),
            r#""not_equals": "a""#
        ),
        [1]
    );
    let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    assert_eq!(kept(Arc::new(words), r#""equals": "a""#), [0, 2]);
    assert_eq!(
        kept(
            Arc::new(BooleanArray::from(vec![true, false])),
            r#""equals": false"#
        ),
        [1]
    );
    let ids = Int64Array::from(vec![9_007_199_254_740_993, 9_007_199_254_740_992]);
    assert_eq!(kept(Arc::new(ids), r#""equals": 9007199254740993"#), [0]);
    assert_eq!(
        kept(
            Arc::new(UInt64Array::from(vec![u64::MAX, 1])),
            r#""above": 18446744073709551614"#
        ),
        [0]
    );
}

#[test]
fn number_is_rounded_to_the_type_of_the_column() {
    let x: ArrayRef = Arc::new(Float32Array::from(vec![0.1, 0.2]));
    assert_eq!(kept(Arc::clone(&x), r#""equals": 0.1"#), [0]);
    assert_eq!(kept(x, r#""above": 0.1"#), [1]);
}

#[test]
fn nulls_are_dropped_and_nan_satisfies_only_not_equals() {
    let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0)]));
    assert_eq!(kept(Arc::clone(&x), r#""above": -1"#), [2]);
    assert_eq!(kept(Arc::clone(&x), r#""at_least": 0"#), [2]);
    assert_eq!(kept(x, r#""not_equals": 5"#), [0, 2]);
    let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    assert_eq!(kept(words, r#""not_equals": "b""#), [0]);
}

#[test]
fn empty_batch_stays_empty() {
    let empty = part(&batch([("x", floats(&[1.0]))]), 0, 0);
    let (out, _) = run::<FilterConfig>(r#"{"column": "x", "above": 0}"#, empty);
    assert_eq!(out.records.column(0).len(), 0);
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let int8: ArrayRef = Arc::new(Int8Array::from(vec![1]));
    let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let time: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![1]));
    let input = batch([
        ("error", floats(&[1.0])),
        ("n", int8),
        ("name", strings(&["a"])),
        ("ok", flag),
        ("t", time),
    ]);
    let check = |options: &str, expected: Expect| {
        expected.assert_eq(&faults::<FilterConfig>(options, &input))
    };
    check(
        r#"{"column": "eror"}"#,
        expect![
            "column: no column `eror` (did you mean `error`?); the input has: error, n, name, \
                 ok, t\n\
                 (stage): a comparison is missing; set one of above, at_least, below, at_most, \
                 equals, not_equals"
        ],
    );
    check(
        r#"{"column": "n", "above": 1, "below": 5}"#,
        expect![
            "below: is a second comparison; a filter has exactly one, so add another filter \
                 stage"
        ],
    );
    check(
        r#"{"column": "n", "above": 1.5}"#,
        expect!["above: the column holds Int8, but `above` is 1.5; compare it with an integer"],
    );
    check(
        r#"{"column": "n", "equals": 300}"#,
        expect!["equals: 300 is out of range for the type of the column, Int8"],
    );
    check(
        r#"{"column": "name", "above": "a"}"#,
        expect!["above: the column holds Utf8, but `above` compares numbers"],
    );
    check(
        r#"{"column": "ok", "equals": 1}"#,
        expect![
            "equals: the column holds Boolean, but `equals` is 1; compare it with true or false"
        ],
    );
    check(
        r#"{"column": "error", "above": "high"}"#,
        expect![
            "above: the column holds Float64, but `above` is \"high\"; compare it with a number"
        ],
    );
    check(
        r#"{"column": "t", "equals": 1}"#,
        expect![
            "equals: the column holds Date32, but only numbers, strings and booleans can be \
                 compared"
        ],
    );
}
