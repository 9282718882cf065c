//! Unit tests of the module `column_cast`.

#![allow(clippy::unwrap_used)]

use arrow::array::{
    Date32Array, Date64Array, DictionaryArray, Float64Array, Int8Array, Int32Array, Int64Array,
    ListArray, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int8Type, Int32Type, Int64Type, TimeUnit};

use super::*;

fn array(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

#[test]
fn numbers_are_cast_exactly_or_refused() {
    let exact = array(Int64Array::from(vec![Some(1 << 53), None, Some(-7)]));
    assert_eq!(
        *cast_column(&exact, &DataType::Float64).unwrap(),
        Float64Array::from(vec![Some(9_007_199_254_740_992.0), None, Some(-7.0)])
    );
    for inexact in [(1_i64 << 53) + 1, i64::MAX] {
        let inexact = array(Int64Array::from(vec![inexact]));
        assert!(cast_column(&inexact, &DataType::Float64).is_err());
    }
    let large = array(UInt64Array::from(vec![u64::MAX]));
    assert!(cast_column(&large, &DataType::Int64).is_err());
}

#[test]
fn times_are_cast_to_finer_units_or_refused() {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let millis = array(TimestampMillisecondArray::from(vec![1_500]));
    assert_eq!(
        *cast_column(&millis, &nanos).unwrap(),
        TimestampNanosecondArray::from(vec![1_500_000_000])
    );
    let far = array(TimestampSecondArray::from(vec![253_402_300_799]));
    assert!(cast_column(&far, &nanos).is_err());
}

#[test]
fn nested_values_are_cast_by_name_and_position() {
    let narrow = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![Some(3)]),
    ]);
    let tag = Field::new("tag", DataType::Utf8, true);
    let list = |item: DataType| DataType::LargeList(Arc::new(Field::new_list_field(item, true)));
    let narrow_field = Field::new("v", narrow.data_type().clone(), true);
    let own =
        array(StructArray::try_new(vec![narrow_field].into(), vec![array(narrow)], None).unwrap());
    let to = DataType::Struct(vec![tag, Field::new("v", list(DataType::Float64), true)].into());
    let wide = cast_column(&own.slice(1, 2), &to).unwrap();
    let wide = wide.as_struct();
    assert_eq!(wide.column(0).null_count(), 2);
    let lists = wide.column(1).as_list::<i64>();
    assert!(lists.is_null(0));
    assert_eq!(*lists.value(1), Float64Array::from(vec![3.0]));
}

#[test]
fn only_values_that_a_slice_shows_are_cast() {
    let far = (1_i64 << 53) + 1;
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(far)]),
        Some(vec![Some(2)]),
    ]);
    let floats = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    let second = cast_column(&array(lists.slice(1, 1)), &floats).unwrap();
    assert_eq!(
        *second.as_list::<i32>().value(0),
        Float64Array::from(vec![2.0])
    );
    assert!(cast_column(&array(lists.clone()), &floats).is_err());
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    let hidden = ListArray::try_new(
        Arc::clone(&item),
        lists.offsets().clone(),
        Arc::clone(lists.values()),
        Some(vec![false, true].into()),
    );
    let shown = cast_column(&array(hidden.unwrap()), &floats).unwrap();
    assert_eq!((shown.null_count(), shown.len()), (1, 2));
    let fixed = FixedSizeListArray::try_new(
        item,
        1,
        Arc::clone(lists.values()),
        Some(vec![false, true].into()),
    );
    let float = Arc::new(Field::new_list_field(DataType::Float64, true));
    let fixed_floats = DataType::FixedSizeList(float, 1);
    let shown_fixed = cast_column(&array(fixed.unwrap()), &fixed_floats).unwrap();
    assert_eq!((shown_fixed.null_count(), shown_fixed.len()), (1, 2));
    let parent = StructArray::try_new(
        vec![Field::new("a", DataType::Int64, true)].into(),
        vec![Arc::clone(lists.values())],
        Some(vec![false, true].into()),
    );
    let to = DataType::Struct(vec![Field::new("a", DataType::Float64, true)].into());
    let shown_parent = cast_column(&array(parent.unwrap()), &to).unwrap();
    assert_eq!(shown_parent.null_count(), 1);
}

#[test]
fn dates_are_whole_days() {
    let whole = array(Date64Array::from(vec![Some(-86_400_000), None]));
    assert_eq!(
        *cast_column(&whole, &DataType::Date32).unwrap(),
        Date32Array::from(vec![Some(-1), None])
    );
    let part = array(Date64Array::from(vec![86_400_005]));
    let error = cast_column(&part, &DataType::Date32).unwrap_err();
    assert!(error.to_string().contains("86400005 ms"), "{error}");
}

#[test]
fn fields_of_the_same_names_are_cast_by_position() {
    let of = |data_type: DataType| vec![Field::new("a", data_type, true); 2].into();
    let fields = StructArray::try_new(
        of(DataType::Int32),
        vec![
            array(Int32Array::from(vec![1])),
            array(Int32Array::from(vec![2])),
        ],
        None,
    );
    let wide = cast_column(
        &array(fields.unwrap()),
        &DataType::Struct(of(DataType::Int64)),
    );
    let wide = wide.unwrap();
    let second = wide.as_struct().column(1);
    assert_eq!(**second, Int64Array::from(vec![2]));
}

#[test]
fn dictionaries_become_their_values() {
    let words: DictionaryArray<Int8Type> = ["b", "a", "b"].into_iter().collect();
    let plain = cast_column(&array(words), &DataType::LargeUtf8).unwrap();
    assert_eq!(plain.as_string::<i64>().value(2), "b");
    let ids = DictionaryArray::<Int8Type>::new(
        Int8Array::from(vec![0, 0]),
        array(Int32Array::from(vec![9])),
    );
    assert_eq!(
        *cast_column(&array(ids), &DataType::Int64).unwrap(),
        Int64Array::from(vec![9, 9])
    );
}

#[test]
fn missing_value_of_a_required_item_is_refused() {
    let items = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![None])]);
    let required = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, false)));
    assert!(cast_column(&array(items), &required).is_err());
    let text = array(StringArray::from(vec!["x"]));
    assert!(cast_column(&text, &DataType::Struct(Fields::empty())).is_err());
}
