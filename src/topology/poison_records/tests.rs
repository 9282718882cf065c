//! Tests of the search for records that take the process down.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::batch::Split;

fn rows(rows: Range<u64>) -> Provenance {
    Provenance::rows(Split::new("s"), rows)
}

/// A start that finds `done` rows, works on `0..4`, and ends without a word, perhaps while row 2 is
/// alone.
fn start(state: &Path, done: u64, dies: Option<bool>) -> Vec<(Range<u64>, Isolation)> {
    let suspects = PoisonRecordTracker::open(Some(state), done, 3).unwrap();
    let parts = suspects.parts(&rows(0..6), 0..6);
    suspects.begin(0, &rows(4..6));
    suspects.begin(1, &rows(0..4));
    suspects.end(0);
    if let Some(aborts) = dies {
        suspects.alone(Some(&rows(1..2)));
        suspects.alone(None);
        suspects.alone(Some(&rows(2..3)));
        if aborts {
            fs::write(state.join("attempts/aborted"), "X").unwrap();
        }
    }
    parts
}

fn singles() -> Vec<(Range<u64>, Isolation)> {
    vec![
        (0..1, Isolation::Single),
        (1..2, Isolation::Single),
        (2..3, Isolation::Single),
        (3..4, Isolation::Single),
        (4..6, Isolation::None),
    ]
}

fn found() -> Vec<(Range<u64>, Isolation)> {
    singles()
        .into_iter()
        .map(|(row, care)| {
            if row == (2..3) {
                (row, Isolation::Quarantined(QuarantineReason::Crashed))
            } else {
                (row, care)
            }
        })
        .collect()
}

#[test]
fn the_third_start_without_progress_runs_the_suspects_one_by_one_and_an_abort_gives_the_culprit_away()
 {
    let state = tempfile::tempdir().unwrap();
    let usual = vec![(0..6, Isolation::None)];
    assert_eq!(start(state.path(), 7, None), usual);
    assert_eq!(start(state.path(), 7, None), usual);
    assert_eq!(start(state.path(), 7, Some(true)), singles());
    assert_eq!(start(state.path(), 7, None), found());
}

#[test]
fn kills_count_only_when_they_hit_the_same_record_again_and_again() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    for _ in 0..OTHER_KILLS {
        assert_eq!(start(state.path(), 7, Some(false)), singles());
    }
    assert_eq!(start(state.path(), 7, None), found());
}

#[test]
fn progress_and_an_orderly_end_clear_all_suspicion() {
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
fn nothing_is_in_flight_once_as_many_have_come_through_as_were_sent() {
    let suspects = Arc::new(PoisonRecordTracker::open(None, 0, 2).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    suspects.end(0);
    suspects.end(1);
    runtime.block_on(suspects.wait_idle(2));
}

/// What the kernel has counted in one boot.
fn kernel(kills: u64) -> Option<OomKills> {
    Some(OomKills {
        boot: "one".to_owned(),
        kills,
    })
}

/// A start that ends without a word while row 2 is alone; how that row is to be carried.
fn killed_alone(state: &Path, kernel: Option<OomKills>) -> Isolation {
    let suspects = PoisonRecordTracker::open_by(Some(state), 7, 3, kernel).unwrap();
    let care = suspects.isolation(&rows(0..6), 2);
    suspects.begin(1, &rows(0..4));
    suspects.alone(Some(&rows(2..3)));
    care
}

#[test]
fn kills_for_lack_of_memory_make_a_row_too_large() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    for kills in 0..u64::from(MEMORY_KILLS) {
        let care = killed_alone(state.path(), kernel(kills));
        assert_eq!(care, Isolation::Single, "after {kills}");
    }
    assert_eq!(
        killed_alone(state.path(), kernel(9)),
        Isolation::Quarantined(QuarantineReason::TooLarge)
    );
}

#[test]
fn kills_from_outside_and_restarts_of_the_machine_take_many_starts() {
    let state = tempfile::tempdir().unwrap();
    (0..2).for_each(|_| drop(start(state.path(), 7, None)));
    // The counter of another boot says nothing.
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
fn notes_of_an_earlier_version_are_read() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("attempts");
    fs::create_dir(&folder).unwrap();
    let split = Split::new("s").id();
    let text = format!(
        r#"{{"starts":3,"done":7,"suspects":[[{split},0,4]],"kills":[[{split},2,2]],"condemned":[[{split},1]]}}"#
    );
    fs::write(folder.join("notes.json"), text).unwrap();
    fs::write(folder.join("in-flight"), format!("{split} 0 4\n")).unwrap();
    fs::write(folder.join("alone"), format!("{split} 2 3\n")).unwrap();
    let suspects = PoisonRecordTracker::open(Some(state.path()), 7, 3).unwrap();
    assert_eq!(suspects.state.kills, [(split, 2, 3)]);
    let care = |ordinal| suspects.isolation(&rows(0..6), ordinal);
    assert_eq!(
        [care(0), care(1), care(2)],
        [
            Isolation::Single,
            Isolation::Quarantined(QuarantineReason::Crashed),
            Isolation::Single
        ]
    );
}

#[test]
fn work_beside_waits_while_a_row_is_alone() {
    let suspects = PoisonRecordTracker::open(None, 0, 2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let whole = runtime.block_on(suspects.whole());
    assert!(Arc::clone(&suspects.turns).try_read_owned().is_err());
    drop(whole);
    drop(runtime.block_on(suspects.turn()));
}
