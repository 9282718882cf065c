//! Unit tests of the module `coverage`.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::batch::provenance::Split;

/// Whether the ranges are ascending, not empty, and do not touch.
fn is_coalesced(set: &RangeSet) -> bool {
    let pairs: Vec<(u64, u64)> = set.clone().into();
    pairs.windows(2).all(|pair| pair[0].1 < pair[1].0) && pairs.iter().all(|pair| pair.0 < pair.1)
}

proptest! {
    #[test]
    fn range_set_equals_a_set_of_integers(
        ranges in prop::collection::vec((0_u64..60, 0_u64..12), 0..24),
        probe in (0_u64..70, 0_u64..9),
    ) {
        let mut intervals = RangeSet::default();
        let mut set = BTreeSet::new();
        for (start, len) in ranges {
            intervals.insert(start..start + len);
            set.extend(start..start + len);
        }
        let probe = probe.0..probe.0 + probe.1;
        prop_assert_eq!(intervals.len(), set.len() as u64);
        let is_contained = probe.clone().all(|row| set.contains(&row));
        prop_assert_eq!(intervals.contains(&probe), is_contained);
        let edges: Vec<u64> = (probe.start + 1..probe.end)
            .filter(|row| set.contains(row) != set.contains(&(row - 1)))
            .collect();
        prop_assert_eq!(intervals.boundaries(&probe).collect::<Vec<_>>(), edges);
        prop_assert!(is_coalesced(&intervals));
    }

    #[test]
    fn intersection_holds_the_integers_of_both_sets(
        sets in [
            prop::collection::vec((0_u64..60, 0_u64..12), 0..12),
            prop::collection::vec((0_u64..60, 0_u64..12), 0..12),
        ],
    ) {
        let [one, two] = sets.map(|pairs| {
            let ranges = pairs.into_iter().map(|(from, len)| (from, from + len));
            RangeSet::from(ranges.collect::<Vec<_>>())
        });
        let both = one.intersection(&two);
        for row in 0..80 {
            let is_in = |set: &RangeSet| set.contains(&(row..row + 1));
            prop_assert_eq!(is_in(&both), is_in(&one) && is_in(&two));
        }
        prop_assert!(is_coalesced(&both));
    }

    #[test]
    fn uncommitted_ranges_are_uniform_per_sink_and_complete(
        sinks in prop::collection::vec(
            prop::collection::vec((0_u64..40, 0_u64..12), 0..5),
            0..3,
        ),
        rows in (0_u64..30, 1_u64..20),
    ) {
        let split = Split::new("s");
        let sinks: Vec<Coverage> = sinks.into_iter().map(|ranges| {
            let mut coverage = Coverage::default();
            for (start, len) in ranges {
                coverage.insert(&Provenance::rows(Arc::clone(&split), start..start + len));
            }
            coverage
        }).collect();
        let resume = ResumeState { sinks: Arc::new(sinks.clone()), state: None };
        let provenance = Provenance::rows(Arc::clone(&split), rows.0..rows.0 + rows.1);
        let mut seen = BTreeSet::new();
        for part in resume.uncommitted_ranges(&provenance) {
            let part = provenance.slice(part);
            for sink in &sinks {
                let part_rows = part.ranges().iter().flat_map(|range| range.rows.clone());
                let covered: BTreeSet<bool> =
                    part_rows.map(|row| sink.contains("s", &(row..row + 1))).collect();
                prop_assert!(covered.len() <= 1, "a part is partly covered");
            }
            seen.extend(part.ranges().iter().flat_map(|range| range.rows.clone()));
        }
        for row in rows.0..rows.0 + rows.1 {
            let is_committed = !sinks.is_empty()
                && sinks.iter().all(|sink| sink.contains("s", &(row..row + 1)));
            prop_assert_eq!(seen.contains(&row), !is_committed);
        }
    }
}

#[test]
fn max_row_end_follows_the_last_row_of_any_sink() {
    let covered = |rows: Range<u64>| {
        let mut coverage = Coverage::default();
        coverage.insert(&Provenance::rows(Split::new("a"), rows));
        coverage
    };
    let resume = ResumeState {
        sinks: Arc::new(vec![covered(3..9), covered(0..7)]),
        state: None,
    };
    assert_eq!([resume.max_row_end("a"), resume.max_row_end("b")], [9, 0]);
}

#[test]
fn coverage_round_trips_through_json() {
    let mut coverage = Coverage::default();
    coverage.insert(&Provenance::rows(Split::new("a"), 3..9));
    coverage.insert(&Provenance::rows(Split::new("a"), 9..12));
    let json = serde_json::to_string(&coverage).unwrap();
    assert_eq!(json, r#"{"a":[[3,12]]}"#);
    assert_eq!(serde_json::from_str::<Coverage>(&json).unwrap(), coverage);
}

#[test]
fn stored_ranges_are_read_in_any_order_and_merged() {
    let stored = r#"{"a":[[0,4],[9,12]],"b":[[20,22],[5,5],[7,9],[9,10],[8,20]]}"#;
    let coverage: Coverage = serde_json::from_str(stored).unwrap();
    assert_eq!(
        serde_json::to_string(&coverage).unwrap(),
        r#"{"a":[[0,4],[9,12]],"b":[[7,22]]}"#
    );
    assert!(coverage.contains("a", &(9..12)) && !coverage.contains("a", &(3..5)));
}

#[test]
fn reversed_range_has_no_boundaries_and_is_contained() {
    let set: RangeSet = [3..9, 12..20].into_iter().collect();
    let reversed = Range { start: 15, end: 4 };
    assert_eq!(set.boundaries(&reversed).count(), 0);
    assert!(set.contains(&reversed));
}
