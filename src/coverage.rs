//! Coverage: the source rows that outputs account for, as sets of ranges per split.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::{Provenance, SplitRows};
use crate::storage::Location;

/// A set of integers, stored as ascending, disjoint half-open ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl From<Vec<(u64, u64)>> for RangeSet {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut intervals = Self::default();
        for (start, end) in pairs {
            intervals.insert(start..end);
        }
        intervals
    }
}

impl From<RangeSet> for Vec<(u64, u64)> {
    fn from(intervals: RangeSet) -> Self {
        intervals
            .ranges
            .into_iter()
            .map(|range| (range.start, range.end))
            .collect()
    }
}

impl RangeSet {
    /// Adds the integers of `new`; an empty range adds nothing.
    pub fn insert(&mut self, new: Range<u64>) {
        if new.start >= new.end {
            return;
        }
        let from = self.ranges.partition_point(|range| range.end < new.start);
        let to = self.ranges.partition_point(|range| range.start <= new.end);
        let mut merged = new;
        if from < to {
            merged.start = merged.start.min(self.ranges[from].start);
            merged.end = merged.end.max(self.ranges[to - 1].end);
        }
        self.ranges.splice(from..to, [merged]);
    }

    /// The integers that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut mine, mut others) = (
            self.ranges.iter().peekable(),
            other.ranges.iter().peekable(),
        );
        let mut ranges = Vec::new();
        while let (Some(one), Some(two)) = (mine.peek(), others.peek()) {
            let both = one.start.max(two.start)..one.end.min(two.end);
            let next = if one.end < two.end {
                &mut mine
            } else {
                &mut others
            };
            next.next();
            if !both.is_empty() {
                ranges.push(both);
            }
        }
        Self { ranges }
    }

    /// Whether every integer of `rows` is in the set.
    pub fn contains(&self, rows: &Range<u64>) -> bool {
        let place = self.ranges.partition_point(|range| range.end <= rows.start);
        rows.start >= rows.end
            || self
                .ranges
                .get(place)
                .is_some_and(|range| range.start <= rows.start && rows.end <= range.end)
    }

    /// The boundaries of the set strictly inside `rows`, ascending.
    pub fn boundaries<'a>(&'a self, rows: &'a Range<u64>) -> impl Iterator<Item = u64> + 'a {
        let from = self.ranges.partition_point(|range| range.end <= rows.start);
        let inside = self.ranges[from..]
            .iter()
            .take_while(|range| range.start < rows.end);
        inside
            .flat_map(|range| [range.start, range.end])
            .filter(|&edge| rows.start < edge && edge < rows.end)
    }

    /// The number of integers in the set.
    pub fn len(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }
}

/// The source rows that an output accounts for, per split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Coverage {
    splits: BTreeMap<String, RangeSet>,
}

impl Coverage {
    /// Adds the rows of a batch.
    pub fn insert(&mut self, provenance: &Provenance) {
        for SplitRows { split, rows } in provenance.ranges() {
            match self.splits.get_mut(split.name()) {
                Some(intervals) => intervals.insert(rows.clone()),
                None => {
                    let mut intervals = RangeSet::default();
                    intervals.insert(rows.clone());
                    self.splits.insert(split.name().to_owned(), intervals);
                }
            }
        }
    }

    /// Adds the rows that `other` covers.
    pub fn union(&mut self, other: &Self) {
        for (split, intervals) in &other.splits {
            let mine = self.splits.entry(split.clone()).or_default();
            intervals
                .ranges()
                .iter()
                .for_each(|range| mine.insert(range.clone()));
        }
    }

    /// The rows that both cover.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.splits.iter().filter_map(|(split, mine)| {
            let both = mine.intersection(other.splits.get(split)?);
            (!both.is_empty()).then(|| (split.clone(), both))
        });
        Self {
            splits: both.collect(),
        }
    }

    /// Whether all of these rows are covered.
    pub fn contains(&self, split: &str, rows: &Range<u64>) -> bool {
        rows.start >= rows.end
            || self
                .splits
                .get(split)
                .is_some_and(|intervals| intervals.contains(rows))
    }

    /// Whether all rows of the batch are covered.
    pub fn contains_all(&self, provenance: &Provenance) -> bool {
        provenance
            .ranges()
            .iter()
            .all(|range| self.contains(range.split.name(), &range.rows))
    }

    /// The boundaries of the coverage strictly inside these rows, ascending.
    pub fn boundaries(&self, split: &str, rows: &Range<u64>) -> Vec<u64> {
        self.splits
            .get(split)
            .map(|intervals| intervals.boundaries(rows).collect())
            .unwrap_or_default()
    }

    /// The number of covered rows.
    pub fn len(&self) -> u64 {
        self.splits.values().map(RangeSet::len).sum()
    }

    /// Whether no row is covered.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty()
    }

    /// Splits and their rows, by name.
    pub fn splits(&self) -> &BTreeMap<String, RangeSet> {
        &self.splits
    }
}

/// The state of earlier runs that a source needs to resume.
#[derive(Debug, Clone, Default)]
pub struct ResumeState {
    /// The coverage of each sink.
    pub sinks: Arc<Vec<Coverage>>,
    /// The location of journals; `None` if no sink is durable.
    pub state: Option<Location>,
}

impl ResumeState {
    /// Whether every sink covers all of these rows, so that the source may skip them.
    pub fn is_committed(&self, split: &str, rows: &Range<u64>) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(|sink| sink.contains(split, rows))
    }

    /// The row after the last one of a split that any sink covers. If a journal was lost, or has
    /// deleted committed entries, these row numbers must not be assigned again: sinks would treat
    /// the new rows as committed.
    pub fn max_row_end(&self, split: &str) -> u64 {
        let last = self
            .sinks
            .iter()
            .filter_map(|sink| sink.splits().get(split)?.ranges().last());
        last.map(|range| range.end).max().unwrap_or(0)
    }

    /// The parts of a batch that at least one sink does not cover, as ranges of ordinals. Each part
    /// is either entirely covered or entirely uncovered in every sink.
    pub fn uncommitted_ranges(&self, provenance: &Provenance) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        let mut start = 0;
        for SplitRows { split, rows } in provenance.ranges() {
            let mut cuts: Vec<u64> = self
                .sinks
                .iter()
                .flat_map(|sink| sink.boundaries(split.name(), rows))
                .collect();
            cuts.sort_unstable();
            cuts.dedup();
            let mut from = rows.start;
            for to in cuts.into_iter().chain([rows.end]) {
                if from < to && !self.is_committed(split.name(), &(from..to)) {
                    parts.push((from, to, start + (from - rows.start)));
                }
                from = to;
            }
            start += rows.end - rows.start;
        }
        self.join(parts)
    }

    /// Joins adjacent parts if no sink covers anything, so that a first run is not cut at split
    /// boundaries.
    fn join(&self, parts: Vec<(u64, u64, u64)>) -> Vec<Range<u64>> {
        let fresh = self.sinks.iter().all(Coverage::is_empty);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (from, to, place) in parts {
            let len = to - from;
            match ranges.last_mut() {
                Some(last) if fresh && last.end == place => last.end += len,
                _ => ranges.push(place..place + len),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::Split;

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
            prop_assert!(intervals.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
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
            prop_assert!(both.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
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
}
