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
pub(crate) fn cast_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
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
mod tests;
