//! Writes results as JSON, Arrow and pictures.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use axum::http::StatusCode;
use serde_json::json;

use crate::image::encode::{OutputFormat, encode};
use crate::image::tensor_column::{pixel_columns, pixels_of};
use crate::source::http::ack_waiters::RejectedRecord;
use crate::source::http::body::media_type::ARROW_STREAM;
use crate::source::http::body::metered::MeteredBuffer;
use crate::source::http::body::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::inference_result::InferenceResult;
use crate::source::http::response::{EncodeResponse, ReservedBytes, RowRange};
use crate::tensor::TensorShape;

pub(super) fn write_json(
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
pub(super) fn write_arrow(
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
pub(super) fn write_picture(
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
