//! Tensor columns that hold pixels: their detection, and the image of a record.

use arrow::array::Array;
use arrow::datatypes::{Field, Schema};

use crate::image::error::ImageError;
use crate::image::pixel_format::PixelFormat;
use crate::image::pixels::Pixels;
use crate::tensor::{TensorShape, fixed_values, variable_row};

/// Finds the columns that hold pixels, with the format of each.
pub(crate) fn pixel_columns(schema: &Schema) -> Vec<(String, PixelFormat)> {
    let usable = |field: &Field| match (PixelFormat::from_field(field)?, TensorShape::of(field)?) {
        (format, TensorShape::Fixed(shape)) => format.size(&shape).map(|_| format),
        (format, TensorShape::Variable(dims)) => (dims == 3).then_some(format),
    };
    schema
        .fields()
        .iter()
        .filter_map(|field| Some((field.name().clone(), usable(field)?)))
        .collect()
}

/// The image of a record of a tensor column.
///
/// # Errors
/// [`ImageError::Malformed`] if the column holds no image in this record.
pub(crate) fn pixels_of(
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
    let (values, row_shape) =
        row.ok_or_else(|| malformed("the column holds no tensor in this record".to_owned()))?;
    let (height, width) = format
        .size(&row_shape)
        .ok_or_else(|| malformed(format!("{row_shape:?} is not the shape of an image")))?;
    Ok(Pixels {
        width,
        height,
        channels: format.channels.decoded(),
        data: format.denormalize(values),
    })
}
