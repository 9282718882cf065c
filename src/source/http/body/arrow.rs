//! Bodies in the Arrow IPC stream format: columns are matched by name, and their size is checked
//! before each is cast to its type.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::source::batch_limits::arrow_bytes;
use crate::source::http::body::budget::BodyBudget;
use crate::source::http::body::cast_size::cast_size;
use crate::source::http::body::decoded::DecodedBody;
use crate::source::http::error_response::ErrorResponse;
use crate::source::table::arrow_ipc::bounded_reader::{BoundedIpcReader, IpcBounds};

/// Maximum size of the metadata of a message in bytes: the schema, or the buffer positions of a
/// record batch.
const HEADER: usize = 1 << 20;

/// The records of a stream, in the columns of the schema.
///
/// # Errors
/// Returns 413 if the records exceed the limits of a request, and 422 if the stream or a column is
/// invalid.
pub(crate) fn parse(
    schema: &SchemaRef,
    body: &[u8],
    budget: &mut BodyBudget<'_>,
) -> Result<DecodedBody, ErrorResponse> {
    budget.hold(body.len() as u64)?;
    // Rows are counted after they are read, as for other bodies.
    let rows = i32::MAX as u64;
    let bounds = IpcBounds {
        header: HEADER,
        rows,
        rows_per_byte: u64::MAX,
        stored: budget.bytes,
        unpacked: budget.bytes,
    };
    let (budget, stopped) = (RefCell::new(budget), RefCell::new(None));
    let reserve = |bytes: u64| {
        let reserved = budget.borrow_mut().hold(bytes);
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
        let budget = &mut *budget.borrow_mut();
        budget.count(batch.num_rows() as u64)?;
        let batch = conform(schema, &declared, &batch, budget)?;
        bytes += arrow_bytes(&batch, 0..batch.num_rows());
        budget.weigh(bytes)?;
        // Empty batches count as well, because each of them allocates some memory.
        budget.hold(PER_COLUMN * schema.fields().len() as u64)?;
        batches.push(batch);
    }
    let budget = &mut *budget.borrow_mut();
    if let [batch] = batches.as_slice() {
        return Ok(DecodedBody {
            columns: batch.clone(),
            held: budget.held() - body.len() as u64,
        });
    }
    budget.hold(bytes)?;
    let columns = concat_batches(schema, &batches)
        .map_err(|error| ErrorResponse::unprocessable(error.to_string()))?;
    Ok(DecodedBody {
        columns,
        held: bytes,
    })
}

/// Bytes that an array allocates in addition to its values.
const PER_COLUMN: u64 = 512;

/// The columns of the schema, matched by name and cast to their types.
fn conform(
    schema: &SchemaRef,
    declared: &Schema,
    batch: &RecordBatch,
    budget: &mut BodyBudget<'_>,
) -> Result<RecordBatch, ErrorResponse> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let mut column = |field: &Field| {
        let (name, expected) = (field.name(), field.data_type());
        let lacks = || {
            ErrorResponse::unprocessable(format!(
                "the stream has no column `{name}`; expected one of type {expected}"
            ))
        };
        let (at, _) = declared.column_with_name(name).ok_or_else(lacks)?;
        let (mut column, actual) = (Arc::clone(batch.column(at)), declared.field(at).data_type());
        let unfit = |error: &dyn std::fmt::Display| {
            ErrorResponse::unprocessable(format!(
                "column `{name}` is {actual}, expected {expected}: {error}"
            ))
        };
        if *actual == DataType::Utf8View {
            let size =
                cast_size(column.as_ref(), &DataType::Utf8).map_err(|error| unfit(&error))?;
            budget.hold(size)?;
            column = cast_with_options(&column, actual, &options).map_err(|error| unfit(&error))?;
        }
        budget.hold(cast_size(column.as_ref(), expected).map_err(|error| unfit(&error))?)?;
        let cast = cast_with_options(&column, expected, &options).map_err(|error| unfit(&error))?;
        match cast.null_count() {
            nulls if nulls > 0 && !field.is_nullable() => Err(ErrorResponse::unprocessable(
                format!("column `{name}` has null values ({nulls}); expected none"),
            )),
            _ => Ok(cast),
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
