//! A reader of Arrow IPC messages that bounds the memory that each message may allocate.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{Message, MessageHeader, root_as_message};

use crate::batch::RejectCode;
use crate::source::file_source::{ROWS_PER_BYTE, shorten};

/// Maximum rows of a record batch: columns without values (nulls, empty lists) could declare any
/// number of rows in zero bytes.
const MAX_BATCH_ROWS: u64 = i32::MAX as u64;
/// Maximum bytes of a message header: schemas with tens of thousands of columns take a few MiB.
const MAX_HEADER_BYTES: usize = 64 << 20;
/// A header can refer to the same column many times in a few bytes, so each column counts as this
/// number of header bytes.
const FIELD_BYTES: usize = 64;
/// Maximum padding at the end of a stream, in bytes.
const PADDING: u64 = 64;
/// The continuation marker, which precedes the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Bounds on one message. A record batch is held in memory completely: stored, decompressed and
/// cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct IpcBounds {
    /// Maximum bytes of the message header, and of the text in a schema.
    pub(super) header: usize,
    /// Maximum rows of a record batch.
    pub(super) rows: u64,
    /// Maximum rows for each stored byte, if the buffers do not hold the rows.
    pub(super) rows_per_byte: u64,
    /// Maximum stored bytes of a message body.
    pub(super) stored: u64,
    /// Maximum bytes of a batch and all dictionaries after decompression.
    pub(super) unpacked: u64,
}

impl IpcBounds {
    /// Returns the bounds for a file: at most `stored` bytes of a message body and `unpacked` bytes
    /// after decompression are held in memory.
    pub(super) const fn of_file(stored: u64, unpacked: u64) -> Self {
        Self {
            header: MAX_HEADER_BYTES,
            rows: MAX_BATCH_ROWS,
            rows_per_byte: ROWS_PER_BYTE,
            stored,
            unpacked,
        }
    }
}

/// Receives the number of bytes before they are allocated; an error stops the reader.
type ReserveMemory = fn(u64) -> Result<(), String>;

/// A stream whose schema has been read.
pub(super) struct BoundedIpcReader<R, F = ReserveMemory> {
    input: R,
    bounds: IpcBounds,
    reserve: F,
    schema: SchemaRef,
    /// The schema with the types that columns are read as.
    read_as: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes of each dictionary in memory.
    kept: HashMap<i64, u64>,
}

impl<R: Read> BoundedIpcReader<R> {
    /// Reads the schema of a stream that is in memory.
    pub(super) fn start(input: R) -> Result<Self, String> {
        Self::bounded(input, IpcBounds::of_file(1 << 30, 1 << 30))
    }

    /// Reads the schema of a stream within `bounds`.
    pub(super) fn bounded(input: R, bounds: IpcBounds) -> Result<Self, String> {
        Self::with_reservation(input, bounds, |_| Ok(()))
    }
}

impl<R: Read, F: FnMut(u64) -> Result<(), String>> BoundedIpcReader<R, F> {
    /// As [`BoundedIpcReader::bounded`]; calls `reserve` with the number of bytes before each
    /// allocation.
    pub(super) fn with_reservation(
        mut input: R,
        bounds: IpcBounds,
        reserve: F,
    ) -> Result<Self, String> {
        let header = read_header(&mut input, bounds.header)?;
        let header = header.ok_or("the schema is missing; expected an Arrow IPC file or stream")?;
        let message = parse(&header)?;
        let schema = message
            .header_as_schema()
            .ok_or("the first message is not a schema")?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err(
                "the byte order of the values differs from that of this machine".to_owned(),
            );
        }
        check_schema(schema, bounds.header)?;
        let schema = Arc::new(try_fb_to_schema(schema).map_err(text)?);
        let read_as = Arc::clone(&schema);
        Ok(Self {
            input,
            bounds,
            reserve,
            schema,
            read_as,
            dictionaries: HashMap::new(),
            kept: HashMap::new(),
        })
    }

    /// Reads views of text as views of bytes. Any number of views may refer to the same text, which
    /// would be validated as UTF-8 once for each view; the caller validates it after it has checked
    /// their total length.
    pub(super) fn with_text_views_as_bytes(mut self) -> Self {
        let fields: Vec<FieldRef> = self
            .schema
            .fields()
            .iter()
            .map(text_views_as_bytes)
            .collect();
        self.read_as = Arc::new(Schema::new(fields));
        self
    }

    /// Returns the columns of the stream.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the next record batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        self.next_batch().map_err(|(_, reason)| reason)
    }

    /// As [`Self::next`]; the code of an error is `malformed` or `too_large`.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, RejectReason> {
        while let Some(header) =
            read_header(&mut self.input, self.bounds.header).map_err(malformed)?
        {
            let message = parse(&header).map_err(malformed)?;
            let body = self.read_body(message.bodyLength())?;
            match message.header_type() {
                MessageHeader::RecordBatch => {
                    let batch = message
                        .header_as_record_batch()
                        .ok_or_else(|| malformed("a record batch has no header"))?;
                    let unpacked = self.check_batch(&batch, &body, header.len())?;
                    (self.reserve)(unpacked).map_err(too_large)?;
                    let (schema, version) = (self.read_as.clone(), message.version());
                    let batch =
                        read_record_batch(&body, batch, schema, &self.dictionaries, None, &version);
                    return batch.map(Some).map_err(malformed);
                }
                MessageHeader::DictionaryBatch => {
                    let dictionary = message
                        .header_as_dictionary_batch()
                        .ok_or_else(|| malformed("a dictionary has no header"))?;
                    let data = dictionary
                        .data()
                        .ok_or_else(|| malformed("a dictionary has no values"))?;
                    let unpacked = self.check_batch(&data, &body, header.len())?;
                    let bytes = unpacked.max(body.len() as u64);
                    // Extending a dictionary copies it.
                    (self.reserve)(bytes.saturating_add(unpacked)).map_err(too_large)?;
                    let kept = self.kept.entry(dictionary.id()).or_default();
                    // While a delta is added, both it and the dictionary it extends are in memory.
                    *kept = if dictionary.isDelta() {
                        kept.saturating_add(bytes)
                    } else {
                        bytes
                    };
                    let version = message.version();
                    let read = read_dictionary(
                        &body,
                        dictionary,
                        &self.read_as,
                        &mut self.dictionaries,
                        &version,
                    );
                    read.map_err(malformed)?;
                }
                other => {
                    return Err(malformed(format!(
                        "unexpected message of type {other:?}; \
                         expected a record batch or a dictionary"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Returns whether the bytes behind the end-of-stream marker exceed the maximum padding.
    pub(super) fn has_rest(&mut self) -> Result<bool, RejectReason> {
        let mut rest = Vec::new();
        (&mut self.input)
            .take(PADDING + 1)
            .read_to_end(&mut rest)
            .map_err(malformed)?;
        Ok(rest.len() as u64 > PADDING)
    }

    fn read_body(&mut self, len: i64) -> Result<Buffer, RejectReason> {
        let len = u64::try_from(len)
            .map_err(|_| malformed(format!("a message declares a body of {len} bytes")))?;
        let max = self.bounds.stored;
        if len > max {
            return Err(too_large(format!(
                "a record batch has {len} bytes; the maximum is {max}"
            )));
        }
        (self.reserve)(len).map_err(too_large)?;
        let mut body = Vec::new();
        let read = (&mut self.input)
            .take(len)
            .read_to_end(&mut body)
            .map_err(malformed)? as u64;
        if read < len {
            Err(malformed(format!(
                "the file ends after {read} of {len} bytes of a message"
            )))
        } else {
            Ok(body.into())
        }
    }

    /// Rejects a batch that exceeds a bound, before any of it is allocated. Returns the bytes that
    /// its buffers take after decompression, or after copying if several buffers share the same
    /// bytes.
    fn check_batch(
        &self,
        batch: &arrow::ipc::RecordBatch<'_>,
        body: &Buffer,
        header: usize,
    ) -> Result<u64, RejectReason> {
        let mut total: u64 = 0;
        for buffer in batch.buffers().into_iter().flatten() {
            let stored = stored(body, buffer.offset(), buffer.length())
                .ok_or_else(|| malformed("a buffer lies outside its message"))?;
            // A length of -1 means that the buffer is not compressed.
            let declared = stored
                .first_chunk()
                .map_or(-1, |declared| i64::from_le_bytes(*declared));
            let declared = batch
                .compression()
                .and_then(|_| u64::try_from(declared).ok());
            total = total.saturating_add(declared.unwrap_or(stored.len() as u64));
        }
        // A row takes at least one bit of the decompressed buffers. Rows of columns without buffers
        // are bounded by the stored bytes.
        let rows = batch.length();
        let max_rows = (header as u64 + body.len() as u64)
            .saturating_mul(self.bounds.rows_per_byte)
            .max(total.saturating_mul(8))
            .min(self.bounds.rows);
        if !u64::try_from(rows).is_ok_and(|rows| rows <= max_rows) {
            return Err(too_large(format!(
                "a record batch declares {rows} rows; the maximum for its bytes is {max_rows}"
            )));
        }
        // Uncompressed buffers that do not overlap lie in the body, which is in memory already.
        let unpacked = if batch.compression().is_none() && total <= body.len() as u64 {
            0
        } else {
            total
        };
        let kept: u64 = self
            .kept
            .values()
            .fold(0, |sum, &bytes| sum.saturating_add(bytes));
        let max = self.bounds.unpacked;
        if unpacked.saturating_add(kept) > max {
            let kept = if kept > 0 {
                format!(" in addition to dictionaries of {kept} bytes")
            } else {
                String::new()
            };
            let reason = format!(
                "a record batch declares {unpacked} bytes{kept}; \
                 the maximum is {max} (limits.memory)"
            );
            return Err(too_large(reason));
        }
        Ok(unpacked)
    }
}

/// Returns the field with all text views in its type replaced by byte views.
fn text_views_as_bytes(field: &FieldRef) -> FieldRef {
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
pub(super) type RejectReason = (RejectCode, String);

fn malformed(error: impl std::fmt::Display) -> RejectReason {
    (RejectCode::Malformed, shorten(&error.to_string()))
}

fn too_large(reason: String) -> RejectReason {
    (RejectCode::TooLarge, reason)
}

/// Reads the header of the next message; `None` at the end of the stream.
fn read_header(mut input: impl Read, max: usize) -> Result<Option<Vec<u8>>, String> {
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

fn parse(header: &[u8]) -> Result<Message<'_>, String> {
    root_as_message(header)
        .map_err(|error| format!("the header of a message is malformed: {error}"))
}

/// Refuses a schema with more columns, or more text, than its header can hold without repetition.
fn check_schema(schema: arrow::ipc::Schema<'_>, header: usize) -> Result<(), String> {
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

fn stored(body: &Buffer, offset: i64, length: i64) -> Option<&[u8]> {
    let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(start..start.checked_add(length)?)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::NullArray;
    use arrow::ipc::writer::StreamWriter;
    use arrow::ipc::{
        FieldBuilder, MessageBuilder, MetadataVersion, NullBuilder, SchemaBuilder, Type,
    };
    use flatbuffers::FlatBufferBuilder;

    use super::*;

    const BOUNDS: IpcBounds = IpcBounds {
        header: 1 << 20,
        rows: 1000,
        rows_per_byte: ROWS_PER_BYTE,
        stored: 1 << 20,
        unpacked: 1 << 20,
    };

    /// Returns a stream whose schema refers to one column `count` times, in 4 bytes each.
    fn repeated(count: usize) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let name = builder.create_string(&"n".repeat(1000));
        let null = NullBuilder::new(&mut builder).finish();
        let mut field = FieldBuilder::new(&mut builder);
        field.add_name(name);
        field.add_type_type(Type::Null);
        field.add_type_(null.as_union_value());
        let field = field.finish();
        let fields = builder.create_vector(&vec![field; count]);
        let mut schema = SchemaBuilder::new(&mut builder);
        schema.add_fields(fields);
        let schema = schema.finish();
        let mut message = MessageBuilder::new(&mut builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::Schema);
        message.add_header(schema.as_union_value());
        let message = message.finish();
        builder.finish(message, None);
        let header = builder.finished_data();
        let length = i32::try_from(header.len()).unwrap().to_le_bytes();
        [CONTINUATION.as_slice(), &length, header].concat()
    }

    #[test]
    fn schema_that_repeats_one_column_is_refused() {
        let start = |count| {
            BoundedIpcReader::with_reservation(repeated(count).as_slice(), BOUNDS, |_| Ok(()))
                .map(|_| ())
        };
        assert_eq!(start(100), Ok(()));
        let error = start(100_000).unwrap_err();
        assert!(
            error.starts_with("the schema has more columns, or more text, "),
            "{error}"
        );
    }

    #[test]
    fn refused_reservation_stops_the_reader() {
        let batch = RecordBatch::try_from_iter([
            (
                "a",
                Arc::new(arrow::array::Int64Array::from(vec![1; 500])) as ArrayRef,
            ),
            ("b", Arc::new(NullArray::new(500))),
        ]);
        let batch = batch.unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let body = writer.into_inner().unwrap();
        let mut announced = 0;
        let mut messages = BoundedIpcReader::with_reservation(body.as_slice(), BOUNDS, |bytes| {
            announced += bytes;
            Ok(())
        });
        assert_eq!(messages.as_mut().unwrap().next().unwrap().unwrap(), batch);
        drop(messages);
        assert!(announced >= 4000, "{announced}");
        let mut refused = BoundedIpcReader::with_reservation(body.as_slice(), BOUNDS, |_| {
            Err("no memory".to_owned())
        })
        .unwrap();
        assert_eq!(refused.next().unwrap_err(), "no memory");
        let few = IpcBounds {
            rows: 499,
            ..BOUNDS
        };
        assert!(
            BoundedIpcReader::with_reservation(body.as_slice(), few, |_| Ok(()))
                .unwrap()
                .next()
                .unwrap_err()
                .starts_with("a record batch declares 500 rows; ")
        );
    }
}
