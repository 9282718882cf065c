//! A frame of the journal: the records of one request with a checksum, by which a truncated frame
//! is detected.

use std::io::{self, ErrorKind, Read};

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;

use crate::error::StageError;
use crate::source::batch_limits::arrow_bytes;
use crate::source::table::arrow_ipc::bounded_reader::BoundedIpcReader;

/// The first four bytes of every frame.
const MAGIC: u32 = u32::from_le_bytes(*b"LFr1");
/// Size of a frame's head in bytes.
pub(crate) const HEAD: usize = 64;
/// Marks the digest of a request after the records of a frame with a key. Frames of versions before
/// it end with the records.
const SEAL: [u8; 4] = *b"LFid";
/// Maximum size of the records of a frame in bytes; requests are smaller.
const MAX_PAYLOAD: u32 = 1 << 30;

/// A digest of the key with which a client marks the attempts at one request.
pub(crate) type KeyDigest = [u8; 16];
/// The first half of a SHA-256 digest over the contents of a request.
pub(crate) type RequestDigest = [u8; DIGEST];
const DIGEST: usize = 16;

/// Distinguishes requests with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestFingerprint {
    /// A digest of its sender, body, source and type.
    Sha256(RequestDigest),
    /// A checksum of its body, as written by earlier versions.
    Crc32(u32),
}

impl RequestFingerprint {
    /// The fingerprint of a sealed payload; payloads of earlier versions use the checksum `body`.
    fn from_payload(payload: &[u8], body: u32) -> Self {
        let sealed = payload
            .last_chunk::<{ SEAL.len() + DIGEST }>()
            .and_then(|end| end.strip_prefix(&SEAL));
        sealed
            .and_then(|digest| digest.try_into().ok())
            .map_or(Self::Crc32(body), Self::Sha256)
    }
}

/// Appends the digest of a request to its records.
pub(crate) fn seal(payload: &mut Vec<u8>, request: &RequestDigest) {
    payload.extend(SEAL);
    payload.extend(request);
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The row of its first record.
    pub(crate) first: u64,
    /// The first row of the group that was made durable together.
    pub(crate) group: u64,
    /// Number of records.
    pub(crate) rows: u32,
    /// Size of the records in bytes.
    pub(crate) len: u32,
    /// Time at which it was written, in seconds since 1970.
    pub(crate) time: u64,
    /// The request's key, if it has one.
    pub(crate) key: Option<KeyDigest>,
    /// Distinguishes requests with the same key.
    pub(crate) request: RequestFingerprint,
    /// A checksum of the records.
    payload: u32,
}

impl RecordHeader {
    /// The head for a payload, which must be sealed with [`seal`] if there is a key.
    pub(crate) fn new(
        first: u64,
        rows: u32,
        time: u64,
        key: Option<KeyDigest>,
        payload: &[u8],
    ) -> Option<Self> {
        let len = u32::try_from(payload.len())
            .ok()
            .filter(|&len| len <= MAX_PAYLOAD)?;
        let request = RequestFingerprint::from_payload(payload, 0);
        Some(Self {
            first,
            group: first,
            rows,
            len,
            time,
            key,
            request,
            payload: crc32fast::hash(payload),
        })
    }

    /// The same frame, made durable together with the frames from row `group` on.
    pub(crate) fn in_group(self, group: u64) -> Self {
        Self { group, ..self }
    }

    /// The row after its last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.rows)
    }

    /// Size of the frame in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }

    /// Serializes the head; the last four bytes are a checksum of the others.
    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        let body = match self.request {
            RequestFingerprint::Crc32(body) => body,
            RequestFingerprint::Sha256(_) => 0,
        };
        let mut bytes = [0; HEAD];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.first.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.time.to_le_bytes());
        bytes[28..44].copy_from_slice(&self.key.unwrap_or_default());
        bytes[44..48].copy_from_slice(&body.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.payload.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.group.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not a valid head.
    fn parse(bytes: &[u8; HEAD]) -> Option<Self> {
        let four = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let eight = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if four(0)? != MAGIC || four(60)? != crc32fast::hash(&bytes[..60]) {
            return None;
        }
        let key: KeyDigest = bytes[28..44].try_into().ok()?;
        let key = (key != KeyDigest::default()).then_some(key);
        let (first, rows, len) = (eight(4)?, four(12)?, four(16)?);
        let (time, request, payload, group) = (
            eight(20)?,
            RequestFingerprint::Crc32(four(44)?),
            four(48)?,
            eight(52)?,
        );
        let head = Self {
            first,
            group,
            rows,
            len,
            time,
            key,
            request,
            payload,
        };
        (len <= MAX_PAYLOAD && first.checked_add(u64::from(rows)).is_some()).then_some(head)
    }
}

/// The result of reading a frame.
pub(crate) enum WalReadResult {
    /// A frame with valid checksums, and its records as bytes.
    Frame(RecordHeader, Vec<u8>),
    /// The end of the file.
    End,
    /// Other bytes: a truncated or damaged frame.
    Broken,
}

/// Reads the next frame.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(crate) fn read(input: &mut impl Read) -> io::Result<WalReadResult> {
    let mut head = [0; HEAD];
    match fill(input, &mut head)? {
        0 => return Ok(WalReadResult::End),
        HEAD => {}
        _ => return Ok(WalReadResult::Broken),
    }
    let Some(mut head) = RecordHeader::parse(&head) else {
        return Ok(WalReadResult::Broken);
    };
    let mut payload = Vec::new();
    input.take(u64::from(head.len)).read_to_end(&mut payload)?;
    let is_complete =
        payload.len() == head.len as usize && crc32fast::hash(&payload) == head.payload;
    if let RequestFingerprint::Crc32(body) = head.request {
        head.request = RequestFingerprint::from_payload(&payload, body);
    }
    Ok(if is_complete {
        WalReadResult::Frame(head, payload)
    } else {
        WalReadResult::Broken
    })
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Typical size of a frame without the values of its records, in bytes.
const ENVELOPE: usize = 4 << 10;

/// Serializes records as the payload of a frame: an Arrow IPC stream.
///
/// # Errors
/// Returns an error if Arrow cannot write them.
pub(crate) fn encode(records: &RecordBatch) -> Result<Vec<u8>, StageError> {
    let capacity = usize::try_from(arrow_bytes(records, 0..records.num_rows())).unwrap_or(0);
    let mut writer =
        StreamWriter::try_new(Vec::with_capacity(capacity + ENVELOPE), &records.schema())?;
    writer.write(records)?;
    Ok(writer.into_inner()?)
}

/// Parses the records of a frame.
///
/// # Errors
/// Returns an error if the bytes are not a valid stream.
pub(in crate::source) fn decode(payload: &[u8]) -> Result<RecordBatch, String> {
    BoundedIpcReader::start(payload)?
        .next()?
        .ok_or_else(|| "the frame has no records".to_owned())
}

/// As [`decode`], for its fuzz target.
#[cfg(fuzzing)]
pub(crate) fn decoded(payload: &[u8]) -> Option<RecordBatch> {
    decode(payload).ok()
}

#[cfg(test)]
mod tests;
