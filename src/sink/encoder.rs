//! From the tensors of a batch to the bytes of image files.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};

use crate::batch::{Batch, Rejects};
use crate::error::StageError;
use crate::image::ImageError;
use crate::image::decode::Pixels;
use crate::image::encode::{OutputFormat, encode};
use crate::image::format::PixelFormat;
use crate::sink::Prepare;
use crate::sink::names::file_name;
use crate::source::{ROW, SOURCE};
use crate::tensor::{TensorShape, fixed_values, variable_row};

/// Makes files of a batch's records, on the workers: a PNG takes about as long as the inference of a small network.
#[derive(Clone)]
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

/// The columns of an encoded batch: each record's file, as its path relative to the folder and its bytes.
const NAME: &str = "name";
const BYTES: &str = "bytes";

impl Prepare for Encoder {
    fn schema(&self) -> SchemaRef {
        let fields = vec![Field::new(NAME, DataType::Utf8, false), Field::new(BYTES, DataType::LargeBinary, false)];
        Arc::new(Schema::new(fields))
    }

    fn prepare(&self, batch: Batch, rejects: &mut Rejects) -> Result<Batch, StageError> {
        let tensors = column(&batch, &self.column)?;
        let (sources, rows) = (column(&batch, SOURCE)?.as_string::<i32>(), column(&batch, ROW)?);
        let rows = rows.as_primitive::<UInt64Type>();
        let shape = batch.records.schema_ref().field_with_name(&self.column).ok().and_then(TensorShape::of);
        let (mut names, mut files) = (StringBuilder::new(), LargeBinaryBuilder::new());
        let mut kept = Vec::with_capacity(batch.records.num_rows());
        for record in 0..batch.records.num_rows() {
            let encoded = self.encode(tensors, shape.as_ref(), record);
            kept.push(encoded.is_ok());
            match encoded {
                Ok(bytes) => {
                    files.append_value(bytes);
                    names.append_value(file_name(sources.value(record), rows.value(record), self.extension));
                }
                // Where all images have one size, none of them fits into the format.
                Err(error) if matches!(shape, Some(TensorShape::Fixed(_))) => {
                    return Err(StageError::Other(error.to_string()));
                }
                Err(error) => rejects.push(batch.origin[record], error.code(), error.to_string()),
            }
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(names.finish()), Arc::new(files.finish())];
        let records = RecordBatch::try_new(self.schema(), columns)?;
        let origin = batch.origin.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(&ordinal, _)| ordinal).collect();
        Ok(Batch { records, origin, provenance: batch.provenance })
    }
}

/// The files of an encoded batch: their paths relative to the folder, and their bytes.
///
/// # Errors
/// When the batch is not encoded.
pub(super) fn files(batch: &Batch) -> Result<impl Iterator<Item = (&str, &[u8])>, StageError> {
    let (names, files) = (column(batch, NAME)?.as_string::<i32>(), column(batch, BYTES)?.as_binary::<i64>());
    Ok((0..batch.records.num_rows()).map(|record| (names.value(record), files.value(record))))
}

fn column<'a>(batch: &'a Batch, name: &str) -> Result<&'a ArrayRef, StageError> {
    let column = batch.records.column_by_name(name);
    column.ok_or_else(|| StageError::Other(format!("the column `{name}` was planned, but is not there")))
}

impl Encoder {
    fn encode(&self, tensors: &dyn Array, shape: Option<&TensorShape>, record: usize) -> Result<Vec<u8>, ImageError> {
        let row = match shape {
            Some(TensorShape::Fixed(shape)) => {
                let len: usize = shape.iter().product();
                fixed_values(tensors)
                    .and_then(|values| Some((values.get(record * len..(record + 1) * len)?, shape.clone())))
            }
            _ => variable_row(tensors, record),
        };
        let malformed = |reason: String| ImageError::Malformed(reason);
        let (values, shape) = row.ok_or_else(|| malformed("the column holds no tensor here".to_owned()))?;
        let (height, width) =
            self.pixels.size(&shape).ok_or_else(|| malformed(format!("{shape:?} is not the shape of an image")))?;
        let data = self.pixels.denormalise(values);
        let pixels = Pixels { width, height, channels: self.pixels.channels, data };
        encode(&pixels, self.output).map_err(|error| match error {
            ImageError::Unsupported(reason) => {
                ImageError::Unsupported(format!("{reason}; PNG holds images of any size"))
            }
            error => error,
        })
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
