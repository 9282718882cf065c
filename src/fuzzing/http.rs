//! Entry points of the fuzz targets for requests of the source `http`, and for its journal.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::IntoResponse as _;

use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::source::http::RequestColumnType;
use crate::source::http::body::RequestHead;
use crate::source::http::body::columns::RequestColumns;
use crate::source::http::body::media_type::MediaType;
use crate::source::http::body::memory_reservation::MemoryPool;
use crate::source::http::body::multipart::FormParts;
use crate::source::http::body::parse::{ReceivedRequest, parse_body};
use crate::source::http::idempotency::keys::{IdempotencyKeys, KeyLogEntries};
use crate::source::http::limits::HttpLimits;
use crate::source::http::wal::WriteAheadLog;
use crate::source::http::wal::record::{self, RecordHeader};
use crate::source::table::file_source::read_end::catch_panic;
use crate::units::ByteSize;

/// Parses a request: a line with its `Content-Type`, one with its `Content-Encoding`, one with its
/// `Idempotency-Key`, and the body. It is refused as the fault of the client, or its records are
/// within the limits and the same after they are written to the journal and read again.
pub fn request_body(request: &[u8]) {
    let mut lines = request.splitn(4, |&byte| byte == b'\n');
    let mut headers = HeaderMap::new();
    let key = HeaderName::from_static("idempotency-key");
    for name in [CONTENT_TYPE, CONTENT_ENCODING, key] {
        let value = HeaderValue::from_bytes(lines.next().unwrap_or_default());
        match value {
            Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
            _ => {}
        }
    }
    let body = lines.next().unwrap_or_default();
    let limits = HttpLimits {
        request: ByteSize(64 << 10),
        records: 1000.try_into().expect("not zero"),
        in_flight: ByteSize(16 << 20),
        ..HttpLimits::default()
    };
    let types = [
        ("a", RequestColumnType::Float),
        ("b", RequestColumnType::Int),
        ("c", RequestColumnType::String),
        ("d", RequestColumnType::Floats),
        ("e", RequestColumnType::Bool),
    ];
    let types = BTreeMap::from(types.map(|(name, column)| (name.to_owned(), column)));
    let features = RequestColumns::features(&types, 1 << 10).expect("columns");
    for columns in [RequestColumns::images(1 << 10), features] {
        let head = match RequestHead::parse(&headers) {
            Ok(head) => head,
            Err(refusal) => {
                assert!(!refusal.into_response().status().is_success());
                return;
            }
        };
        if let MediaType::Multipart(boundary) = &head.media {
            check_form(body, boundary);
        }
        let has_key = head.key.is_some();
        let arrived = ReceivedRequest {
            source: "client".to_owned(),
            head,
            body: body.to_vec(),
            charge: MemoryPool::new(limits.in_flight.0).charge(),
        };
        // A panic of a library is an error of the body.
        let mut outcome = None;
        let panicked = catch_panic(|| {
            outcome = Some(parse_body(&columns, &limits, "anybody", arrived));
            Ok::<(), String>(())
        });
        let parsed = match outcome {
            Some(Ok(parsed)) => parsed,
            Some(Err(refusal)) => {
                let status = refusal.into_response().status();
                assert!(status.is_client_error(), "{status}");
                continue;
            }
            None => {
                assert!(matches!(panicked, Err((RejectCode::Panicked, _))));
                continue;
            }
        };
        let (rows, rejected) = (parsed.records.num_rows() as u64, parsed.rejected.count);
        assert!((1..=1000).contains(&(rows + rejected)));
        assert_eq!(parsed.attempt.is_some(), has_key);
        assert!(parsed.held <= limits.in_flight.0);
        let payload = record::encode(&parsed.records).expect("records can be written");
        let read = record::decoded(&payload).expect("written records can be read");
        assert_eq!(read, parsed.records);
    }
}

/// The parts of a form do not overlap, and each ends where a boundary begins.
fn check_form(body: &[u8], boundary: &str) {
    let Ok(mut parts) = FormParts::new(body, boundary) else {
        return;
    };
    let delimiter = format!("\r\n--{boundary}");
    let mut end = 0;
    while let Ok(Some(part)) = parts.next() {
        assert!(part.content.start >= end && part.content.end >= part.content.start);
        end = part.content.end;
        // An empty content shares its line break with the header.
        let shared = if part.content.is_empty() { 2 } else { 0 };
        let rest = &body[end - shared..];
        assert!(
            rest.starts_with(delimiter.as_bytes()) || body[end..].starts_with(delimiter.as_bytes())
        );
    }
}

/// A frame of the journal, and its bytes in the segment.
struct Frame {
    head: RecordHeader,
    bytes: Vec<u8>,
}

/// Writes frames to the journal in `folder`, damages it, and opens it. The journal keeps each
/// acknowledged frame, or reports the damage. Only frames at its end that no later group follows may
/// be dropped.
///
/// The first two bytes are the position of the damage, the third is its kind. Each other byte makes
/// a frame: the length of its payload, its records, and whether it begins a group or a segment.
pub fn request_log(folder: &Path, plan: &[u8]) {
    let Some((&[low, high, kind], made)) = plan.split_first_chunk() else {
        return;
    };
    let mut segments = segments(made);
    let Some(last) = segments.pop() else { return };
    let first = last[0].head.first;
    let bytes: Vec<u8> = last.iter().flat_map(|frame| frame.bytes.clone()).collect();
    let at = usize::from(u16::from_le_bytes([low, high])) % (bytes.len() + 1);
    let mut damaged = bytes.clone();
    match kind % 5 {
        1 => damaged.truncate(at),
        2 => damaged.extend_from_slice(&plan[..plan.len().min(100)]),
        3 => damaged
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= kind | 1),
        _ => {}
    }
    for segment in &segments {
        let mut complete: Vec<u8> = segment
            .iter()
            .flat_map(|frame| frame.bytes.clone())
            .collect();
        // The segment ends with a frame that was not acknowledged and could not be removed.
        if kind % 5 == 4 && segment.last().map(|frame| frame.head.end()) == Some(first) {
            complete.extend(frame(first, first, 9).bytes);
        }
        fs::write(folder.join(name(segment[0].head.first)), complete).expect("a file");
    }
    fs::write(folder.join(name(first)), &damaged).expect("a file");

    let mut end = 0;
    let is_intact = |frame: &&Frame| {
        let start = end;
        end += frame.bytes.len();
        damaged.get(start..end) == Some(frame.bytes.as_slice())
    };
    let intact = last.iter().take_while(is_intact).count();
    let kept = last[..intact]
        .last()
        .map_or(first, |frame| frame.head.end());
    // Unless the segment was cut, the frames after the first damaged one are complete.
    let is_lost = kind % 5 == 3
        && last
            .iter()
            .skip(intact + 1)
            .any(|frame| frame.head.group > kept);
    let log = match open(folder) {
        Ok(log) => log,
        Err(_) => {
            assert!(is_lost, "a journal without damage was refused");
            return;
        }
    };
    assert!(!is_lost, "acknowledged frames were dropped");
    assert_eq!(log.state().next, kept);
    segments.push(last.into_iter().take(intact).collect());
    let expected: Vec<&Frame> = segments.iter().flatten().collect();
    let rows: u64 = expected
        .iter()
        .map(|frame| u64::from(frame.head.rows))
        .sum();
    assert_eq!(log.pending_rows(), rows);
    let (mut found, mut row) = (Vec::new(), 0);
    while let Some(mut reader) = log.read_from(row).expect("a segment") {
        let before = row;
        while let Some((head, payload)) = log.next_frame(&mut reader).expect("a frame") {
            if head.end() <= row {
                continue;
            }
            row = head.end();
            found.push([head.to_bytes().as_slice(), &payload].concat());
        }
        if row == before {
            break;
        }
    }
    assert!(found.iter().eq(expected.iter().map(|frame| &frame.bytes)));
    drop(log);
    let again = open(folder).expect("a journal without damage");
    assert_eq!(again.state().next, kept);
}

/// The segments that these bytes make.
fn segments(made: &[u8]) -> Vec<Vec<Frame>> {
    let mut segments: Vec<Vec<Frame>> = Vec::new();
    let (mut row, mut group) = (0, 0);
    for &byte in made.iter().take(64) {
        let begins_segment = byte & 0x80 != 0 || segments.is_empty();
        if begins_segment {
            segments.push(Vec::new());
        }
        if begins_segment || byte & 0x40 != 0 {
            group = row;
        }
        let frame = frame(row, group, byte);
        row = frame.head.end();
        segments.last_mut().expect("a segment").push(frame);
    }
    segments
}

fn frame(row: u64, group: u64, byte: u8) -> Frame {
    let payload = vec![byte ^ 0x5a; usize::from(byte & 0x0f) + 1];
    let rows = u32::from(byte >> 4 & 3) + 1;
    let key = (byte & 1 == 1).then(|| u128::from(row + 1).to_le_bytes());
    let head = RecordHeader::new(row, rows, 1, key, &payload).expect("a short payload");
    let head = head.in_group(group);
    let bytes = [head.to_bytes().as_slice(), &payload].concat();
    Frame { head, bytes }
}

fn name(first: u64) -> String {
    format!("{first:020}.frames")
}

fn open(folder: &Path) -> Result<WriteAheadLog, crate::error::StageError> {
    let window = Duration::from_secs(3600);
    WriteAheadLog::open(folder, "in/requests", window, &ResumeState::default())
}

/// Opens the log of keys in a folder. Damaged entries are dropped, and the entries that are written
/// again are complete and stay the same.
pub fn key_log(folder: &Path) {
    let window = Duration::from_secs(3600);
    let stored = || fs::read(folder.join("keys-2.log")).expect("the log");
    let (mut keys, mut log) = IdempotencyKeys::open(folder, window, 1000).expect("the log");
    let first = stored();
    let KeyLogEntries::More(entries) = keys.persist_before_truncate(&[], &log, 1000) else {
        unreachable!("the log has no entry more than the keys");
    };
    assert!(entries.is_empty());
    log.write(&KeyLogEntries::All(first.clone()))
        .expect("the log");
    drop(IdempotencyKeys::open(folder, window, 1000).expect("the log"));
    assert_eq!(stored(), first);
}
