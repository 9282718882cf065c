//! Tests of the journal of requests.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::batch::{Provenance, Split};
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
    let firsts = (0..).map(|n| group + 2 * n);
    let heads: Vec<RecordHeader> = firsts
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

fn given_out(journal: &WriteAheadLog) -> u64 {
    journal.state().next
}

fn rows(journal: &WriteAheadLog) -> Vec<u64> {
    let mut reader = journal.read_from(0).unwrap().unwrap();
    std::iter::from_fn(|| reader.next().unwrap())
        .map(|(head, _)| head.first)
        .collect()
}

#[test]
fn what_is_pending_is_found_again_and_what_is_done_is_not_given_out_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    let mut file = journal.begin().unwrap();
    append(&journal, &mut file, &[b"one", b"two"]);
    append(&journal, &mut file, &[b"three"]);
    assert_eq!((rows(&journal), journal.pending_rows()), (vec![0, 2, 4], 6));
    done(&journal, 2);
    let again = open(folder.path(), 4).unwrap();
    assert_eq!((given_out(&again), again.pending_rows()), (6, 2));
    assert!(again.state().keys.get(&[1; 16]).is_some());
    // The folder is lost, the sinks are not.
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(given_out(&open(elsewhere.path(), 6).unwrap()), 6);
}

#[test]
fn segments_go_when_they_are_done_and_the_last_stays() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    for _ in 0..3 {
        let mut file = journal.begin().unwrap();
        append(&journal, &mut file, &[b"payload"]);
    }
    assert_eq!(firsts(folder.path()).unwrap(), [0, 2, 4]);
    done(&journal, 3);
    assert_eq!(firsts(folder.path()).unwrap(), [2, 4]);
    done(&journal, 6);
    assert_eq!(
        (firsts(folder.path()).unwrap(), journal.pending_rows()),
        (vec![4], 0)
    );
    let again = open(folder.path(), 6).unwrap();
    assert_eq!(given_out(&again), 6);
    assert!(
        again.state().keys.get(&[1; 16]).is_some(),
        "keys outlive their frames"
    );
}

#[test]
fn a_group_that_was_cut_short_goes_and_damage_to_what_was_acknowledged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 0).unwrap();
    let mut file = journal.begin().unwrap();
    append(&journal, &mut file, &[b"one"]);
    let kept = file.metadata().unwrap().len();
    append(&journal, &mut file, &[b"two", b"three"]);
    let path = folder.path().join(name(0));
    let whole = fs::read(&path).unwrap();
    // The second frame of the group reached the disk, the first did not.
    let mut torn = whole.clone();
    torn[usize::try_from(kept).unwrap() + 10] ^= 1;
    fs::write(&path, torn).unwrap();
    assert_eq!(rows(&open(folder.path(), 0).unwrap()), [0]);
    assert_eq!(fs::metadata(&path).unwrap().len(), kept);
    let mut damaged = whole;
    damaged[10] ^= 1;
    fs::write(&path, damaged).unwrap();
    assert!(
        open(folder.path(), 0)
            .err()
            .unwrap()
            .to_string()
            .contains("is damaged")
    );
}
