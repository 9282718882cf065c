//! The values of tensors of ONNX Runtime as Arrow arrays, and the reverse.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::array::{ArrayData, StringArray, make_array, new_null_array};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use ort::session::SessionInputValue;

use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef};

use crate::model::ort_backend::reason;
use crate::model::tensor_spec::ElementType;

impl ElementType {
    /// The Arrow type of values of this type; `None` if a column cannot hold them.
    pub(crate) fn arrow_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Float16 => DataType::Float16,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Uint8 => DataType::UInt8,
            Self::Uint16 => DataType::UInt16,
            Self::Uint32 => DataType::UInt32,
            Self::Uint64 => DataType::UInt64,
            Self::Bool => DataType::Boolean,
            Self::String => DataType::Utf8,
            Self::Other(_) => return None,
        })
    }
}

/// An array of `len` zeros, `false` or empty strings.
pub(in crate::model) fn zeros(data_type: &DataType, len: usize) -> Result<ArrayRef, ArrowError> {
    let nulls: ArrayData = new_null_array(data_type, len).to_data();
    Ok(make_array(nulls.into_builder().nulls(None).build()?))
}

/// A tensor of the shape `dims`. Numbers are not copied.
pub(super) fn tensor_of<'a>(
    dims: &[usize],
    values: &'a ArrayRef,
) -> Result<SessionInputValue<'a>, String> {
    match values.data_type() {
        DataType::Float16 => view::<Float16Type>(dims, values),
        DataType::Float32 => view::<Float32Type>(dims, values),
        DataType::Float64 => view::<Float64Type>(dims, values),
        DataType::Int8 => view::<Int8Type>(dims, values),
        DataType::Int16 => view::<Int16Type>(dims, values),
        DataType::Int32 => view::<Int32Type>(dims, values),
        DataType::Int64 => view::<Int64Type>(dims, values),
        DataType::UInt8 => view::<UInt8Type>(dims, values),
        DataType::UInt16 => view::<UInt16Type>(dims, values),
        DataType::UInt32 => view::<UInt32Type>(dims, values),
        DataType::UInt64 => view::<UInt64Type>(dims, values),
        DataType::Boolean => {
            let bytes: Vec<bool> = values.as_boolean().values().iter().collect();
            let tensor = Tensor::from_array((dims.to_vec(), bytes)).map_err(reason)?;
            Ok(tensor.into_dyn().into())
        }
        DataType::Utf8 => {
            let strings = values.as_string::<i32>();
            let texts = (0..strings.len()).map(|row| strings.value(row).to_owned());
            let texts: Vec<String> = texts.collect();
            let tensor = Tensor::from_string_array((dims, texts.as_slice())).map_err(reason)?;
            Ok(tensor.into_dyn().into())
        }
        other => Err(format!("values of {other} cannot be an input")),
    }
}

fn view<'a, T>(dims: &[usize], values: &'a ArrayRef) -> Result<SessionInputValue<'a>, String>
where
    T: ArrowPrimitiveType,
    T::Native: PrimitiveTensorElementType + Debug,
{
    let values: &[T::Native] = values.as_primitive::<T>().values();
    let tensor = TensorRef::from_array_view((dims.to_vec(), values)).map_err(reason)?;
    Ok(tensor.into_dyn().into())
}

/// The first `len` values of a tensor of the element type `element`.
pub(super) fn values_of(
    tensor: &DynValue,
    element: TensorElementType,
    len: usize,
) -> Result<ArrayRef, String> {
    match element {
        TensorElementType::Float16 => numbers::<Float16Type>(tensor, len),
        TensorElementType::Float32 => numbers::<Float32Type>(tensor, len),
        TensorElementType::Float64 => numbers::<Float64Type>(tensor, len),
        TensorElementType::Int8 => numbers::<Int8Type>(tensor, len),
        TensorElementType::Int16 => numbers::<Int16Type>(tensor, len),
        TensorElementType::Int32 => numbers::<Int32Type>(tensor, len),
        TensorElementType::Int64 => numbers::<Int64Type>(tensor, len),
        TensorElementType::Uint8 => numbers::<UInt8Type>(tensor, len),
        TensorElementType::Uint16 => numbers::<UInt16Type>(tensor, len),
        TensorElementType::Uint32 => numbers::<UInt32Type>(tensor, len),
        TensorElementType::Uint64 => numbers::<UInt64Type>(tensor, len),
        TensorElementType::Bool => {
            let (_, values) = tensor.try_extract_tensor::<bool>().map_err(reason)?;
            let values = values.get(..len).ok_or_else(short)?;
            Ok(Arc::new(BooleanArray::from(values.to_vec())))
        }
        TensorElementType::String => {
            let (_, values) = tensor.try_extract_strings().map_err(reason)?;
            let values = values.get(..len).ok_or_else(short)?;
            Ok(Arc::new(StringArray::from_iter_values(values)))
        }
        other => Err(format!("a column cannot hold values of the type {other}")),
    }
}

fn numbers<T>(tensor: &DynValue, len: usize) -> Result<ArrayRef, String>
where
    T: ArrowPrimitiveType,
    T::Native: PrimitiveTensorElementType,
{
    let (_, values) = tensor.try_extract_tensor::<T::Native>().map_err(reason)?;
    let values = values.get(..len).ok_or_else(short)?;
    let values = values.iter().copied();
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(values)))
}

fn short() -> String {
    "the output has fewer values than its shape declares".to_owned()
}
