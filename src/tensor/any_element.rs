//! Tensor columns whose values have any type: variable-shape tensors, and shapes of columns that
//! others wrote.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Int32Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;
use serde_json::json;

use super::{VARIABLE, extended, fixed_shape, len_of};

/// As [`variable_field`], with values of the type `element`.
///
/// # Errors
/// Returns an error if Arrow does not support `dims` dimensions.
pub(crate) fn variable_field_of(
    name: &str,
    dims: usize,
    element: DataType,
) -> Result<Field, ArrowError> {
    if i32::try_from(dims).is_err() {
        return Err(ArrowError::SchemaError(format!(
            "a tensor cannot have {dims} dimensions"
        )));
    }
    Ok(extended(
        Field::new(
            name,
            DataType::Struct(variable_fields(dims, element)),
            false,
        ),
        VARIABLE,
        &json!({}),
    ))
}

/// As [`variable_column`], with values of any type.
///
/// # Errors
/// Those of [`variable_column`].
pub(crate) fn variable_column_of(
    dims: usize,
    values: ArrayRef,
    shapes: &[Vec<usize>],
) -> Result<ArrayRef, ArrowError> {
    let lengths = shapes.iter().map(|shape| shape.iter().product());
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let element = values.data_type().clone();
    let data = ListArray::try_new(item_of(element.clone()), offsets, values, None)?;
    let sizes: Int32Array = shapes
        .iter()
        .flatten()
        .map(|&size| i32::try_from(size).unwrap_or(i32::MAX))
        .collect();
    let size_item = Arc::new(Field::new_list_field(DataType::Int32, false));
    let shape = FixedSizeListArray::try_new(size_item, len_of(dims), Arc::new(sizes), None)?;
    Ok(Arc::new(StructArray::try_new(
        variable_fields(dims, element),
        vec![Arc::new(data), Arc::new(shape)],
        None,
    )?))
}

/// The shape of every row of a fixed-shape tensor of any element type, if it fills the lists.
pub(crate) fn fixed_tensor_shape(field: &Field) -> Option<Vec<usize>> {
    let DataType::FixedSizeList(_, len) = field.data_type() else {
        return None;
    };
    let shape = fixed_shape(field)?;
    let values = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size));
    (values == usize::try_from(*len).ok()).then_some(shape)
}

/// The number of dimensions and the element type of a variable-shape tensor; `None` for other
/// fields.
pub(crate) fn variable_dims(field: &Field) -> Option<(usize, &DataType)> {
    let DataType::Struct(fields) = field.data_type() else {
        return None;
    };
    let is_tensor = field.extension_type_name() == Some(VARIABLE);
    let [data, shape] = fields.as_ref() else {
        return None;
    };
    match (data.data_type(), shape.data_type()) {
        (DataType::List(item), DataType::FixedSizeList(size, dims))
            if is_tensor && size.data_type() == &DataType::Int32 =>
        {
            Some((usize::try_from(*dims).ok()?, item.data_type()))
        }
        _ => None,
    }
}

pub(super) fn variable_fields(dims: usize, element: DataType) -> Fields {
    let size_item = Arc::new(Field::new_list_field(DataType::Int32, false));
    Fields::from(vec![
        Field::new("data", DataType::List(item_of(element)), false),
        Field::new(
            "shape",
            DataType::FixedSizeList(size_item, len_of(dims)),
            false,
        ),
    ])
}

/// The field of the items of lists whose values have the type `element`.
pub(crate) fn item_of(element: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(element, false))
}
