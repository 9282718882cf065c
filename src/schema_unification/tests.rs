//! Unit tests of the module `schema_unification`.

#![allow(clippy::unwrap_used)]

use DataType::{
    Boolean, Date32, Date64, Decimal128, Dictionary, Duration, Float16, Float32, Float64, Int8,
    Int16, Int32, Int64, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
    Utf8, Utf8View,
};
use arrow::datatypes::TimeUnit;

use super::*;
use crate::tensor::{tensor_field, vector_field};

fn both(one: &DataType, other: &DataType) -> Option<DataType> {
    let unified = unify_types(one, other);
    assert_eq!(unified, unify_types(other, one), "{one} and {other}");
    unified
}

#[test]
fn numbers_unify_to_the_wider_type() {
    for (one, other, expected) in [
        (Int32, Int64, Int64),
        (UInt8, Int8, Int16),
        (UInt32, Int8, Int64),
        (UInt64, Int64, Int64),
        (UInt16, UInt32, UInt32),
        (Float32, Float64, Float64),
        (Float16, Int8, Float16),
        (Float16, Int16, Float32),
        (Float32, Int32, Float64),
        (Float64, UInt64, Float64),
        (Decimal128(5, 2), Decimal128(7, 1), Decimal128(8, 2)),
        (Decimal128(5, 2), Int64, Decimal128(21, 2)),
        (Null, Float32, Float32),
    ] {
        assert_eq!(both(&one, &other), Some(expected), "{one} and {other}");
    }
}

#[test]
fn layouts_units_and_dictionaries_unify() {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let large =
        |item: DataType| DataType::LargeListView(Arc::new(Field::new_list_field(item, false)));
    let words = |key: DataType| Dictionary(Box::new(key), Box::new(Utf8));
    let nanos = Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    for (one, other, expected) in [
        (Utf8, Utf8View, Utf8),
        (Utf8View, LargeUtf8, LargeUtf8),
        (words(Int8), words(Int16), Utf8),
        (words(Int8), LargeUtf8, LargeUtf8),
        (
            list(Int32),
            large(Int64),
            DataType::LargeList(Arc::new(Field::new_list_field(Int64, true))),
        ),
        (
            Timestamp(TimeUnit::Second, Some("UTC".into())),
            nanos.clone(),
            nanos.clone(),
        ),
        (
            Time32(TimeUnit::Second),
            Time64(TimeUnit::Microsecond),
            Time64(TimeUnit::Microsecond),
        ),
        (
            Duration(TimeUnit::Second),
            Duration(TimeUnit::Millisecond),
            Duration(TimeUnit::Millisecond),
        ),
        (Date32, Date64, Date64),
    ] {
        assert_eq!(both(&one, &other), Some(expected), "{one} and {other}");
    }
}

#[test]
fn types_of_different_meaning_conflict() {
    let zoned = |zone: &str| Timestamp(TimeUnit::Second, Some(zone.into()));
    for (one, other) in [
        (Int64, Utf8),
        (Boolean, Int8),
        (Decimal128(5, 2), Float64),
        (zoned("UTC"), Timestamp(TimeUnit::Second, None)),
        (zoned("UTC"), zoned("+01:00")),
        (Date32, Timestamp(TimeUnit::Second, None)),
        (
            vector_field("v", 3).data_type().clone(),
            vector_field("v", 4).data_type().clone(),
        ),
    ] {
        assert_eq!(both(&one, &other), None, "{one} and {other}");
    }
}

#[test]
fn schemas_unify_by_name_and_absent_columns_become_nullable() {
    let id = |data_type: DataType| {
        Field::new("id", data_type, false).with_metadata([("PARQUET:field_id", "7")])
    };
    let mut unified = UnifiedSchema::default();
    let first = Schema::new(vec![id(Int32), Field::new("x", Float32, false)]);
    unified.add(&first).unwrap();
    assert_eq!(unified.fields(), first.fields().to_vec());
    let second = Schema::new(vec![
        Field::new("y", Utf8, false),
        Field::new("id", Int64, false),
    ]);
    unified.add(&second).unwrap();
    let expected = [
        id(Int64),
        Field::new("x", Float32, true),
        Field::new("y", Utf8, true),
    ];
    assert_eq!(unified.fields(), expected.map(Arc::new));
    let before = unified.fields().to_vec();
    let conflict = unified
        .add(&Schema::new(vec![
            Field::new("z", Int8, true),
            Field::new("y", Boolean, true),
        ]))
        .unwrap_err();
    assert_eq!(conflict.to_string(), "column `y` is Boolean; expected Utf8");
    assert_eq!(unified.fields(), before);
}

#[test]
fn structs_unify_by_the_names_of_their_fields() {
    let of = |fields: Vec<Field>| DataType::Struct(fields.into());
    let one = of(vec![Field::new("a", Int8, false)]);
    let other = of(vec![
        Field::new("b", Int8, false),
        Field::new("a", Int16, false),
    ]);
    assert_eq!(
        unify_types(&one, &other),
        Some(of(vec![
            Field::new("a", Int16, false),
            Field::new("b", Int8, true)
        ]))
    );
}

#[test]
fn structs_with_two_fields_of_a_name_conflict() {
    let of = |count: usize, data_type: DataType| {
        DataType::Struct(vec![Field::new("a", data_type, true); count].into())
    };
    assert_eq!(both(&of(2, Int8), &of(1, Int64)), None);
    assert_eq!(both(&of(2, Int8), &of(2, Int8)), Some(of(2, Int8)));
}

#[test]
fn metadata_with_a_meaning_must_be_the_same() {
    let tensor = |shape: &[usize]| tensor_field("t", shape).unwrap();
    let conflict = unify_fields(&tensor(&[3, 4]), &tensor(&[4, 3])).unwrap_err();
    assert!(conflict.found.contains(r#"{"shape":[4,3]}"#), "{conflict}");
    assert!(unify_fields(&tensor(&[3, 4]), &vector_field("t", 12)).is_err());
    let spaced = vector_field("t", 12).with_metadata([
        (EXTENSION_TYPE_NAME_KEY, "arrow.fixed_shape_tensor"),
        (
            EXTENSION_TYPE_METADATA_KEY,
            r#"{"dim_names": null, "shape": [3, 4]}"#,
        ),
    ]);
    assert_eq!(unify_fields(&tensor(&[3, 4]), &spaced), Ok(tensor(&[3, 4])));
    let null = Field::new("t", Null, true);
    assert_eq!(
        unify_fields(&null, &tensor(&[2])),
        Ok(tensor(&[2]).with_nullable(true))
    );
}
