//! Float32 tensors as Arrow columns: `arrow.fixed_shape_tensor`, `arrow.variable_shape_tensor` and
//! latent vectors.

mod any_element;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int32Array, ListArray, StructArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};
use serde_json::{Value, json};

use crate::system::simd_dispatch;

use any_element::variable_fields;
pub(crate) use any_element::{
    fixed_tensor_shape, item_of, variable_column_of, variable_dims, variable_field_of,
};

// arrow-schema 60 writes absent metadata as null, which it and other implementations refuse to
// read. Therefore the metadata is written here.
/// The name of the extension type of tensors that all have the same shape.
pub(crate) const FIXED_SHAPE_TENSOR: &str = "arrow.fixed_shape_tensor";
const VARIABLE: &str = "arrow.variable_shape_tensor";

/// The shape of one value of a tensor column, without the batch dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TensorShape {
    /// Every row has this shape.
    Fixed(Vec<usize>),
    /// Each row has its own shape; the number is the number of dimensions.
    Variable(usize),
}

impl TensorShape {
    /// The shape of a column's values, or `None` if the column does not hold float32 tensors. A
    /// plain fixed-size list of float32, such as a latent, is a vector.
    pub fn of(field: &Field) -> Option<Self> {
        match field.data_type() {
            DataType::FixedSizeList(item, len) if item.data_type() == &DataType::Float32 => {
                let len = usize::try_from(*len).ok()?;
                let Some(shape) = fixed_shape(field) else {
                    return Some(Self::Fixed(vec![len]));
                };
                let values = shape
                    .iter()
                    .try_fold(1_usize, |product, &size| product.checked_mul(size));
                (values == Some(len)).then_some(Self::Fixed(shape))
            }
            DataType::Struct(fields) if field.extension_type_name() == Some(VARIABLE) => {
                let DataType::FixedSizeList(_, dims) = fields.find("shape")?.1.data_type() else {
                    return None;
                };
                let dims = usize::try_from(*dims).ok()?;
                (fields == &variable_fields(dims, DataType::Float32))
                    .then_some(Self::Variable(dims))
            }
            _ => None,
        }
    }

    /// The number of values of a row, if it is fixed.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Fixed(shape) => Some(shape.iter().product()),
            Self::Variable(_) => None,
        }
    }
}

impl std::fmt::Display for TensorShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(shape) => write!(f, "{shape:?}"),
            Self::Variable(dims) => write!(f, "[{}]", vec!["?"; *dims].join(", ")),
        }
    }
}

/// A non-nullable vector column without an extension type, as for latents and feature vectors.
pub fn vector_field(name: &str, len: usize) -> Field {
    Field::new(name, DataType::FixedSizeList(item(), len_of(len)), false)
}

/// A non-nullable tensor column whose rows all have `shape`.
///
/// # Errors
/// Returns an error if the shape has more values than Arrow supports.
pub fn tensor_field(name: &str, shape: &[usize]) -> Result<Field, ArrowError> {
    let len = shape.iter().try_fold(1_i32, |product, &size| {
        product.checked_mul(i32::try_from(size).ok()?)
    });
    if len.is_none() {
        return Err(ArrowError::SchemaError(format!(
            "a tensor of shape {shape:?} has more values than a row can hold"
        )));
    }
    Ok(with_tensor_shape(
        vector_field(name, shape.iter().product()),
        shape,
    ))
}

/// Declares that the lists of fixed length in a column are tensors of `shape`.
pub(crate) fn with_tensor_shape(field: Field, shape: &[usize]) -> Field {
    extended(field, FIXED_SHAPE_TENSOR, &json!({ "shape": shape }))
}

/// A non-nullable tensor column in which each row has its own shape of `dims` dimensions.
///
/// # Errors
/// Returns an error if Arrow does not support `dims` dimensions.
pub fn variable_field(name: &str, dims: usize) -> Result<Field, ArrowError> {
    variable_field_of(name, dims, DataType::Float32)
}

/// Creates a column for [`vector_field`] or [`tensor_field`] from its values in row order. The
/// vector is not copied.
///
/// # Errors
/// Returns an error if the number of values is not a multiple of `len`.
pub fn fixed_column(len: usize, values: Vec<f32>) -> Result<ArrayRef, ArrowError> {
    let values = Arc::new(Float32Array::new(ScalarBuffer::from(values), None));
    Ok(Arc::new(FixedSizeListArray::try_new(
        item(),
        len_of(len),
        values,
        None,
    )?))
}

/// Creates a column for [`variable_field`] from the concatenated values of all rows and the shape
/// of each row.
///
/// # Errors
/// Returns an error if the shapes do not match the number of values, or do not have `dims`
/// dimensions each.
pub fn variable_column(
    dims: usize,
    values: Vec<f32>,
    shapes: &[Vec<usize>],
) -> Result<ArrayRef, ArrowError> {
    let values = Arc::new(Float32Array::new(ScalarBuffer::from(values), None));
    variable_column_of(dims, values, shapes)
}

/// The values of a fixed-size list column in row order, without a copy; slices are respected.
/// `None` if the column is not a fixed-size list of float32.
pub fn fixed_values(column: &dyn Array) -> Option<&[f32]> {
    let list = column.as_any().downcast_ref::<FixedSizeListArray>()?;
    let len = usize::try_from(list.value_length()).ok()?;
    let values = list.values().as_any().downcast_ref::<Float32Array>()?;
    // `values()` of a sliced list already starts at the offset of the slice.
    values.values().get(..list.len() * len)
}

/// Whether all values are neither NaN nor infinite.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    // There is no branch per value, so that the loop runs at memory bandwidth.
    simd_dispatch(|| {
        values
            .iter()
            .fold(true, |all, value| all & value.is_finite())
    })
}

/// The values and the shape of one row of a variable-shape tensor column, without a copy of the
/// values.
pub fn variable_row(column: &dyn Array, row: usize) -> Option<(&[f32], Vec<usize>)> {
    let tensor = column.as_any().downcast_ref::<StructArray>()?;
    let data = tensor.column(0).as_any().downcast_ref::<ListArray>()?;
    let shapes = tensor
        .column(1)
        .as_any()
        .downcast_ref::<FixedSizeListArray>()?;
    let values = data.values().as_any().downcast_ref::<Float32Array>()?;
    let offsets = data.value_offsets();
    let (from, to) = (
        usize::try_from(*offsets.get(row)?).ok()?,
        usize::try_from(*offsets.get(row + 1)?).ok()?,
    );
    let sizes = shapes.value(row);
    let sizes = sizes.as_any().downcast_ref::<Int32Array>()?;
    let shape = sizes
        .values()
        .iter()
        .map(|&size| usize::try_from(size).ok())
        .collect::<Option<Vec<_>>>()?;
    Some((values.values().get(from..to)?, shape))
}

fn extended(field: Field, name: &str, metadata: &Value) -> Field {
    let metadata = metadata.to_string();
    field.with_metadata([
        (EXTENSION_TYPE_NAME_KEY, name),
        (EXTENSION_TYPE_METADATA_KEY, metadata.as_str()),
    ])
}

/// The shape in the metadata of a fixed-shape tensor; `None` if the field has another type, or no
/// shape in its metadata.
fn fixed_shape(field: &Field) -> Option<Vec<usize>> {
    let metadata = field
        .extension_type_metadata()
        .filter(|_| field.extension_type_name() == Some(FIXED_SHAPE_TENSOR))?;
    serde_json::from_value(
        serde_json::from_str::<Value>(metadata)
            .ok()?
            .get("shape")?
            .clone(),
    )
    .ok()
}

fn item() -> Arc<Field> {
    item_of(DataType::Float32)
}

/// Arrow stores the length of fixed-size lists as `i32`; a longer row could not be allocated
/// anyway.
pub(crate) fn len_of(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
