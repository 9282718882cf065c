//! The encoder of the sink `images`, which turns the tensors of a batch into image files.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, LargeBinaryBuilder, RecordBatch, StringBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};

use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::columns::{ROW, SOURCE};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::image::encode::{OutputFormat, encode};
use crate::image::encoded_column::encoded_image;
use crate::image::pixel_format::PixelFormat;
use crate::image::reencode::{ReencodeOptions, reencode};
use crate::image::tensor_column::{pixel_columns, pixels_of};
use crate::image::{ColorSpace, ImageError, ImageFormat, Pixels};
use crate::sink::BatchEncoder;
use crate::source::origin::origin_fields;
use crate::tensor::TensorShape;

/// Encodes the records of a batch as image files. Runs on the workers, since encoding a PNG takes
/// about as long as the inference of a small network.
#[derive(Clone)]
pub(crate) struct ImageEncoder {
    /// The tensor column.
    pub(crate) column: String,
    /// The layout and the value range of its pixels.
    pub(crate) pixels: PixelFormat,
    /// The color space of its pixels.
    pub(crate) color_space: ColorSpace,
    /// The encoding of the files.
    pub(crate) output: FileEncoding,
    /// The extension of the files, unless it depends on the original.
    pub(crate) extension: &'static str,
}

/// The encoding of image files.
#[derive(Debug, Clone)]
pub(crate) enum FileEncoding {
    /// The pixels alone, in one format.
    Pixels(OutputFormat),
    /// The pixels in the format of an original, with its alpha and metadata.
    Original(OriginalImages),
}

/// The encoded images that the files replace.
#[derive(Debug, Clone)]
pub(crate) struct OriginalImages {
    /// The column.
    pub(crate) column: String,
    /// The options of the files.
    pub(crate) options: ReencodeOptions,
}

/// The columns of an encoded batch with the bytes of the files and their extensions.
const BYTES: &str = "bytes";
const EXTENSION: &str = "extension";

impl BatchEncoder for ImageEncoder {
    fn schema(&self) -> SchemaRef {
        // Columns with these names may come from the data and may then have null values.
        let origin = origin_fields()
            .into_iter()
            .map(|field| field.with_nullable(true));
        let files = [
            Field::new(BYTES, DataType::LargeBinary, false),
            Field::new(EXTENSION, DataType::Utf8, false),
        ];
        Arc::new(Schema::new(origin.chain(files).collect::<Vec<_>>()))
    }

    fn encode(&self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let tensors = column(&batch, &self.column)?;
        let (sources, rows) = (column(&batch, SOURCE)?, column(&batch, ROW)?);
        let shape = batch
            .records
            .schema_ref()
            .field_with_name(&self.column)
            .ok()
            .and_then(TensorShape::of);
        let originals = match &self.output {
            FileEncoding::Pixels(_) => None,
            FileEncoding::Original(original) => Some(column(&batch, &original.column)?),
        };
        let mut files = LargeBinaryBuilder::new();
        let mut extensions = StringBuilder::new();
        let mut kept = Vec::with_capacity(batch.records.num_rows());
        for record in 0..batch.records.num_rows() {
            let pixels = pixels_of(tensors, shape.as_ref(), &self.pixels, record);
            let encoded = pixels.and_then(|pixels| match &self.output {
                FileEncoding::Pixels(format) => {
                    let bytes = encode_pixels(&pixels, *format)?;
                    Ok((bytes, self.extension.to_owned()))
                }
                FileEncoding::Original(original) => {
                    let bytes = originals.and_then(|column| encoded_image(column, record));
                    let bytes = bytes.ok_or_else(|| {
                        let column = &original.column;
                        ImageError::Malformed(format!("the image in `{column}` is null"))
                    })?;
                    let file = reencode(bytes, pixels, self.color_space, &original.options)?;
                    let source = string_value(sources, record);
                    Ok((file.bytes, extension_of(source, file.format)))
                }
            });
            kept.push(encoded.is_ok());
            match encoded {
                Ok((bytes, extension)) => {
                    files.append_value(bytes);
                    extensions.append_value(extension);
                }
                // If all images have the same size, the format cannot represent any of them.
                Err(error)
                    if originals.is_none() && matches!(shape, Some(TensorShape::Fixed(_))) =>
                {
                    return Err(StageError::new(ErrorCode::Internal, error.to_string()));
                }
                Err(error) => {
                    rejects.push(batch.row_ordinals[record], error.code(), error.to_string())
                }
            }
        }
        let row_ordinals = batch
            .row_ordinals
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| **kept)
            .map(|(&ordinal, _)| ordinal)
            .collect();
        let kept = BooleanArray::from(kept);
        let columns = vec![
            filter(sources, &kept)?,
            filter(rows, &kept)?,
            Arc::new(files.finish()),
            Arc::new(extensions.finish()),
        ];
        let records = RecordBatch::try_new(self.schema(), columns)?;
        Ok(Batch {
            records,
            row_ordinals,
            provenance: batch.provenance,
        })
    }
}

/// The image file of a record.
pub(crate) struct EncodedImage<'a> {
    /// The source of the record.
    pub(crate) source: &'a str,
    /// The row of the record in the source.
    pub(crate) row: u64,
    /// The content of the file.
    pub(crate) bytes: &'a [u8],
    /// The extension of the file.
    pub(crate) extension: &'a str,
}

/// The image files of an encoded batch, in the order of the records.
///
/// # Errors
/// If the batch is not encoded.
pub(crate) fn files(batch: &Batch) -> Result<impl Iterator<Item = EncodedImage<'_>>, StageError> {
    let (sources, rows) = (
        column(batch, SOURCE)?.as_string::<i32>(),
        column(batch, ROW)?.as_primitive::<UInt64Type>(),
    );
    let files = column(batch, BYTES)?.as_binary::<i64>();
    let extensions = column(batch, EXTENSION)?.as_string::<i32>();
    let encoded = move |at| EncodedImage {
        source: if sources.is_null(at) {
            ""
        } else {
            sources.value(at)
        },
        extension: extensions.value(at),
        row: if rows.is_null(at) { 0 } else { rows.value(at) },
        bytes: files.value(at),
    };
    Ok((0..batch.records.num_rows()).map(encoded))
}

fn column<'a>(batch: &'a Batch, name: &str) -> Result<&'a ArrayRef, StageError> {
    let column = batch.records.column_by_name(name);
    column.ok_or_else(|| {
        StageError::new(
            ErrorCode::Internal,
            format!("the batch does not have the planned column `{name}`"),
        )
    })
}

fn encode_pixels(pixels: &Pixels, format: OutputFormat) -> Result<Vec<u8>, ImageError> {
    encode(pixels, format).map_err(|error| match error {
        ImageError::Unsupported(reason) => ImageError::Unsupported(format!(
            "{reason}; use PNG, which supports images of any size"
        )),
        error => error,
    })
}

fn string_value(column: &ArrayRef, row: usize) -> &str {
    let strings = column.as_string_opt::<i32>();
    strings
        .filter(|strings| !strings.is_null(row))
        .map_or("", |strings| strings.value(row))
}

/// Returns the extension of a source if it is one of the format, else the usual one of the format.
fn extension_of(source: &str, format: ImageFormat) -> String {
    let extensions = format.extensions();
    let file = source.rsplit('/').next().unwrap_or_default();
    let own = file.rsplit_once('.').map(|(_, extension)| extension);
    let own = own.filter(|own| {
        extensions
            .iter()
            .any(|extension| own.eq_ignore_ascii_case(extension))
    });
    own.or(extensions.first().copied())
        .unwrap_or_default()
        .to_owned()
}

/// The name and the pixel format of the column to write: the requested column, or the only one that
/// holds pixels.
///
/// # Errors
/// A message, if no column or more than one column qualifies.
pub(in crate::sink) fn pixel_column(
    input: &SchemaRef,
    requested: Option<&str>,
) -> Result<(String, PixelFormat), String> {
    let mut columns = pixel_columns(input);
    let names = columns
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let of_input = if names.is_empty() {
        "no column of the input holds pixels".to_owned()
    } else {
        format!("the columns with pixels are: {names}")
    };
    match requested {
        Some(requested) => {
            let column = columns.into_iter().find(|(name, _)| name == requested);
            column.ok_or_else(|| format!("`{requested}` does not hold pixels; {of_input}"))
        }
        None if columns.len() == 1 => Ok(columns.remove(0)),
        None if columns.is_empty() => {
            Err("no column holds pixels; add a `pixels` stage before this sink".to_owned())
        }
        None => Err(format!("several columns hold pixels; choose one: {names}")),
    }
}
