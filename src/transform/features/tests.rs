//! Unit tests of the module `features`.

#![allow(clippy::unwrap_used)]

use arrow::array::{BooleanArray, Float32Array, Int64Array, LargeListArray, ListArray};
use arrow::datatypes::{Float32Type, Int32Type};
use expect_test::{Expect, expect};

use super::super::testing::{batch, faults, floats, of, part, reasons, run, strings};
use super::*;

fn vectors(batch: &Batch) -> &[f32] {
    fixed_values(batch.records.column_by_name("features").unwrap()).unwrap()
}

fn mixed() -> Batch {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(3), Some(4)]),
        Some(vec![Some(5), Some(6)]),
    ]);
    batch([
        ("name", strings(&["a", "b", "c"])),
        ("n", Arc::new(Int64Array::from(vec![10, 20, 30]))),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![true, false, true])),
        ),
        ("list", Arc::new(lists)),
    ])
}

#[test]
fn numbers_booleans_and_lists_follow_the_order_of_options() {
    let (out, rejects) =
        run::<FeaturesConfig>(r#"{"columns": ["flag", "list", "n"], "width": 4}"#, mixed());
    assert_eq!(
        vectors(&out),
        [
            1.0, 1.0, 2.0, 10.0, 0.0, 3.0, 4.0, 20.0, 1.0, 5.0, 6.0, 30.0
        ]
    );
    let names: Vec<_> = out
        .records
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(names, ["name", "features"]);
    assert!(rejects.is_empty());
    let (kept, _) =
        run::<FeaturesConfig>(r#"{"columns": ["n"], "keep": true, "to": "v"}"#, mixed());
    assert_eq!(kept.records.num_columns(), 5);
}

#[test]
fn scaling_is_computed_in_float64() {
    let input = batch([
        ("a", floats(&[1e9 + 1.0, 1e9 - 1.0])),
        ("b", floats(&[5.0, 7.0])),
    ]);
    let standard =
        r#"{"columns": ["a", "b"], "scaling": "standard", "mean": [1e9, 5], "std": [2, 4]}"#;
    assert_eq!(
        vectors(&run::<FeaturesConfig>(standard, input.clone()).0),
        [0.5, 0.0, -0.5, 0.5]
    );
    let min_max = r#"{"columns": ["b", "a"], "scaling": "min_max",
            "min": [5, 999999999], "max": [6, 1000000001]}"#;
    assert_eq!(
        vectors(&run::<FeaturesConfig>(min_max, input).0),
        [0.0, 1.0, 2.0, 0.0]
    );
}

#[test]
fn vector_column_is_reused_without_copy() {
    let column = fixed_column(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    let input = of([(vector_field("x", 2), column)]);
    let before = fixed_values(input.records.column(0)).unwrap().as_ptr();
    let (out, _) = run::<FeaturesConfig>(r#"{"columns": ["x"]}"#, input);
    assert_eq!(vectors(&out).as_ptr(), before);
    assert_eq!(vectors(&out), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn records_with_missing_values_are_rejected_by_column() {
    let lists = LargeListArray::from_iter_primitive::<Float32Type, _, _>([
        Some(vec![Some(1.0), Some(2.0)]),
        None,
        Some(vec![Some(3.0)]),
        Some(vec![Some(4.0), None]),
        Some(vec![Some(5.0), Some(6.0)]),
        Some(vec![Some(7.0), Some(f32::NAN)]),
        Some(vec![Some(8.0), Some(9.0)]),
    ]);
    let x = Float32Array::from(vec![
        None,
        Some(0.0),
        Some(0.0),
        Some(0.0),
        Some(1e38),
        Some(0.0),
        Some(0.5),
    ]);
    let input = batch([("x", Arc::new(x)), ("list", Arc::new(lists))]);
    let scaling = r#""scaling": "standard", "mean": [0, 0, 0], "std": [0.01, 1, 1]"#;
    let (out, rejects) = run::<FeaturesConfig>(
        &format!(r#"{{"columns": ["x", "list"], {scaling}}}"#),
        input,
    );
    assert_eq!(vectors(&out), [50.0, 8.0, 9.0]);
    assert_eq!(out.row_ordinals, [6]);
    expect![[r#"
            0: missing: `x` is null
            1: missing: `list` is null
            2: mismatch: `list` has 1 values, not 2
            3: missing: `list` holds a null
            4: not_finite: `x` is not a finite number (value 0 of the vector is inf)
            5: not_finite: `list` is not a finite number (value 2 of the vector is NaN)"#]]
    .assert_eq(&reasons(&rejects));
}

#[test]
fn vector_column_rejects_records_with_nulls_or_infinity() {
    let item = Arc::new(Field::new("element", DataType::Float32, true));
    let values = Float32Array::from(vec![
        Some(1.0),
        Some(2.0),
        None,
        Some(4.0),
        Some(f32::INFINITY),
        Some(6.0),
    ]);
    let column = FixedSizeListArray::try_new(item, 2, Arc::new(values), None).unwrap();
    let (out, rejects) =
        run::<FeaturesConfig>(r#"{"columns": ["x"]}"#, batch([("x", Arc::new(column))]));
    assert_eq!(
        (vectors(&out), out.row_ordinals.as_slice()),
        (&[1.0, 2.0][..], &[0][..])
    );
    expect![[r#"
            1: missing: `x` holds a null
            2: not_finite: `x` is not a finite number (value 0 of the vector is inf)"#]]
    .assert_eq(&reasons(&rejects));
}

#[test]
fn empty_batch_has_the_planned_schema() {
    for options in [
        r#"{"columns": ["n", "list"], "width": 3}"#,
        r#"{"columns": ["n"]}"#,
    ] {
        let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 0, 0));
        assert_eq!(out.records.num_rows(), 0);
    }
}

#[test]
fn slice_of_a_batch_has_the_vectors_of_its_rows() {
    let options = r#"{"columns": ["list", "n"], "width": 3}"#;
    let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 1, 3));
    assert_eq!(vectors(&out), [3.0, 4.0, 20.0, 5.0, 6.0, 30.0]);
}

#[test]
fn model_card_defines_columns_and_scaling() {
    let scaling = Scaling::Standard {
        mean: vec![20.0],
        std: vec![10.0],
    };
    let card = FeatureInput {
        columns: vec!["n".to_owned()],
        scaling,
        encoder: None,
    };
    let selected = FeaturesConfig::default().for_model(&card).unwrap();
    let mut faults = Vec::new();
    let plan = FeaturesTransform::new(
        &FeaturesConfig::default(),
        &mixed().records.schema(),
        selected,
        &mut faults,
    )
    .unwrap();
    let out = plan
        .build()
        .unwrap()
        .apply(mixed(), &mut RejectCollector::default())
        .unwrap();
    assert_eq!((vectors(&out), faults), (&[-1.0, 0.0, 1.0][..], vec![]));
    let both = FeaturesConfig {
        columns: vec!["n".to_owned()],
        ..FeaturesConfig::default()
    };
    assert_eq!(
        both.for_model(&card).unwrap_err(),
        "the model card lists the columns; leave out `columns` or `model`"
    );
    let bare = FeatureInput {
        columns: vec![],
        ..card
    };
    assert_eq!(both.for_model(&bare).unwrap().columns, ["n"]);
}

#[test]
fn missing_column_of_the_model_is_a_fault_at_model() {
    let card = FeatureInput {
        columns: vec!["duration".to_owned()],
        scaling: Scaling::None,
        encoder: None,
    };
    let mut faults = Vec::new();
    FeaturesTransform::new(
        &FeaturesConfig::default(),
        &mixed().records.schema(),
        card,
        &mut faults,
    );
    let expected = ConfigError::new(
        "model",
        "no column `duration`; the input has: name, n, flag, list",
    );
    assert_eq!(faults, [expected]);
}

#[test]
fn faults_of_options_are_reported_by_key() {
    let check = |options: &str, expected: Expect| {
        expected.assert_eq(&faults::<FeaturesConfig>(options, &mixed()))
    };
    check(
        "{}",
        expect!["columns: no column is selected; list the numeric columns of the vector"],
    );
    check(
        r#"{"columns": ["name", "m", "n", "n", "list"], "mean": [1], "to": "n"}"#,
        expect![[r#"
            mean: has no effect without scaling = "standard"
            columns: column `name` holds Utf8, not numbers; add a rule with `encoding` for categories
            columns: no column `m`; the input has: name, n, flag, list
            columns: column `n` is listed twice
            columns: lists without a fixed length: list; set `width`, for one such column only"#]],
    );
    check(
        r#"{"columns": ["n"], "scaling": "standard", "mean": [1, 2], "std": [0]}"#,
        expect![[r#"
                mean: `mean` and `std` require one number per value; met 2 and 1
                std: must be above 0; for a column that never changes, write 1
                columns: the number of values in the columns is 1, but that of the scaling is 2"#]],
    );
    check(
        r#"{"columns": ["n", "flag"], "scaling": "min_max", "min": [0], "max": [0],
                "width": 3, "to": "name"}"#,
        expect![[r#"
                max: must be above `min`; for a column that never changes, write min + 1
                width: is 3, but the number of values in the columns is 2
                columns: the number of values in the columns is 2, but that of the scaling is 1
                to: the input already has a column `name`; choose another name"#]],
    );
    check(
        r#"{"model": "kdd", "scaling": "none"}"#,
        expect![[r#"
                scaling: the model already defines the scaling of its input; leave this out
                model: no model `kdd`: the pipeline declares none; add [models.kdd]"#]],
    );
}
