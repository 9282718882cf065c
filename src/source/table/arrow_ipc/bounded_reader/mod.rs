//! A reader of Arrow IPC messages that bounds the memory that each message may allocate.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::ipc::MessageHeader;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};

use crate::source::table::arrow_ipc::message::{
    MAX_HEADER_BYTES, PADDING, RejectReason, check_schema, malformed, parse, read_header, stored,
    text, text_views_as_bytes, too_large,
};
use crate::source::table::file_source::ROWS_PER_BYTE;

/// Maximum rows of a record batch: columns without values (nulls, empty lists) could declare any
/// number of rows in zero bytes.
const MAX_BATCH_ROWS: u64 = i32::MAX as u64;

/// Bounds on one message. A record batch is held in memory completely: stored, decompressed and
/// cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IpcBounds {
    /// Maximum bytes of the message header, and of the text in a schema.
    pub(crate) header: usize,
    /// Maximum rows of a record batch.
    pub(crate) rows: u64,
    /// Maximum rows for each stored byte, if the buffers do not hold the rows.
    pub(crate) rows_per_byte: u64,
    /// Maximum stored bytes of a message body.
    pub(crate) stored: u64,
    /// Maximum bytes of a batch and all dictionaries after decompression.
    pub(crate) unpacked: u64,
}

impl IpcBounds {
    /// Returns the bounds for a file: at most `stored` bytes of a message body and `unpacked` bytes
    /// after decompression are held in memory.
    pub(crate) const fn of_file(stored: u64, unpacked: u64) -> Self {
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
pub(crate) struct BoundedIpcReader<R, F = ReserveMemory> {
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
    pub(in crate::source) fn start(input: R) -> Result<Self, String> {
        Self::bounded(input, IpcBounds::of_file(1 << 30, 1 << 30))
    }

    /// Reads the schema of a stream within `bounds`.
    pub(in crate::source) fn bounded(input: R, bounds: IpcBounds) -> Result<Self, String> {
        Self::with_reservation(input, bounds, |_| Ok(()))
    }
}

impl<R: Read, F: FnMut(u64) -> Result<(), String>> BoundedIpcReader<R, F> {
    /// As [`BoundedIpcReader::bounded`]; calls `reserve` with the number of bytes before each
    /// allocation.
    pub(in crate::source) fn with_reservation(
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
    pub(crate) fn with_text_views_as_bytes(mut self) -> Self {
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
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the next record batch; `None` at the end.
    pub(in crate::source) fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        self.next_batch().map_err(|(_, reason)| reason)
    }

    /// As [`Self::next`]; the code of an error is `malformed` or `too_large`.
    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>, RejectReason> {
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
    pub(crate) fn has_rest(&mut self) -> Result<bool, RejectReason> {
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

#[cfg(test)]
mod tests;
