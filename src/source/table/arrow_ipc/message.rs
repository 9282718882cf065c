//! The header of an IPC message, and the checks of schemas.

use std::io::Read;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef};
use arrow::ipc::{Message, root_as_message};

use crate::batch::reject::RejectCode;
use crate::text_excerpt::shorten;

/// Maximum bytes of a message header: schemas with tens of thousands of columns take a few MiB.
pub(super) const MAX_HEADER_BYTES: usize = 64 << 20;

/// A header can refer to the same column many times in a few bytes, so each column counts as this
/// number of header bytes.
const FIELD_BYTES: usize = 64;

/// Maximum padding at the end of a stream, in bytes.
pub(super) const PADDING: u64 = 64;

/// The continuation marker, which precedes the length of a message since Arrow 0.15.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];

/// Returns the field with all text views in its type replaced by byte views.
pub(super) fn text_views_as_bytes(field: &FieldRef) -> FieldRef {
    fn nested(data_type: &DataType) -> DataType {
        let within = text_views_as_bytes;
        match data_type {
            DataType::Utf8View => DataType::BinaryView,
            DataType::Dictionary(keys, values) => {
                DataType::Dictionary(keys.clone(), Box::new(nested(values)))
            }
            DataType::RunEndEncoded(ends, values) => {
                DataType::RunEndEncoded(Arc::clone(ends), within(values))
            }
            DataType::List(item) => DataType::List(within(item)),
            DataType::LargeList(item) => DataType::LargeList(within(item)),
            DataType::ListView(item) => DataType::ListView(within(item)),
            DataType::LargeListView(item) => DataType::LargeListView(within(item)),
            DataType::FixedSizeList(item, length) => DataType::FixedSizeList(within(item), *length),
            DataType::Map(entries, is_sorted) => DataType::Map(within(entries), *is_sorted),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect()),
            DataType::Union(fields, mode) => DataType::Union(
                fields
                    .iter()
                    .map(|(id, field)| (id, within(field)))
                    .collect(),
                *mode,
            ),
            other => other.clone(),
        }
    }
    Arc::new(
        field
            .as_ref()
            .clone()
            .with_data_type(nested(field.data_type())),
    )
}

/// The code and the text of the reject that ends the reading of a stream.
pub(crate) type RejectReason = (RejectCode, String);

pub(super) fn malformed(error: impl std::fmt::Display) -> RejectReason {
    (RejectCode::Malformed, shorten(&error.to_string()))
}

pub(super) fn too_large(reason: String) -> RejectReason {
    (RejectCode::TooLarge, reason)
}

/// Reads the header of the next message; `None` at the end of the stream.
pub(super) fn read_header(mut input: impl Read, max: usize) -> Result<Option<Vec<u8>>, String> {
    let mut read = |count: usize| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        (&mut input)
            .take(count as u64)
            .read_to_end(&mut bytes)
            .map_err(text)?;
        Ok(bytes)
    };
    let mut length = read(4)?;
    if length.is_empty() {
        return Ok(None);
    }
    if length == CONTINUATION {
        length = read(4)?;
    }
    let length = length
        .first_chunk()
        .map(|length| i32::from_le_bytes(*length))
        .ok_or("the file ends inside a message")?;
    if length == 0 {
        return Ok(None);
    }
    let count = usize::try_from(length).ok().filter(|&length| length <= max);
    let count = count.ok_or_else(|| {
        format!("a message declares a header of {length} bytes; the maximum is {max}")
    })?;
    let header = read(count)?;
    if header.len() < count {
        Err("the file ends inside a message".to_owned())
    } else {
        Ok(Some(header))
    }
}

pub(super) fn parse(header: &[u8]) -> Result<Message<'_>, String> {
    root_as_message(header)
        .map_err(|error| format!("the header of a message is malformed: {error}"))
}

/// Refuses a schema with more columns, or more text, than its header can hold without repetition.
pub(super) fn check_schema(schema: arrow::ipc::Schema<'_>, header: usize) -> Result<(), String> {
    fn text_of<'a>(pairs: impl Iterator<Item = arrow::ipc::KeyValue<'a>>) -> usize {
        pairs
            .map(|pair| pair.key().map_or(0, str::len) + pair.value().map_or(0, str::len))
            .sum()
    }
    fn count(field: arrow::ipc::Field<'_>, left: &mut usize) -> Option<()> {
        let zone = field
            .type_as_timestamp()
            .and_then(|timestamp| timestamp.timezone())
            .map_or(0, str::len);
        let ids = field
            .type_as_union()
            .and_then(|union| union.typeIds())
            .map_or(0, |ids| ids.bytes().len());
        let name = field.name().map_or(0, str::len);
        let bytes = FIELD_BYTES
            + name
            + zone
            + ids
            + text_of(field.custom_metadata().into_iter().flatten());
        *left = left.checked_sub(bytes)?;
        field
            .children()
            .into_iter()
            .flatten()
            .try_for_each(|child| count(child, left))
    }
    let mut left = header.saturating_sub(text_of(schema.custom_metadata().into_iter().flatten()));
    let counted = schema
        .fields()
        .into_iter()
        .flatten()
        .try_for_each(|field| count(field, &mut left));
    counted.ok_or_else(|| {
        format!(
            "the schema has more columns, or more text, than a header of {header} bytes can hold"
        )
    })
}

pub(super) fn stored(body: &Buffer, offset: i64, length: i64) -> Option<&[u8]> {
    let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(start..start.checked_add(length)?)
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
