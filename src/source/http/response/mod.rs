//! Responses of `/v1/encode`: the results of the records as JSON, as an Arrow stream, or as a
//! picture.

pub(crate) mod write;

use arrow::datatypes::{DataType, SchemaRef};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::image::encode::OutputFormat;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::tensor_column::pixel_columns;
use crate::source::http::body::media_type::ARROW_STREAM;
use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::body::metered::MeteredBuffer;
use crate::source::http::body::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::inference_result::InferenceResult;
use crate::source::http::response::write::{write_arrow, write_json, write_picture};
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
const JPEG: JpegOptions = JpegOptions::of_quality(90);

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
            "image/jpeg" => Some(Self::Picture(OutputFormat::Jpeg(JPEG))),
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

#[cfg(test)]
mod tests;
