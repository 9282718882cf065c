//! Tensor columns that hold pixels: which they are, and the picture of a record.

use arrow::array::Array;
use arrow::datatypes::{Field, Schema};

use crate::image::decode::Pixels;
use crate::image::error::ImageError;
use crate::image::pixel_format::PixelFormat;
use crate::tensor::{TensorShape, fixed_values, variable_row};

/// The columns that hold pixels, each with its format.
pub fn pixel_columns(schema: &Schema) -> Vec<(String, PixelFormat)> {
    let usable = |field: &Field| match (PixelFormat::of(field)?, TensorShape::of(field)?) {
        (format, TensorShape::Fixed(shape)) => format.size(&shape).map(|_| format),
        (format, TensorShape::Variable(dims)) => (dims == 3).then_some(format),
    };
    schema
        .fields()
        .iter()
        .filter_map(|field| Some((field.name().clone(), usable(field)?)))
        .collect()
}

/// The picture of a record of a tensor column.
///
/// # Errors
/// [`ImageError::Malformed`] where the column holds no picture there.
pub fn pixels_of(
    tensors: &dyn Array,
    shape: Option<&TensorShape>,
    format: &PixelFormat,
    record: usize,
) -> Result<Pixels, ImageError> {
    let row = match shape {
        Some(TensorShape::Fixed(shape)) => {
            let len: usize = shape.iter().product();
            fixed_values(tensors).and_then(|values| {
                Some((values.get(record * len..(record + 1) * len)?, shape.clone()))
            })
        }
        _ => variable_row(tensors, record),
    };
    let malformed = |reason: String| ImageError::Malformed(reason);
    let (values, shape) =
        row.ok_or_else(|| malformed("the column holds no tensor here".to_owned()))?;
    let (height, width) = format
        .size(&shape)
        .ok_or_else(|| malformed(format!("{shape:?} is not the shape of an image")))?;
    Ok(Pixels {
        width,
        height,
        channels: format.channels,
        data: format.denormalize(values),
    })
}
