//! A frame of the journal: the records of one request, with a checksum, so that what a crash cut
//! short is known for it.

use std::io::{self, ErrorKind, Read};

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;

use crate::error::StageError;
use crate::source::batch_limits::arrow_bytes;
use crate::source::bounded_ipc_reader::BoundedIpcReader;

/// What every frame begins with.
const MAGIC: u32 = u32::from_le_bytes(*b"LFr1");
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 64;
/// What stands before the digest of a request, behind the records of a frame with a key. Versions
/// without it end there.
const SEAL: [u8; 4] = *b"LFid";
/// Bytes that the records of a frame may take; a request is smaller.
const MAX_PAYLOAD: u32 = 1 << 30;

/// A digest of the key by which a client marks the attempts at one request.
pub(super) type KeyDigest = [u8; 16];
/// The first half of a SHA-256 over what makes a request.
pub(super) type RequestDigest = [u8; DIGEST];
const DIGEST: usize = 16;

/// By what two requests under one key are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFingerprint {
    /// Who sent it, its body, its source and its type.
    Sha256(RequestDigest),
    /// Earlier versions: a checksum of its body.
    Crc32(u32),
}

impl RequestFingerprint {
    /// That of a sealed payload; `body` stands for it in earlier versions.
    fn of(payload: &[u8], body: u32) -> Self {
        let sealed = payload
            .last_chunk::<{ SEAL.len() + DIGEST }>()
            .and_then(|end| end.strip_prefix(&SEAL));
        sealed
            .and_then(|digest| digest.try_into().ok())
            .map_or(Self::Crc32(body), Self::Sha256)
    }
}

/// Puts the digest of a request behind its records.
pub(super) fn seal(payload: &mut Vec<u8>, request: &RequestDigest) {
    payload.extend(SEAL);
    payload.extend(request);
}

/// What stands before the records of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// The row of its first record.
    pub(super) first: u64,
    /// The first row of those that were made durable together with it.
    pub(super) group: u64,
    /// Records.
    pub(super) rows: u32,
    /// Bytes of the records.
    pub(super) len: u32,
    /// When it was written, in seconds since 1970.
    pub(super) time: u64,
    /// The request's key, if it had one.
    pub(super) key: Option<KeyDigest>,
    /// By what another request under the same key is told apart.
    pub(super) request: RequestFingerprint,
    /// A checksum of the records.
    payload: u32,
}

impl RecordHeader {
    /// For a payload, which [`seal`] has seen where there is a key.
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
        let request = RequestFingerprint::of(payload, 0);
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

    /// The same frame, made durable together with those from `group` on.
    pub(super) fn in_group(self, group: u64) -> Self {
        Self { group, ..self }
    }

    /// The row after its last.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.rows)
    }

    /// Bytes of the frame.
    pub(super) fn bytes(&self) -> u64 {
        HEAD as u64 + u64::from(self.len)
    }

    /// The head as bytes; the last four are a checksum of the others.
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

    /// `None` where the bytes are no head.
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

/// What was met where a frame should be.
pub(super) enum WalReadResult {
    /// A frame whose checksums are right, and its records as bytes.
    Frame(RecordHeader, Vec<u8>),
    /// The end of the file.
    End,
    /// Something else: the rest of a frame that was cut short, or damage.
    Broken,
}

/// Reads the next frame.
///
/// # Errors
/// When the file cannot be read.
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
    let whole = payload.len() == head.len as usize && crc32fast::hash(&payload) == head.payload;
    if let RequestFingerprint::Crc32(body) = head.request {
        head.request = RequestFingerprint::of(&payload, body);
    }
    Ok(if whole {
        WalReadResult::Frame(head, payload)
    } else {
        WalReadResult::Broken
    })
}

/// Reads until the buffer is full or the file ends; says how much it read.
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

/// Bytes of a frame beside the values of its records, as a rule.
const ENVELOPE: usize = 4 << 10;

/// Records as the bytes of a frame: an Arrow IPC stream.
///
/// # Errors
/// When Arrow cannot write them.
pub(super) fn encode(records: &RecordBatch) -> Result<Vec<u8>, StageError> {
    let capacity = usize::try_from(arrow_bytes(records, 0..records.num_rows())).unwrap_or(0);
    let mut writer =
        StreamWriter::try_new(Vec::with_capacity(capacity + ENVELOPE), &records.schema())?;
    writer.write(records)?;
    Ok(writer.into_inner()?)
}

/// The records of a frame.
///
/// # Errors
/// When the bytes are those of something else.
pub(super) fn decode(payload: &[u8]) -> Result<RecordBatch, String> {
    BoundedIpcReader::start(payload)?
        .next()?
        .ok_or_else(|| "it has no records".to_owned())
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
    fn a_frame_is_read_as_it_was_written() {
        for key in [None, Some(([3; 16], [9; 16]))] {
            let (head, bytes) = frame(key);
            assert_eq!((head.end(), head.bytes()), (9, bytes.len() as u64));
            let mut input = bytes.as_slice();
            let WalReadResult::Frame(met, payload) = read(&mut input).unwrap() else {
                panic!("no frame")
            };
            assert_eq!((met, decode(&payload).unwrap()), (head, records()));
            assert!(matches!(read(&mut input).unwrap(), WalReadResult::End));
        }
    }

    #[test]
    fn a_frame_that_was_cut_or_changed_anywhere_is_broken() {
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
            panic!("no frame")
        };
        assert_eq!(
            (head.first, head.end(), head.group, head.bytes()),
            (5, 7, 4, length)
        );
        assert_eq!(
            (head.key, head.request, met),
            (Some(key), RequestFingerprint::Crc32(3), payload)
        );
        let WalReadResult::Frame(head, met) = read(&mut input).unwrap() else {
            panic!("no frame")
        };
        assert_eq!(
            (head.request, decode(&met).unwrap()),
            (RequestFingerprint::Sha256([9; 16]), records())
        );
    }
}
