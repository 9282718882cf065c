//! Responses of `/v1/encode`: the results of the records as JSON, as an Arrow stream, or as a
//! picture.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;

use crate::image::encode::{OutputFormat, encode};
use crate::image::tensor_column::{pixel_columns, pixels_of};
use crate::source::http::ack_waiters::RejectedRecord;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::inference::InferenceResult;
use crate::source::http::media_type::ARROW_STREAM;
use crate::source::http::memory_reservation::MemoryReservation;
use crate::source::http::metered::MeteredBuffer;
use crate::source::http::rejected_lines::{RejectedLine, TruncatedList};
use crate::tensor::TensorShape;

/// Options of a response.
pub(super) struct ResponseOptions {
    columns: Option<Vec<String>>,
    format: ResponseFormat,
}

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseFormat {
    Json,
    Arrow,
    Picture(OutputFormat),
}

/// JPEG quality of responses.
const QUALITY: u8 = 90;

impl ResponseFormat {
    /// The first supported format that `Accept` names; JSON if it names none.
    fn parse(accept: &str) -> Self {
        let kinds = accept.split(',').map(|kind| {
            kind.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
        let known = |kind: String| match kind.as_str() {
            ARROW_STREAM => Some(Self::Arrow),
            "image/png" | "image/*" => Some(Self::Picture(OutputFormat::Png)),
            "image/jpeg" => Some(Self::Picture(OutputFormat::Jpeg(QUALITY))),
            "application/json" => Some(Self::Json),
            _ => None,
        };
        kinds.filter_map(known).next().unwrap_or(Self::Json)
    }
}

/// A response, whose memory is reserved until it is sent.
pub(super) struct EncodeResponse {
    status: StatusCode,
    content_type: &'static str,
    body: ReservedBytes,
}

struct ReservedBytes {
    bytes: Vec<u8>,
    _charge: MemoryReservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl EncodeResponse {
    fn from_buffer(
        written: MeteredBuffer,
        content_type: &'static str,
    ) -> Result<Self, ErrorResponse> {
        let (bytes, charge) = written.finish()?;
        Ok(Self {
            status: StatusCode::OK,
            content_type,
            body: ReservedBytes {
                bytes,
                _charge: charge,
            },
        })
    }
}

impl IntoResponse for EncodeResponse {
    fn into_response(self) -> Response {
        (
            self.status,
            [(CONTENT_TYPE, self.content_type)],
            Bytes::from_owner(self.body),
        )
            .into_response()
    }
}

impl ResponseOptions {
    /// Options from the parameter `columns` and the header `Accept`.
    pub(super) fn new(columns: Option<&str>, accept: &str) -> Self {
        let columns = columns.map(|names| {
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect()
        });
        Self {
            columns,
            format: ResponseFormat::parse(accept),
        }
    }

    /// Checks whether the format supports this number of records.
    ///
    /// # Errors
    /// Returns 400 for several pictures.
    pub(super) fn check(&self, records: usize) -> Result<(), ErrorResponse> {
        match self.format {
            ResponseFormat::Picture(_) if records > 1 => Err(ErrorResponse::bad(format!(
                "a picture response holds one image, but the request has {records}; accept \
                 {ARROW_STREAM}"
            ))),
            _ => Ok(()),
        }
    }

    /// Indices of the columns of the response. Default: all except images and tensors. For a
    /// picture, its tensor.
    ///
    /// # Errors
    /// Returns 400 for a missing column, and 406 if no column is a picture or several are.
    pub(super) fn column_indices(&self, schema: &SchemaRef) -> Result<Vec<usize>, ErrorResponse> {
        if let ResponseFormat::Picture(_) = self.format {
            return self.picture(schema).map(|index| vec![index]);
        }
        let Some(names) = &self.columns else {
            let small = |index: &usize| {
                let field = schema.field(*index);
                let is_image =
                    matches!(field.data_type(), DataType::Binary | DataType::LargeBinary);
                !is_image
                    && (TensorShape::of(field).is_none() || field.extension_type_name().is_none())
            };
            return Ok((0..schema.fields().len()).filter(small).collect());
        };
        names.iter().map(|name| index_of(schema, name)).collect()
    }

    fn picture(&self, schema: &SchemaRef) -> Result<usize, ErrorResponse> {
        let refuse = |what: String| ErrorResponse::new(StatusCode::NOT_ACCEPTABLE, what);
        let pictures = pixel_columns(schema);
        let known = pictures
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let none = || {
            refuse(
                "no column that reaches the first sink holds pixels; accept application/json"
                    .to_owned(),
            )
        };
        let name = match (self.columns.as_deref(), pictures.as_slice()) {
            (_, []) => return Err(none()),
            (Some([name]), _) => name,
            (None, [(name, _)]) => name,
            _ => {
                return Err(refuse(format!(
                    "set columns=NAME to one of the columns that hold pixels: {known}"
                )));
            }
        };
        if !pictures.iter().any(|(picture, _)| picture == name) {
            return Err(refuse(format!(
                "the column `{name}` does not hold pixels; these do: {known}"
            )));
        }
        index_of(schema, name)
    }

    /// Writes a response.
    ///
    /// # Errors
    /// Returns 413 or 429 if no memory is available.
    pub(super) fn write(
        &self,
        encoded: InferenceResult,
        invalid: &TruncatedList<RejectedLine>,
    ) -> Result<EncodeResponse, ErrorResponse> {
        match self.format {
            ResponseFormat::Picture(format) if !encoded.parts.is_empty() => {
                write_picture(encoded, format)
            }
            ResponseFormat::Picture(_) => Ok(EncodeResponse {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                ..write_json(encoded, invalid)?
            }),
            ResponseFormat::Arrow if !encoded.parts.is_empty() => write_arrow(encoded, invalid),
            ResponseFormat::Arrow | ResponseFormat::Json => write_json(encoded, invalid),
        }
    }
}

fn index_of(schema: &SchemaRef, name: &str) -> Result<usize, ErrorResponse> {
    let known = || {
        schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    schema
        .index_of(name)
        .map_err(|_| ErrorResponse::bad(format!("no column `{name}`; expected one of {}", known())))
}

/// The position of a record's line in the output; `None` if the record has no result.
type RowRange = Option<std::ops::Range<usize>>;

fn write_json(
    encoded: InferenceResult,
    invalid: &TruncatedList<RejectedLine>,
) -> Result<EncodeResponse, ErrorResponse> {
    let InferenceResult {
        total,
        parts,
        rejected,
        held,
        charge,
    } = encoded;
    let mut lines = MeteredBuffer::new(held, charge);
    let mut line_ranges: Vec<RowRange> = vec![None; total];
    for (records, origin) in &parts {
        let mut start = lines.bytes.len();
        let mut writer = LineDelimitedWriter::new(&mut lines);
        let written = writer.write(records).and_then(|()| writer.finish());
        drop(writer);
        written.map_err(|error| lines.failed(error))?;
        for at in origin {
            let end = memchr::memchr(b'\n', &lines.bytes[start..])
                .map_or(lines.bytes.len(), |length| start + length);
            line_ranges[*at] = Some(start..end);
            start = end + 1;
        }
    }
    let mut rejected: HashMap<u64, &RejectedRecord> = rejected
        .iter()
        .map(|rejected| (rejected.row, rejected))
        .collect();
    let MeteredBuffer {
        bytes: lines,
        charge: reservation,
        ..
    } = lines;
    let mut answer = MeteredBuffer::new(held + lines.capacity() as u64, reservation);
    let mut write = |text: &[u8]| {
        let written = answer.write_all(text);
        written.map_err(|error| answer.failed(error))
    };
    write(b"{\"records\":[")?;
    for (at, range) in line_ranges.into_iter().enumerate() {
        if at > 0 {
            write(b",")?;
        }
        match (rejected.remove(&(at as u64)), range) {
            (
                Some(RejectedRecord {
                    stage,
                    code,
                    reason,
                    ..
                }),
                _,
            ) => {
                write(
                    json!({ "rejected": { "stage": stage, "code": code, "reason": reason } })
                        .to_string()
                        .as_bytes(),
                )?;
            }
            (None, Some(range)) => write(&lines[range])?,
            (None, None) => write(b"{\"dropped\":true}")?,
        }
    }
    write(b"],\"invalid\":")?;
    write(json!(invalid.first).to_string().as_bytes())?;
    if invalid.count > 0 {
        write(format!(",\"invalid_records\":{}", invalid.count).as_bytes())?;
    }
    write(b"}\n")?;
    drop(lines);
    EncodeResponse::from_buffer(answer, "application/json")
}

/// Writes a stream of the records that passed the graph, with their positions in the column
/// `record`. Rejected and invalid records are in the metadata of the schema.
fn write_arrow(
    encoded: InferenceResult,
    invalid: &TruncatedList<RejectedLine>,
) -> Result<EncodeResponse, ErrorResponse> {
    let Some((first, _)) = encoded.parts.first() else {
        return write_json(encoded, invalid);
    };
    let record_field = Arc::new(Field::new("record", DataType::UInt32, false));
    let fields: Vec<_> = std::iter::once(record_field)
        .chain(first.schema().fields().iter().cloned())
        .collect();
    let metadata = HashMap::from([
        ("rejected".to_owned(), json!(encoded.rejected).to_string()),
        ("invalid".to_owned(), json!(invalid.first).to_string()),
        ("invalid_records".to_owned(), invalid.count.to_string()),
    ]);
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let InferenceResult {
        parts,
        held,
        charge,
        ..
    } = encoded;
    let mut output = MeteredBuffer::new(held, charge);
    let written = StreamWriter::try_new(&mut output, &schema).and_then(|mut writer| {
        for (records, origin) in &parts {
            let record = origin
                .iter()
                .map(|&at| u32::try_from(at).unwrap_or(u32::MAX));
            let record: ArrayRef = Arc::new(UInt32Array::from_iter_values(record));
            let columns = std::iter::once(record)
                .chain(records.columns().iter().cloned())
                .collect();
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        writer.finish()
    });
    written.map_err(|error| output.failed(error))?;
    EncodeResponse::from_buffer(output, ARROW_STREAM)
}

/// Writes the picture of the only record.
fn write_picture(
    encoded: InferenceResult,
    format: OutputFormat,
) -> Result<EncodeResponse, ErrorResponse> {
    let InferenceResult {
        parts,
        held,
        mut charge,
        ..
    } = encoded;
    let Some((records, _)) = parts.first() else {
        return Err(ErrorResponse::failed("the response has no picture"));
    };
    let (field, pixels) = (
        records.schema().field(0).clone(),
        pixel_columns(&records.schema()).into_iter().next(),
    );
    let Some((_, pixels)) = pixels else {
        return Err(ErrorResponse::failed("the column does not hold pixels"));
    };
    // One byte per value of a pixel, and a file of about the same size.
    charge.set(held.saturating_mul(2))?;
    let shape = TensorShape::of(&field);
    let file = pixels_of(records.column(0), shape.as_ref(), &pixels, 0)
        .and_then(|pixels| encode(&pixels, format));
    let bytes =
        file.map_err(|error| ErrorResponse::new(StatusCode::NOT_ACCEPTABLE, error.to_string()))?;
    charge.set(bytes.capacity() as u64)?;
    let content_type = if format == OutputFormat::Png {
        "image/png"
    } else {
        "image/jpeg"
    };
    Ok(EncodeResponse {
        status: StatusCode::OK,
        content_type,
        body: ReservedBytes {
            bytes,
            _charge: charge,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_selects_the_response_format() {
        let png = ResponseFormat::Picture(OutputFormat::Png);
        for (accept, format) in [
            ("", ResponseFormat::Json),
            ("*/*", ResponseFormat::Json),
            (
                "text/html, application/json;q=0.9, image/png",
                ResponseFormat::Json,
            ),
            ("image/png", png),
            (
                "Image/JPEG; q=1, */*",
                ResponseFormat::Picture(OutputFormat::Jpeg(QUALITY)),
            ),
            ("image/webp, image/*", png),
            ("application/vnd.apache.arrow.stream", ResponseFormat::Arrow),
        ] {
            assert_eq!(ResponseFormat::parse(accept), format, "{accept}");
        }
    }
}
