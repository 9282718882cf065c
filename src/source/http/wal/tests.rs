//! Tests of the journal of requests.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::batch::provenance::{Provenance, Split};
use crate::coverage::Coverage;

const HOUR: Duration = Duration::from_secs(3600);

fn open(folder: &Path, done: u64) -> Result<WriteAheadLog, StageError> {
    let mut coverage = Coverage::default();
    coverage.insert(&Provenance::rows(Split::new("s"), 0..done));
    let resume = ResumeState {
        sinks: Arc::new(vec![coverage]),
        state: None,
    };
    WriteAheadLog::open(folder, "s", HOUR, &resume)
}

/// Appends frames of two rows each, as one group.
fn append(journal: &WriteAheadLog, file: &mut File, payloads: &[&[u8]]) {
    let group = journal.state().next;
    let first_rows = (0..).map(|n| group + 2 * n);
    let heads: Vec<RecordHeader> = first_rows
        .zip(payloads)
        .map(|(first, p)| {
            RecordHeader::new(first, 2, now(), Some([first as u8 + 1; 16]), p)
                .unwrap()
                .in_group(group)
        })
        .collect();
    for (head, payload) in heads.iter().zip(payloads) {
        file.write_all(&head.to_bytes()).unwrap();
        file.write_all(payload).unwrap();
    }
    journal.written(&heads);
}

fn done(journal: &WriteAheadLog, end: u64) {
    journal.done(end);
    journal.retire().unwrap();
}

fn next_row(journal: &WriteAheadLog) -> u64 {
    journal.state().next
}

fn rows(journal: &WriteAheadLog) -> Vec<u64> {
    let mut reader = journal.read_from(0).unwrap().unwrap();
    std::iter::from_fn(|| journal.next_frame(&mut reader).unwrap())
        .map(|(head, _)| head.first)
        .collect()
}

#[test]
fn pending_rows_are_read_again_and_row_numbers_are_not_reused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    let mut file = journal.begin().unwrap();
    append(&journal, &mut file, &[b"one", b"two"]);
    append(&journal, &mut file, &[b"three"]);
    assert_eq!((rows(&journal), journal.pending_rows()), (vec![0, 2, 4], 6));
    done(&journal, 2);
    let again = open(folder.path(), 4).unwrap();
    assert_eq!((next_row(&again), again.pending_rows()), (6, 2));
    assert!(again.state().keys.get(&[1; 16]).is_some());
    // The folder is lost, but the sinks are not.
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(next_row(&open(elsewhere.path(), 6).unwrap()), 6);
}

#[test]
fn committed_segments_are_removed_except_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    for _ in 0..3 {
        let mut file = journal.begin().unwrap();
        append(&journal, &mut file, &[b"payload"]);
    }
    assert_eq!(first_rows(folder.path()).unwrap(), [0, 2, 4]);
    done(&journal, 3);
    assert_eq!(first_rows(folder.path()).unwrap(), [2, 4]);
    done(&journal, 6);
    assert_eq!(
        (first_rows(folder.path()).unwrap(), journal.pending_rows()),
        (vec![4], 0)
    );
    let again = open(folder.path(), 6).unwrap();
    assert_eq!(next_row(&again), 6);
    assert!(
        again.state().keys.get(&[1; 16]).is_some(),
        "keys outlive their frames"
    );
}

#[test]
fn torn_group_is_removed_and_acknowledged_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    let mut file = journal.begin().unwrap();
    append(&journal, &mut file, &[b"one"]);
    let kept = file.metadata().unwrap().len();
    append(&journal, &mut file, &[b"two", b"three"]);
    let path = folder.path().join(name(0));
    let complete = fs::read(&path).unwrap();
    // The second frame of the group reached the disk, the first did not.
    let mut torn = complete.clone();
    torn[usize::try_from(kept).unwrap() + 10] ^= 1;
    fs::write(&path, torn).unwrap();
    assert_eq!(rows(&open(folder.path(), 0).unwrap()), [0]);
    assert_eq!(fs::metadata(&path).unwrap().len(), kept);
    let mut damaged = complete;
    damaged[10] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = open(folder.path(), 0).err().unwrap().to_string();
    let expected = format!(
        "{}: a frame of acknowledged requests is damaged; restore the file, or move it away to \
         continue without its records",
        path.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn frame_that_was_not_acknowledged_is_not_read_before_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    let mut file = journal.begin().unwrap();
    append(&journal, &mut file, &[b"one"]);
    let mut reader = journal.read_from(0).unwrap().unwrap();
    assert!(journal.next_frame(&mut reader).unwrap().is_some());
    // The sync of this frame failed, and the frame could not be removed.
    let failed = RecordHeader::new(2, 5, now(), None, b"failed").unwrap();
    file.write_all(&failed.to_bytes()).unwrap();
    file.write_all(b"failed").unwrap();
    let mut next_file = journal.begin().unwrap();
    append(&journal, &mut next_file, &[b"two"]);
    assert!(journal.next_frame(&mut reader).unwrap().is_none());
    let again = open(folder.path(), 0).unwrap();
    assert_eq!((next_row(&again), again.pending_rows()), (4, 4));
    for (row, payload) in [(0, b"one"), (2, b"two")] {
        let mut frames = again.read_from(row).unwrap().unwrap();
        let (head, found) = again.next_frame(&mut frames).unwrap().unwrap();
        assert_eq!((head.first, found.as_slice()), (row, payload.as_slice()));
        assert!(again.next_frame(&mut frames).unwrap().is_none());
    }
}
