//! Unit tests of the module `wal_record`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::*;

fn records() -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
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
