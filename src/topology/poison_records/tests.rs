//! Tests of the isolation of records that crash the process.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::batch::provenance::Split;

fn rows(rows: Range<u64>) -> Provenance {
    Provenance::rows(Split::new("s"), rows)
}

/// A start with `done` committed rows that crashes while rows `0..4` are in flight. If `aborts` is
/// given, row 2 is then processed alone, and the process aborts (`true`) or is killed (`false`).
/// Returns the parts of a batch of rows `0..6`.
fn start(state: &Path, done: u64, aborts: Option<bool>) -> Vec<(Range<u64>, Isolation)> {
    let tracker = PoisonRecordTracker::open(Some(state), done, 3).unwrap();
    let parts = tracker.parts(&rows(0..6), 0..6);
    tracker.begin(0, &rows(4..6));
    tracker.begin(1, &rows(0..4));
    tracker.end(0);
    if let Some(aborts) = aborts {
        tracker.record_single(Some(&rows(1..2)));
        tracker.record_single(None);
        tracker.record_single(Some(&rows(2..3)));
        if aborts {
            fs::write(state.join("attempts/aborted"), "X").unwrap();
        }
    }
    parts
}

/// Parts of rows `0..6` while `0..4` are suspected.
fn singles() -> Vec<(Range<u64>, Isolation)> {
    vec![
        (0..1, Isolation::Single),
        (1..2, Isolation::Single),
        (2..3, Isolation::Single),
        (3..4, Isolation::Single),
        (4..6, Isolation::None),
    ]
}

/// Parts of rows `0..6` after row 2 has been quarantined.
fn quarantined() -> Vec<(Range<u64>, Isolation)> {
    singles()
        .into_iter()
        .map(|(row, isolation)| {
            if row == (2..3) {
                (row, Isolation::Quarantined(QuarantineReason::Crashed))
            } else {
                (row, isolation)
            }
        })
        .collect()
}

#[test]
fn abort_quarantines_record_on_third_start() {
    let state = tempfile::tempdir().unwrap();
    let together = vec![(0..6, Isolation::None)];
    assert_eq!(start(state.path(), 7, None), together);
    assert_eq!(start(state.path(), 7, None), together);
    assert_eq!(start(state.path(), 7, Some(true)), singles());
    assert_eq!(start(state.path(), 7, None), quarantined());
}

#[test]
fn repeated_kills_on_the_same_record_quarantine_it() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    for _ in 0..OTHER_KILLS {
        assert_eq!(start(state.path(), 7, Some(false)), singles());
    }
    assert_eq!(start(state.path(), 7, None), quarantined());
}

#[test]
fn progress_or_orderly_end_clears_suspected_rows() {
    let state = tempfile::tempdir().unwrap();
    (0..3).for_each(|_| drop(start(state.path(), 7, None)));
    assert_eq!(start(state.path(), 8, None), vec![(0..6, Isolation::None)]);
    (0..3).for_each(|_| drop(start(state.path(), 8, None)));
    PoisonRecordTracker::open(Some(state.path()), 8, 3)
        .unwrap()
        .close(true);
    assert_eq!(start(state.path(), 8, None), vec![(0..6, Isolation::None)]);
}

#[test]
fn tracker_is_idle_after_as_many_ends_as_batches() {
    let tracker = PoisonRecordTracker::open(None, 0, 2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tracker.end(0);
    let idle = |batches| {
        let wait = tracker.wait_idle(batches);
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = wait => true,
                () = std::future::ready(()) => false,
            }
        })
    };
    assert!(idle(1));
    assert!(!idle(2));
    tracker.end(1);
    assert!(idle(2));
}

/// The kernel's count of kills since the boot `one`.
fn kernel(kills: u64) -> Option<OomKills> {
    Some(OomKills {
        boot: "one".to_owned(),
        kills,
    })
}

/// A start that crashes while row 2 is processed alone. Returns the isolation of that row.
fn killed_alone(state: &Path, kernel: Option<OomKills>) -> Isolation {
    let tracker = PoisonRecordTracker::open_with_kills(Some(state), 7, 3, kernel).unwrap();
    let isolation = tracker.isolation(&rows(0..6), 2);
    tracker.begin(1, &rows(0..4));
    tracker.record_single(Some(&rows(2..3)));
    isolation
}

#[test]
fn repeated_memory_kills_reject_row_as_too_large() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    for kills in 0..u64::from(MEMORY_KILLS) {
        let isolation = killed_alone(state.path(), kernel(kills));
        assert_eq!(isolation, Isolation::Single, "after {kills}");
    }
    assert_eq!(
        killed_alone(state.path(), kernel(9)),
        Isolation::Quarantined(QuarantineReason::TooLarge)
    );
}

#[test]
fn other_kills_quarantine_row_only_after_20_starts() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    // The counter of another boot cannot be compared.
    let boots = (0..u64::from(OTHER_KILLS)).map(|kills| {
        let boot = if kills < 10 {
            "one".to_owned()
        } else {
            kills.to_string()
        };
        OomKills {
            boot,
            kills: if kills < 10 { 0 } else { kills },
        }
    });
    for (number, kernel) in boots.enumerate() {
        assert_eq!(
            killed_alone(state.path(), Some(kernel)),
            Isolation::Single,
            "after {number}"
        );
    }
    assert_eq!(
        killed_alone(state.path(), kernel(0)),
        Isolation::Quarantined(QuarantineReason::Crashed)
    );
}

#[test]
fn crash_state_of_earlier_version_is_read() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("attempts");
    fs::create_dir(&folder).unwrap();
    let split = Split::new("s").id();
    let text = format!(
        r#"{{"starts":3,"done":7,"suspects":[[{split},0,4]],"kills":[[{split},2,2]],
            "condemned":[[{split},1]]}}"#
    );
    fs::write(folder.join("notes.json"), text).unwrap();
    fs::write(folder.join("in-flight"), format!("{split} 0 4\n")).unwrap();
    fs::write(folder.join("alone"), format!("{split} 2 3\n")).unwrap();
    let tracker = PoisonRecordTracker::open(Some(state.path()), 7, 3).unwrap();
    assert_eq!(tracker.state.kills, [(split, 2, 3)]);
    let isolation = |ordinal| tracker.isolation(&rows(0..6), ordinal);
    assert_eq!(
        [isolation(0), isolation(1), isolation(2)],
        [
            Isolation::Single,
            Isolation::Quarantined(QuarantineReason::Crashed),
            Isolation::Single
        ]
    );
}

#[test]
fn inference_waits_while_a_row_is_processed_alone() {
    let tracker = PoisonRecordTracker::open(None, 0, 2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let exclusive = runtime.block_on(tracker.exclusive_access());
    assert!(Arc::clone(&tracker.access).try_read_owned().is_err());
    drop(exclusive);
    drop(runtime.block_on(tracker.shared_access()));
    assert!(Arc::clone(&tracker.access).try_read_owned().is_ok());
}
