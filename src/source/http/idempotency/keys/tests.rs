//! Unit tests of the module `idempotency_keys`.

#![allow(clippy::unwrap_used)]

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn head(key: u8, first: u64, time: u64) -> RecordHeader {
    RecordHeader::new(first, 2, time, Some([key; 16]), b"payload").unwrap()
}

/// Writes the keys of these frames to the log, as before the frames are removed.
fn persist(
    keys: &mut IdempotencyKeys,
    log: &mut IdempotencyKeyLog,
    frames: &[RecordHeader],
    now: u64,
) {
    let gone: Vec<KeyDigest> = frames.iter().filter_map(|head| head.key).collect();
    let entries = keys.persist_before_truncate(&gone, log, now);
    log.write(&entries).unwrap();
}

#[test]
fn keys_outlive_frames_and_restart_until_the_window_ends() {
    let first = |keys: &IdempotencyKeys, key: u8| keys.get(&[key; 16]).map(|taken| taken.first);
    let folder = tempfile::tempdir().unwrap();
    let (mut keys, mut log) = IdempotencyKeys::open(folder.path(), HOUR, 0).unwrap();
    let frames = [head(1, 0, 1000), head(2, 2, 4000)];
    frames.iter().for_each(|head| keys.add(head));
    persist(&mut keys, &mut log, &frames, 4000);
    keys.add(&head(3, 4, 4001));
    assert_eq!(
        [first(&keys, 1), first(&keys, 2), first(&keys, 3)],
        [Some(0), Some(2), Some(4)]
    );
    let (reopened, _) = IdempotencyKeys::open(folder.path(), HOUR, 4601).unwrap();
    assert_eq!(
        [
            first(&reopened, 1),
            first(&reopened, 2),
            first(&reopened, 3)
        ],
        [None, Some(2), None],
        "key 3 was only in a frame"
    );
}

#[test]
fn log_does_not_grow_with_expired_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keys, mut log) = IdempotencyKeys::open(folder.path(), HOUR, 0).unwrap();
    for n in 0..10_000_u64 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(n + 1).to_le_bytes());
        let head = RecordHeader::new(n, 1, n * 3600, Some(key), b"").unwrap();
        keys.add(&head);
        persist(&mut keys, &mut log, &[head], n * 3600);
    }
    assert!(
        fs::metadata(folder.path().join("keys-2.log"))
            .unwrap()
            .len()
            < 200_000
    );
    assert!(keys.taken.len() <= 2);
}

#[test]
fn damaged_entry_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keys, mut log) = IdempotencyKeys::open(folder.path(), HOUR, 0).unwrap();
    let frames = [head(1, 0, 10), head(2, 2, 10)];
    frames.iter().for_each(|head| keys.add(head));
    persist(&mut keys, &mut log, &frames, 10);
    let path = folder.path().join("keys-2.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    bytes.extend([1, 2, 3]);
    fs::write(&path, bytes).unwrap();
    let (reopened, _) = IdempotencyKeys::open(folder.path(), HOUR, 10).unwrap();
    assert_eq!(
        (
            reopened.get(&[1; 16]),
            reopened.get(&[2; 16]).map(|taken| taken.first)
        ),
        (None, Some(2))
    );
}

#[test]
fn log_of_an_earlier_version_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let mut entry = [
        [7_u8; 16].as_slice(),
        &3_u64.to_le_bytes(),
        &2_u32.to_le_bytes(),
    ]
    .concat();
    entry.extend(4000_u64.to_le_bytes());
    entry.extend(99_u32.to_le_bytes());
    entry.extend(crc32fast::hash(&entry).to_le_bytes());
    fs::write(folder.path().join("keys.log"), entry).unwrap();
    for _ in 0..2 {
        let (keys, _) = IdempotencyKeys::open(folder.path(), HOUR, 4000).unwrap();
        let taken = keys.get(&[7; 16]).unwrap();
        assert_eq!(
            (taken.first, taken.rows, taken.request),
            (3, 2, RequestFingerprint::Crc32(99))
        );
        assert!(!folder.path().join("keys.log").exists());
    }
}
