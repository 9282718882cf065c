//! Coverage: the source rows that outputs account for, as sets of ranges per split.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::provenance::{Provenance, SplitRows};
use crate::storage::Location;

/// A set of integers as ascending, disjoint half-open ranges that do not touch. Its serialized form
/// is a list of pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct RangeSet(rangemap::RangeSet<u64>);

impl From<Vec<(u64, u64)>> for RangeSet {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        pairs.into_iter().map(|(start, end)| start..end).collect()
    }
}

impl From<RangeSet> for Vec<(u64, u64)> {
    fn from(set: RangeSet) -> Self {
        set.ranges().map(|range| (range.start, range.end)).collect()
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl RangeSet {
    /// Adds the integers of `new`; an empty range adds nothing.
    pub fn insert(&mut self, new: Range<u64>) {
        // The library panics on an empty range.
        if new.start < new.end {
            self.0.insert(new);
        }
    }

    /// The integers that are in both sets.
    #[must_use]
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.0.intersection(&other.0).collect()
    }

    /// Whether every integer of `rows` is in the set.
    pub fn contains(&self, rows: &Range<u64>) -> bool {
        let covers = |range: &Range<u64>| rows.end <= range.end;
        rows.start >= rows.end || self.0.get(&rows.start).is_some_and(covers)
    }

    /// The boundaries of the set strictly inside `rows`, ascending.
    pub(crate) fn boundaries<'a>(&'a self, rows: &'a Range<u64>) -> impl Iterator<Item = u64> + 'a {
        self.0
            .overlapping(rows)
            .flat_map(|range| [range.start, range.end])
            .filter(|&edge| rows.start < edge && edge < rows.end)
    }

    /// The number of integers in the set.
    pub fn len(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = &Range<u64>> {
        self.0.iter()
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
            for range in intervals.ranges() {
                mine.insert(range.clone());
            }
        }
    }

    /// The rows that both cover.
    #[must_use]
    pub(crate) fn intersection(&self, other: &Self) -> Self {
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
    pub(crate) fn contains_all(&self, provenance: &Provenance) -> bool {
        provenance
            .ranges()
            .iter()
            .all(|range| self.contains(range.split.name(), &range.rows))
    }

    /// The boundaries of the coverage strictly inside these rows, ascending.
    pub(crate) fn boundaries(&self, split: &str, rows: &Range<u64>) -> Vec<u64> {
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
    pub(crate) fn max_row_end(&self, split: &str) -> u64 {
        let last = self
            .sinks
            .iter()
            .filter_map(|sink| sink.splits().get(split)?.ranges().next_back());
        last.map(|range| range.end).max().unwrap_or(0)
    }

    /// The parts of a batch that at least one sink does not cover, as ranges of ordinals. Each part
    /// is either entirely covered or entirely uncovered in every sink.
    pub(crate) fn uncommitted_ranges(&self, provenance: &Provenance) -> Vec<Range<u64>> {
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
mod tests;
