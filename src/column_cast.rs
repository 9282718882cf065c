//! Casts of columns to the wider types of a unified schema and to the types in files. Every value
//! keeps its meaning, or the cast fails.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    StructArray, UInt64Array, make_array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast, cast_with_options, take};
use arrow::datatypes::{ArrowNativeType as _, DataType, Date32Type, Date64Type, FieldRef, Fields};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Casts a column to a type that holds its values: its unified type, or its type in files. Whether
/// nulls are allowed at the top is checked elsewhere.
///
/// # Errors
/// If a value does not fit into the type, such as a 64-bit integer that a float cannot represent.
pub fn cast_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    use DataType::{
        Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, Null,
        RunEndEncoded, Struct,
    };
    let from = column.data_type();
    if from == to {
        return Ok(Arc::clone(column));
    }
    match (from, to) {
        (Null, _) => Ok(new_null_array(to, column.len())),
        (Dictionary(_, value), _) => cast_column(&cast(column, value)?, to),
        (RunEndEncoded(_, value), _) => cast_column(&cast(column, value.data_type())?, to),
        (Struct(_), Struct(fields)) => cast_struct(column.as_struct(), fields),
        (Map(..), Map(entries, sorted)) => cast_map(column.as_map(), entries, *sorted),
        (FixedSizeList(..), FixedSizeList(item, _)) => {
            let list = column.as_fixed_size_list();
            let size = usize::try_from(list.value_length()).unwrap_or(0);
            let hidden = list.nulls().map(|nulls| nulls.expand(size));
            let values = list.values().slice(0, list.len() * size);
            let values = cast_column(&masked(&values, hidden.as_ref()), item.data_type())?;
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(
                Arc::clone(item),
                list.value_length(),
                values,
                list.nulls().cloned(),
                list.len(),
            )?))
        }
        (
            List(own) | LargeList(own) | ListView(own) | LargeListView(own) | FixedSizeList(own, _),
            List(item),
        ) => {
            let list = cast(column, &List(Arc::clone(own)))?;
            cast_items(list.as_list::<i32>(), item)
        }
        (
            List(own) | LargeList(own) | ListView(own) | LargeListView(own) | FixedSizeList(own, _),
            LargeList(item),
        ) => {
            let list = cast(column, &LargeList(Arc::clone(own)))?;
            cast_items(list.as_list::<i64>(), item)
        }
        _ => cast_values(column, to),
    }
}

/// Casts the fields by their positions if they have the same names, otherwise by name.
fn cast_struct(column: &StructArray, fields: &Fields) -> Result<ArrayRef, ArrowError> {
    let names = column.fields().iter().map(|field| field.name());
    let has_same_names = names.eq(fields.iter().map(|field| field.name()));
    let columns = fields.iter().enumerate().map(|(index, field)| {
        let values = if has_same_names {
            Some(column.column(index))
        } else {
            column.column_by_name(field.name())
        };
        match values {
            Some(values) => cast_column(&masked(values, column.nulls()), field.data_type()),
            None => Ok(new_null_array(field.data_type(), column.len())),
        }
    });
    Ok(Arc::new(StructArray::try_new_with_length(
        fields.clone(),
        columns.collect::<Result<_, _>>()?,
        column.nulls().cloned(),
        column.len(),
    )?))
}

fn cast_map(column: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef, ArrowError> {
    let (first, last) = (column.offsets().first(), column.offsets().last());
    let own = column
        .entries()
        .slice(first.as_usize(), (last - first).as_usize());
    let own: ArrayRef = Arc::new(own);
    let cast = cast_column(&own, entries.data_type())?;
    Ok(Arc::new(MapArray::try_new(
        Arc::clone(entries),
        column.offsets().clone().subtract(first),
        cast.as_struct().clone(),
        column.nulls().cloned(),
        sorted,
    )?))
}

/// Casts the items that the lists show.
fn cast_items<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    item: &FieldRef,
) -> Result<ArrayRef, ArrowError> {
    let (offsets, values) = shown_items(list)?;
    Ok(Arc::new(GenericListArray::<O>::try_new(
        Arc::clone(item),
        offsets,
        cast_column(&values, item.data_type())?,
        list.nulls().cloned(),
    )?))
}

/// The items of a slice of lists, without those of lists that are null.
fn shown_items<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
) -> Result<(OffsetBuffer<O>, ArrayRef), ArrowError> {
    let offsets = list.offsets();
    let (first, last) = (offsets.first(), offsets.last());
    if list.null_count() == 0 {
        let values = list
            .values()
            .slice(first.as_usize(), (last - first).as_usize());
        return Ok((offsets.clone().subtract(first), values));
    }
    let shown = |row: usize| {
        if list.is_valid(row) {
            offsets[row].as_usize()..offsets[row + 1].as_usize()
        } else {
            0..0
        }
    };
    let rows = 0..list.len();
    let lengths = OffsetBuffer::from_lengths(rows.clone().map(|row| shown(row).len()));
    let places = rows.flat_map(shown).map(|place| place as u64);
    let values = take(list.values(), &UInt64Array::from_iter_values(places), None)?;
    Ok((lengths, values))
}

/// The values, null where `hidden` is null: the values below a null have no meaning.
fn masked(values: &ArrayRef, hidden: Option<&NullBuffer>) -> ArrayRef {
    let Some(hidden) = hidden.filter(|_| !matches!(values.data_type(), DataType::Null)) else {
        return Arc::clone(values);
    };
    let nulls = NullBuffer::union(values.nulls(), Some(hidden));
    let data = values.to_data().into_builder().nulls(nulls);
    data.build().map_or_else(|_| Arc::clone(values), make_array)
}

/// Casts values that are not nested. A number that the wider type cannot represent is an error.
fn cast_values(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if let (DataType::Date64, DataType::Date32) = (column.data_type(), to) {
        let dates = column.as_primitive::<Date64Type>();
        return Ok(Arc::new(
            dates.try_unary::<_, Date32Type, ArrowError>(days)?,
        ));
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let converted = cast_with_options(column, to, &strict)?;
    let may_round = to.is_floating() && column.data_type().is_integer();
    if may_round && let Some(row) = first_rounded(column, &converted)? {
        return Err(ArrowError::CastError(format!(
            "the value {} of type {} cannot be represented as {to}",
            array_value_to_string(column, row)?,
            column.data_type()
        )));
    }
    Ok(converted)
}

/// The days of a `date64` value.
fn days(milliseconds: i64) -> Result<i32, ArrowError> {
    const DAY: i64 = 86_400_000;
    let day = i32::try_from(milliseconds / DAY).ok();
    day.filter(|_| milliseconds % DAY == 0).ok_or_else(|| {
        ArrowError::ComputeError(format!(
            "{milliseconds} ms is not a whole number of days, as a date of Parquet has to be; \
             convert the column to timestamps"
        ))
    })
}

/// Returns the first row whose float is not equal to the integer that it was converted from.
fn first_rounded(integers: &ArrayRef, floats: &ArrayRef) -> Result<Option<usize>, ArrowError> {
    // An integer beyond the range of its own type becomes null, which is distinct.
    let back = cast(floats, integers.data_type())?;
    let differs = distinct(integers, &back)?;
    Ok(differs.values().set_indices().next())
}

#[cfg(test)]
mod tests {
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
        let list =
            |item: DataType| DataType::LargeList(Arc::new(Field::new_list_field(item, true)));
        let narrow_field = Field::new("v", narrow.data_type().clone(), true);
        let own = array(
            StructArray::try_new(vec![narrow_field].into(), vec![array(narrow)], None).unwrap(),
        );
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
}
