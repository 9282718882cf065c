//! The messages of an Arrow IPC stream, with bounds on what each may make the reader allocate.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{Message, MessageHeader, root_as_message};

use crate::batch::RejectCode;
use crate::source::record_files::{ROWS_PER_BYTE, shorten};

/// Columns without values (nulls, lists of nothing) could declare any number of rows for no bytes.
const MAX_BATCH_ROWS: u64 = i32::MAX as u64;
/// Descriptions of messages: schemas with tens of thousands of columns are a few MiB.
const MAX_HEADER_BYTES: usize = 64 << 20;
/// Precedes the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// A stream after its schema.
pub(super) struct Messages<R> {
    input: R,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes of each dictionary that is kept.
    kept: HashMap<i64, u64>,
    most: Most,
}

/// What may be held of a stream. A record batch is held as a whole: stored, decompressed and cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// Bytes of a message as it is stored.
    pub(super) stored: u64,
    /// Bytes of a batch and of all dictionaries once they are decompressed.
    pub(super) unpacked: u64,
}

impl<R: Read> Messages<R> {
    /// Reads the schema of a stream whose bytes are at hand.
    pub(super) fn start(input: R) -> Result<Self, String> {
        Self::bounded(input, Most { stored: 1 << 30, unpacked: 1 << 30 })
    }

    /// Reads the schema; no more than `most` is held.
    pub(super) fn bounded(mut input: R, most: Most) -> Result<Self, String> {
        let header = read_header(&mut input)?.ok_or("there is no schema; expected an Arrow IPC file or stream")?;
        let message = parse(&header)?;
        let schema = message.header_as_schema().ok_or("the first message is no schema")?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err("values are in the byte order of another machine".to_owned());
        }
        let schema = Arc::new(try_fb_to_schema(schema).map_err(text)?);
        Ok(Self { input, schema, dictionaries: HashMap::new(), kept: HashMap::new(), most })
    }

    /// The stream's columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next record batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        self.next_batch().map_err(|(_, what)| what)
    }

    /// As [`Self::next`]; an error says whether the stream is malformed or too large.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, Refusal> {
        while let Some(header) = read_header(&mut self.input).map_err(malformed)? {
            let message = parse(&header).map_err(malformed)?;
            let body = self.read_body(message.bodyLength())?;
            match message.header_type() {
                MessageHeader::RecordBatch => {
                    let batch = message
                        .header_as_record_batch()
                        .ok_or_else(|| malformed("a record batch without its description"))?;
                    self.check_batch(&batch, &body, header.len())?;
                    let (schema, version) = (self.schema.clone(), message.version());
                    let batch = read_record_batch(&body, batch, schema, &self.dictionaries, None, &version);
                    return batch.map(Some).map_err(malformed);
                }
                MessageHeader::DictionaryBatch => {
                    let dictionary = message
                        .header_as_dictionary_batch()
                        .ok_or_else(|| malformed("a dictionary without its description"))?;
                    let data = dictionary.data().ok_or_else(|| malformed("a dictionary without values"))?;
                    let bytes = self.check_batch(&data, &body, header.len())?.max(body.len() as u64);
                    let kept = self.kept.entry(dictionary.id()).or_default();
                    // One that goes on is held beside what it is added to, while it is.
                    *kept = if dictionary.isDelta() { kept.saturating_add(bytes) } else { bytes };
                    let version = message.version();
                    let read = read_dictionary(&body, dictionary, &self.schema, &mut self.dictionaries, &version);
                    read.map_err(malformed)?;
                }
                other => return Err(malformed(format!("met a message of type {other:?} among record batches"))),
            }
        }
        Ok(None)
    }

    fn read_body(&mut self, len: i64) -> Result<Buffer, Refusal> {
        let len = u64::try_from(len).map_err(|_| malformed(format!("a message declares a body of {len} bytes")))?;
        if len > self.most.stored {
            let most = self.most.stored;
            return Err(too_large(format!("a record batch has {len} bytes; at most {most} are read at a time")));
        }
        let mut body = Vec::new();
        let read = (&mut self.input).take(len).read_to_end(&mut body).map_err(malformed)? as u64;
        if read < len {
            Err(malformed(format!("the file ends after {read} of {len} bytes of a message")))
        } else {
            Ok(body.into())
        }
    }

    /// Refuses what would take more memory than a batch may, before any of it is allocated. Returns the bytes that its buffers
    /// take once they are decompressed, or copied because several show the same bytes.
    fn check_batch(&self, batch: &arrow::ipc::RecordBatch<'_>, body: &Buffer, header: usize) -> Result<u64, Refusal> {
        let mut total: u64 = 0;
        for buffer in batch.buffers().into_iter().flatten() {
            let stored = stored(body, buffer.offset(), buffer.length())
                .ok_or_else(|| malformed("a buffer lies outside its message"))?;
            // -1: the buffer is stored as it is.
            let declared = stored.first_chunk().map_or(-1, |declared| i64::from_le_bytes(*declared));
            let declared = batch.compression().and_then(|_| u64::try_from(declared).ok());
            total = total.saturating_add(declared.unwrap_or(stored.len() as u64));
        }
        // A row takes a bit at least of what its buffers unpack to; those without buffers are bounded by what is stored.
        let rows = batch.length();
        let believed = (header as u64 + body.len() as u64)
            .saturating_mul(ROWS_PER_BYTE)
            .max(total.saturating_mul(8))
            .min(MAX_BATCH_ROWS);
        if !u64::try_from(rows).is_ok_and(|rows| rows <= believed) {
            return Err(too_large(format!(
                "a record batch declares {rows} rows; at most {believed} are read of its bytes"
            )));
        }
        // Without compression buffers lie side by side in the body, which is held already.
        let unpacked = if batch.compression().is_none() && total <= body.len() as u64 { 0 } else { total };
        let kept: u64 = self.kept.values().fold(0, |sum, &bytes| sum.saturating_add(bytes));
        let most = self.most.unpacked;
        if unpacked.saturating_add(kept) > most {
            let kept = if kept > 0 { format!(" beside dictionaries of {kept} bytes") } else { String::new() };
            let what =
                format!("a record batch declares {unpacked} bytes{kept}; at most {most} may be held (limits.memory)");
            return Err(too_large(what));
        }
        Ok(unpacked)
    }
}

/// Why a stream is not read on.
pub(super) type Refusal = (RejectCode, String);

fn malformed(error: impl std::fmt::Display) -> Refusal {
    (RejectCode::Malformed, shorten(&error.to_string()))
}

fn too_large(what: String) -> Refusal {
    (RejectCode::TooLarge, what)
}

/// The next message's description; `None` at the end of the stream.
fn read_header(mut input: impl Read) -> Result<Option<Vec<u8>>, String> {
    let mut read = |count: usize| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        (&mut input).take(count as u64).read_to_end(&mut bytes).map_err(text)?;
        Ok(bytes)
    };
    let mut length = read(4)?;
    if length.is_empty() {
        return Ok(None);
    }
    if length == CONTINUATION {
        length = read(4)?;
    }
    let length =
        length.first_chunk().map(|length| i32::from_le_bytes(*length)).ok_or("the file ends inside a message")?;
    if length == 0 {
        return Ok(None);
    }
    let count = usize::try_from(length).ok().filter(|&length| length <= MAX_HEADER_BYTES);
    let count = count.ok_or_else(|| format!("a message declares a description of {length} bytes"))?;
    let header = read(count)?;
    if header.len() < count { Err("the file ends inside a message".to_owned()) } else { Ok(Some(header)) }
}

fn parse(header: &[u8]) -> Result<Message<'_>, String> {
    root_as_message(header).map_err(|error| format!("the description of a message is broken: {error}"))
}

fn stored(body: &Buffer, offset: i64, length: i64) -> Option<&[u8]> {
    let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(start..start.checked_add(length)?)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
