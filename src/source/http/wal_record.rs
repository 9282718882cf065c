//! A frame of the journal: the records of one request with a checksum, by which a truncated frame
//! is detected.

use std::io::{self, ErrorKind, Read};

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;

use crate::error::StageError;
use crate::source::batch_limits::arrow_bytes;
use crate::source::bounded_ipc_reader::BoundedIpcReader;

/// The first four bytes of every frame.
const MAGIC: u32 = u32::from_le_bytes(*b"LFr1");
/// Size of a frame's head in bytes.
pub(super) const HEAD: usize = 64;
/// Marks the digest of a request after the records of a frame with a key. Frames of versions before
/// it end with the records.
const SEAL: [u8; 4] = *b"LFid";
/// Maximum size of the records of a frame in bytes; requests are smaller.
const MAX_PAYLOAD: u32 = 1 << 30;

/// A digest of the key with which a client marks the attempts at one request.
pub(super) type KeyDigest = [u8; 16];
/// The first half of a SHA-256 digest over the contents of a request.
pub(super) type RequestDigest = [u8; DIGEST];
const DIGEST: usize = 16;

/// Distinguishes requests with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFingerprint {
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
pub(super) fn seal(payload: &mut Vec<u8>, request: &RequestDigest) {
    payload.extend(SEAL);
    payload.extend(request);
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// The row of its first record.
    pub(super) first: u64,
    /// The first row of the group that was made durable together.
    pub(super) group: u64,
    /// Number of records.
    pub(super) rows: u32,
    /// Size of the records in bytes.
    pub(super) len: u32,
    /// Time at which it was written, in seconds since 1970.
    pub(super) time: u64,
    /// The request's key, if it has one.
    pub(super) key: Option<KeyDigest>,
    /// Distinguishes requests with the same key.
    pub(super) request: RequestFingerprint,
    /// A checksum of the records.
    payload: u32,
}

impl RecordHeader {
    /// The head for a payload, which must be sealed with [`seal`] if there is a key.
    pub(super) fn new(
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
    pub(super) fn in_group(self, group: u64) -> Self {
        Self { group, ..self }
    }

    /// The row after its last record.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.rows)
    }

    /// Size of the frame in bytes.
    pub(super) fn bytes(&self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }

    /// Serializes the head; the last four bytes are a checksum of the others.
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
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
pub(super) enum WalReadResult {
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
pub(super) fn read(input: &mut impl Read) -> io::Result<WalReadResult> {
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
pub(super) fn encode(records: &RecordBatch) -> Result<Vec<u8>, StageError> {
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
pub(super) fn decode(payload: &[u8]) -> Result<RecordBatch, String> {
    BoundedIpcReader::start(payload)?
        .next()?
        .ok_or_else(|| "the frame has no records".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn records() -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)])
            .unwrap()
    }

    fn frame(key: Option<(KeyDigest, RequestDigest)>) -> (RecordHeader, Vec<u8>) {
        let mut payload = encode(&records()).unwrap();
        if let Some((_, request)) = &key {
            seal(&mut payload, request);
        }
        let key = key.map(|(key, _)| key);
        let head = RecordHeader::new(7, 2, 1_700_000_000, key, &payload)
            .unwrap()
            .in_group(5);
        (head, [head.to_bytes().as_slice(), &payload].concat())
    }

    #[test]
    fn frame_round_trips() {
        for key in [None, Some(([3; 16], [9; 16]))] {
            let (head, bytes) = frame(key);
            assert_eq!((head.end(), head.bytes()), (9, bytes.len() as u64));
            let mut input = bytes.as_slice();
            let WalReadResult::Frame(header, payload) = read(&mut input).unwrap() else {
                panic!("expected a frame")
            };
            assert_eq!((header, decode(&payload).unwrap()), (head, records()));
            assert!(matches!(read(&mut input).unwrap(), WalReadResult::End));
        }
    }

    #[test]
    fn truncated_or_changed_frame_is_broken() {
        let (_, bytes) = frame(Some(([3; 16], [9; 16])));
        for len in 1..bytes.len() {
            assert!(
                matches!(read(&mut &bytes[..len]).unwrap(), WalReadResult::Broken),
                "cut to {len}"
            );
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(
                matches!(
                    read(&mut changed.as_slice()).unwrap(),
                    WalReadResult::Broken
                ),
                "changed at {at}"
            );
        }
    }

    #[test]
    fn frame_of_an_earlier_version_is_read() {
        let payload = encode(&records()).unwrap();
        let (key, body, sum) = ([7_u8; 16], 3_u32, crc32fast::hash(&payload));
        let mut bytes = [
            b"LFr1".as_slice(),
            &5_u64.to_le_bytes(),
            &2_u32.to_le_bytes(),
        ]
        .concat();
        bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(1_700_000_000_u64.to_le_bytes());
        bytes.extend(key);
        bytes.extend([body.to_le_bytes(), sum.to_le_bytes()].concat());
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(bytes.len(), HEAD);
        bytes.extend(&payload);
        let length = bytes.len() as u64;
        // A frame of this version follows in the same segment.
        bytes.extend(frame(Some(([3; 16], [9; 16]))).1);
        let mut input = bytes.as_slice();
        let WalReadResult::Frame(head, met) = read(&mut input).unwrap() else {
            panic!("expected a frame")
        };
        assert_eq!(
            (head.first, head.end(), head.group, head.bytes()),
            (5, 7, 4, length)
        );
        assert_eq!(
            (head.key, head.request, met),
            (Some(key), RequestFingerprint::Crc32(3), payload)
        );
        let WalReadResult::Frame(next_head, next_payload) = read(&mut input).unwrap() else {
            panic!("expected a frame")
        };
        assert_eq!(
            (next_head.request, decode(&next_payload).unwrap()),
            (RequestFingerprint::Sha256([9; 16]), records())
        );
    }
}
