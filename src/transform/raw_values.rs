//! The values of columns as numbers: of categories, times, and numbers that may be missing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit};

use crate::error::StageError;
use crate::model::input::rules::words::word_number;

/// Whether a column of this type has categories.
pub(super) fn holds_words(column: &DataType) -> bool {
    match column {
        DataType::Dictionary(_, value) => holds_words(value),
        plain => {
            plain.is_string()
                || plain.is_integer()
                || plain.is_floating()
                || plain == &DataType::Boolean
        }
    }
}

/// Whether a column of this type has times.
pub(super) fn holds_times(column: &DataType) -> bool {
    matches!(
        column,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    )
}

/// Converts a column of classes to strings. Whole floats are written as integers, so that `3` is the
/// same class in a column of integers and in one of floats.
///
/// # Errors
/// An error of Arrow, for a column that has no classes.
pub(crate) fn class_names(column: &ArrayRef) -> Result<StringArray, StageError> {
    let strings = cast(column, &DataType::Utf8)?;
    let strings = strings.as_string::<i32>();
    if !column.data_type().is_floating() {
        return Ok(strings.clone());
    }
    let values = cast(column, &DataType::Float64)?;
    let pairs = strings.iter().zip(values.as_primitive::<Float64Type>());
    // Arrow writes large numbers with an exponent, and -0 with its sign.
    let is_integer = |value: f64| value.fract() == 0.0 && value.abs() < 2_f64.powi(63);
    let names = pairs.map(|(name, value)| match value {
        Some(value) if is_integer(value) => Some((value as i64).to_string()),
        _ => name.map(str::to_owned),
    });
    Ok(names.collect())
}

/// The categories of a column as text. NaN is missing.
///
/// # Errors
/// An error of Arrow, for a column that has no categories.
pub(crate) fn words(column: &ArrayRef) -> Result<StringArray, StageError> {
    let names = class_names(column)?;
    if !column.data_type().is_floating() {
        return Ok(names);
    }
    Ok(names
        .iter()
        .map(|name| name.filter(|&name| name != "NaN"))
        .collect())
}

/// The number of rows of a column that are null or NaN, or lists with such a value.
///
/// # Errors
/// An error of Arrow.
pub(crate) fn missing_rows(column: &ArrayRef) -> Result<u64, StageError> {
    let is_list = matches!(
        column.data_type(),
        DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_)
    );
    if is_list {
        let lists = cast(column, &list_of_floats())?;
        let lists = lists.as_list::<i64>();
        let is_missing = |list: Option<ArrayRef>| match list {
            Some(values) => missing_rows(&values).map(|missing| missing > 0),
            None => Ok(true),
        };
        let rows = lists
            .iter()
            .map(is_missing)
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(rows.into_iter().filter(|&missing| missing).count() as u64);
    }
    let nulls = column.null_count() as u64;
    if !column.data_type().is_floating() {
        return Ok(nulls);
    }
    let values = cast(column, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    Ok(nulls
        + values
            .iter()
            .flatten()
            .filter(|value| value.is_nan())
            .count() as u64)
}

fn list_of_floats() -> DataType {
    DataType::LargeList(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

/// The word numbers of the categories of a column; NaN for nulls.
pub(super) fn word_numbers(column: &ArrayRef) -> Result<Vec<f64>, StageError> {
    let words = words(column)?;
    Ok(words
        .iter()
        .map(|word| word.map_or(f64::NAN, word_number))
        .collect())
}

/// The times of a column in seconds since 1970; NaN for nulls.
pub(super) fn seconds(column: &ArrayRef) -> Result<Vec<f64>, StageError> {
    let (per_second, column) = match column.data_type() {
        DataType::Timestamp(unit, _) => {
            let per_second = match unit {
                TimeUnit::Second => 1.0,
                TimeUnit::Millisecond => 1e3,
                TimeUnit::Microsecond => 1e6,
                TimeUnit::Nanosecond => 1e9,
            };
            (per_second, Arc::clone(column))
        }
        // Days and milliseconds are converted to milliseconds.
        _ => (1e3, cast(column, &DataType::Date64)?),
    };
    let ticks = cast(&column, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let seconds = |one: Option<i64>| one.map_or(f64::NAN, |count| count as f64 / per_second);
    Ok(ticks.iter().map(seconds).collect())
}

/// The numbers of a column, or of lists of `len` numbers. Nulls and the values of lists that are null
/// become NaN, and all NaN have the same bits.
pub(super) fn numbers_or_missing(
    column: &ArrayRef,
    values: &ArrayRef,
    len: usize,
) -> Result<Vec<f64>, StageError> {
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    let number = |(index, value): (usize, Option<f64>)| match value {
        Some(value) if !value.is_nan() && column.is_valid(index / len) => value,
        _ => f64::NAN,
    };
    Ok(values.iter().enumerate().map(number).collect())
}
