//! From the tensors of a batch to the bytes of image files.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Field, SchemaRef, UInt64Type};

use crate::batch::Batch;
use crate::error::StageError;
use crate::image::decode::Pixels;
use crate::image::encode::{OutputFormat, encode};
use crate::image::format::PixelFormat;
use crate::sink::names::file_name;
use crate::source::{ROW, SOURCE};
use crate::tensor::{TensorShape, fixed_values, variable_row};

/// Makes files of a batch's records.
pub(super) struct Encoder {
    /// The tensor column.
    pub(super) column: String,
    /// How pixels stand in it.
    pub(super) pixels: PixelFormat,
    /// How files are encoded.
    pub(super) output: OutputFormat,
    /// What their names end in.
    pub(super) extension: &'static str,
}

impl Encoder {
    /// Calls `each` with every record's file: its path relative to the folder, and its bytes.
    ///
    /// # Errors
    /// When `each` fails, or the format cannot hold an image of some size.
    pub(super) fn files(
        &self,
        batch: &Batch,
        mut each: impl FnMut(&str, &[u8]) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let column = |name: &str| {
            let column = batch.records.column_by_name(name);
            column.ok_or_else(|| StageError::Other(format!("the column `{name}` was planned, but is not there")))
        };
        let tensors = column(&self.column)?;
        let (sources, rows) = (column(SOURCE)?.as_string::<i32>(), column(ROW)?.as_primitive::<UInt64Type>());
        let shape = batch.records.schema_ref().field_with_name(&self.column).ok().and_then(TensorShape::of);
        for record in 0..batch.records.num_rows() {
            let name = file_name(sources.value(record), rows.value(record), self.extension);
            let bytes = self.encode(tensors, shape.as_ref(), record);
            each(&name, &bytes.map_err(|reason| StageError::Other(format!("{name}: {reason}")))?)?;
        }
        Ok(())
    }

    fn encode(&self, tensors: &dyn Array, shape: Option<&TensorShape>, record: usize) -> Result<Vec<u8>, String> {
        let row = match shape {
            Some(TensorShape::Fixed(shape)) => {
                let len: usize = shape.iter().product();
                fixed_values(tensors)
                    .and_then(|values| Some((values.get(record * len..(record + 1) * len)?, shape.clone())))
            }
            _ => variable_row(tensors, record),
        };
        let (values, shape) = row.ok_or("the column holds no tensor here")?;
        let (height, width) = self.pixels.size(&shape).ok_or_else(|| format!("{shape:?} is the shape of no image"))?;
        let data = self.pixels.denormalise(values);
        let pixels = Pixels { width, height, channels: self.pixels.channels, data };
        encode(&pixels, self.output).map_err(|error| format!("{error}; PNG holds images of any size"))
    }
}

/// The name and format of the column to write.
///
/// # Errors
/// A sentence, when there is no such column, or several.
pub(super) fn pixel_column(input: &SchemaRef, wanted: Option<&str>) -> Result<(String, PixelFormat), String> {
    let usable = |field: &Field| match (PixelFormat::of(field)?, TensorShape::of(field)?) {
        (format, TensorShape::Fixed(shape)) => format.size(&shape).map(|_| format),
        (format, TensorShape::Variable(dims)) => (dims == 3).then_some(format),
    };
    let columns = input.fields().iter().filter_map(|field| Some((field.name().clone(), usable(field)?)));
    let mut columns: Vec<(String, PixelFormat)> = columns.collect();
    let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let of_input = if names.is_empty() { "no column here does".to_owned() } else { format!("these do: {names}") };
    match wanted {
        Some(wanted) => {
            let column = columns.into_iter().find(|(name, _)| name == wanted);
            column.ok_or_else(|| format!("`{wanted}` does not hold pixels; {of_input}"))
        }
        None if columns.len() == 1 => Ok(columns.remove(0)),
        None if columns.is_empty() => Err("no column holds pixels; put a `pixels` stage before".to_owned()),
        None => Err(format!("several columns hold pixels; choose one: {names}")),
    }
}
