//! Bodies that are Arrow IPC streams: columns by name, each cast to its type, and weighed before it
//! is.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::source::batch_limits::arrow_bytes;
use crate::source::bounded_ipc_reader::{BoundedIpcReader, IpcBounds};
use crate::source::http::cast_size::cast_size;
use crate::source::http::columns::{BodyBudget, DecodedBody};
use crate::source::http::error_response::ErrorResponse;

/// Bytes of the description of a message: the schema, or where the buffers of a record batch lie.
const HEADER: usize = 1 << 20;

/// The records of a stream, in the columns of the schema.
///
/// # Errors
/// 413 where they are more than a request may have, 422 where the stream or a column is not what it
/// should be.
pub(super) fn parse(
    schema: &SchemaRef,
    body: &[u8],
    most: &mut BodyBudget<'_>,
) -> Result<DecodedBody, ErrorResponse> {
    most.hold(body.len() as u64)?;
    // Rows are counted once they are read, as those of other bodies are.
    let rows = i32::MAX as u64;
    let bounds = IpcBounds {
        header: HEADER,
        rows,
        rows_per_byte: u64::MAX,
        stored: most.bytes,
        unpacked: most.bytes,
    };
    let (most, stopped) = (RefCell::new(most), RefCell::new(None));
    let reserve = |bytes: u64| {
        let reserved = most.borrow_mut().hold(bytes);
        reserved.map_err(|refusal| {
            let message = refusal.message.clone();
            stopped.replace(Some(refusal));
            message
        })
    };
    let unfit = |message: String| {
        stopped
            .take()
            .unwrap_or_else(|| ErrorResponse::unprocessable(message))
    };
    let mut messages = BoundedIpcReader::with_reservation(body, bounds, reserve)
        .map_err(unfit)?
        .with_text_views_as_bytes();
    let declared = SchemaRef::clone(messages.schema());
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = messages.next().map_err(unfit)? {
        let most = &mut *most.borrow_mut();
        most.count(batch.num_rows() as u64)?;
        let batch = conform(schema, &declared, &batch, most)?;
        bytes += arrow_bytes(&batch, 0..batch.num_rows());
        most.weigh(bytes)?;
        // Empty batches count as well: each takes some memory.
        most.hold(PER_COLUMN * schema.fields().len() as u64)?;
        batches.push(batch);
    }
    let most = &mut *most.borrow_mut();
    if let [batch] = batches.as_slice() {
        return Ok(DecodedBody {
            columns: batch.clone(),
            held: most.held() - body.len() as u64,
        });
    }
    most.hold(bytes)?;
    let columns = concat_batches(schema, &batches)
        .map_err(|error| ErrorResponse::unprocessable(error.to_string()))?;
    Ok(DecodedBody {
        columns,
        held: bytes,
    })
}

/// Bytes that an array takes besides its values.
const PER_COLUMN: u64 = 512;

/// The columns of the schema, by name, each in its type.
fn conform(
    schema: &SchemaRef,
    declared: &Schema,
    batch: &RecordBatch,
    most: &mut BodyBudget<'_>,
) -> Result<RecordBatch, ErrorResponse> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let mut column = |field: &Field| {
        let (name, wanted) = (field.name(), field.data_type());
        let lacks = || {
            ErrorResponse::unprocessable(format!(
                "there is no column `{name}` ({wanted}) among those that came"
            ))
        };
        let (at, _) = declared.column_with_name(name).ok_or_else(lacks)?;
        let (mut met, came_as) = (Arc::clone(batch.column(at)), declared.field(at).data_type());
        let unfit = |error: &dyn std::fmt::Display| {
            ErrorResponse::unprocessable(format!(
                "column `{name}` is {came_as}, expected {wanted}: {error}"
            ))
        };
        if *came_as == DataType::Utf8View {
            most.hold(cast_size(met.as_ref(), &DataType::Utf8).map_err(|error| unfit(&error))?)?;
            met = cast_with_options(&met, came_as, &options).map_err(|error| unfit(&error))?;
        }
        most.hold(cast_size(met.as_ref(), wanted).map_err(|error| unfit(&error))?)?;
        let column = cast_with_options(&met, wanted, &options).map_err(|error| unfit(&error))?;
        match column.null_count() {
            nulls if nulls > 0 && !field.is_nullable() => Err(ErrorResponse::unprocessable(
                format!("column `{name}` lacks {nulls} values"),
            )),
            _ => Ok(column),
        }
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| column(field))
        .collect::<Result<Vec<_>, ErrorResponse>>()?;
    RecordBatch::try_new(SchemaRef::clone(schema), columns)
        .map_err(|error| ErrorResponse::unprocessable(error.to_string()))
}
