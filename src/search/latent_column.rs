//! The column of latents: its selection, and its values in float32.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::image::PixelFormat;
use crate::registry::did_you_mean;
use crate::storage::Location;

/// The name of the column of latents, if several columns hold vectors and none is selected.
const LATENT: &str = "latent";

pub(super) fn invalid(message: String) -> StageError {
    StageError::new(ErrorCode::ArgumentInvalid, message)
}

/// Whether a column holds vectors, and neither images nor tensors.
pub(super) fn is_vector(field: &Field) -> bool {
    let (DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) =
        field.data_type()
    else {
        return false;
    };
    item.data_type().is_floating()
        && PixelFormat::from_field(field).is_none()
        && field.extension_type_name().is_none()
}

fn vectors(schema: &Schema) -> Vec<&str> {
    let fields = schema.fields().iter().filter(|field| is_vector(field));
    fields.map(|field| field.name().as_str()).collect()
}

/// The column of latents of a file; `None` if no column holds vectors.
///
/// # Errors
/// If several columns hold vectors, and none of them has the usual name.
pub(super) fn default_column(
    file: &Location,
    schema: &Schema,
) -> Result<Option<String>, StageError> {
    match vectors(schema).as_slice() {
        [] => Ok(None),
        [only] => Ok(Some((*only).to_owned())),
        several if several.contains(&LATENT) => Ok(Some(LATENT.to_owned())),
        several => Err(invalid(format!(
            "{file}: several columns hold vectors: {}; select one with --column",
            several.join(", ")
        ))),
    }
}

/// The error of a dataset without the selected column, or without any column of vectors.
pub(super) fn unknown_column(file: &Location, schema: &Schema, column: Option<&str>) -> StageError {
    let names = vectors(schema);
    let Some(column) = column.filter(|_| !names.is_empty()) else {
        let selected = column.map_or_else(String::new, |name| format!("no column `{name}`; "));
        return invalid(format!("{file}: {selected}no column holds vectors"));
    };
    let near = did_you_mean(column, &names);
    invalid(format!(
        "{file}: no column `{column}`{near}; columns of vectors: {}",
        names.join(", ")
    ))
}

/// The lengths of the lists that are not null; empty for lists of fixed size.
fn lengths(column: &ArrayRef) -> impl Iterator<Item = usize> + '_ {
    let len = |row: usize| match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value_length(row) as usize,
        _ => column.as_list::<i64>().value_length(row) as usize,
    };
    let is_fixed = matches!(column.data_type(), DataType::FixedSizeList(..));
    let rows = if is_fixed { 0 } else { column.len() };
    (0..rows).filter(|&row| column.is_valid(row)).map(len)
}

/// The latents of a column as lists of `width` float32. Empty lists become null, and values that are
/// null become NaN.
///
/// # Errors
/// If a list has another length.
pub(super) fn latents(column: &ArrayRef, width: usize) -> Result<ArrayRef, StageError> {
    let length = i32::try_from(width).unwrap_or(i32::MAX);
    if let Some(other) = lengths(column).find(|&own| own != 0 && own != width) {
        return Err(invalid(format!(
            "the column of latents holds lists of {width} and of {other} values; latents of different \
             sizes have no distance"
        )));
    }
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let lists = match column.data_type() {
        DataType::FixedSizeList(own, _) if own.data_type() == &DataType::Float32 => {
            Arc::clone(column)
        }
        _ => cast(column, &DataType::FixedSizeList(Arc::clone(&item), length))?,
    };
    let fixed = lists.as_fixed_size_list();
    if fixed.values().null_count() == 0 {
        return Ok(lists);
    }
    let values = fixed.values().as_primitive::<Float32Type>().iter();
    let values: Float32Array = values
        .map(|value| Some(value.unwrap_or(f32::NAN)))
        .collect();
    let nulls = fixed.nulls().cloned();
    let whole = FixedSizeListArray::try_new(item, length, Arc::new(values), nulls)?;
    Ok(Arc::new(whole))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::ListArray;

    use super::*;

    fn lists(lengths: &[Option<usize>]) -> ArrayRef {
        let lists = lengths
            .iter()
            .map(|len| len.map(|len| vec![Some(1.5); len]));
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists))
    }

    #[test]
    fn lists_of_two_lengths_are_refused() {
        let refused = latents(&lists(&[Some(2), None, Some(3)]), 2).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the column of latents holds lists of 2 and of 3 values; latents of different sizes have \
             no distance"
        );
    }

    #[test]
    fn nulls_and_empty_lists_have_no_latent() {
        let found = latents(&lists(&[Some(2), None, Some(0)]), 2).unwrap();
        let valid: Vec<bool> = (0..3).map(|row| found.is_valid(row)).collect();
        assert_eq!(valid, [true, false, false]);
    }
}
