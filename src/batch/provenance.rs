//! The provenance of records: the split and the rows that they come from.

use std::ops::Range;
use std::sync::Arc;

/// A unit of input with a stable identity: a Parquet file, a tar shard, a listing of images.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Split {
    pub(super) name: String,
    pub(super) seed: u64,
    /// The split of which this one is a part.
    whole: Option<WholeSplit>,
}

/// A split that is divided into parts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeSplit {
    pub(super) name: String,
    pub(super) seed: u64,
    /// For each row of the part, its row in the whole.
    pub(super) rows: Vec<u64>,
}

/// The identity of a row, which does not depend on how its split is divided into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowIdentity<'a> {
    /// The name of the undivided split.
    pub split: &'a str,
    /// The row in the undivided split.
    pub row: u64,
    /// The hash of the name.
    pub(super) seed: u64,
}

impl Split {
    /// Creates a split. `name` identifies the input: it is the same in every run, and no other
    /// input has it.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        let name = name.into();
        let seed = fnv1a(name.as_bytes());
        Arc::new(Self {
            name,
            seed,
            whole: None,
        })
    }

    /// Creates a split from a part of the rows of the split `whole`. Its rows are counted without
    /// gaps, so that coverage is one range: row `n` of the part is the row `rows[n]` of the whole,
    /// with the identity of that row.
    pub(crate) fn part_of(
        whole: impl Into<String>,
        rows: Vec<u64>,
        name: impl Into<String>,
    ) -> Arc<Self> {
        let (name, whole) = (name.into(), whole.into());
        Arc::new(Self {
            seed: fnv1a(name.as_bytes()),
            name,
            whole: Some(WholeSplit {
                seed: fnv1a(whole.as_bytes()),
                name: whole,
                rows,
            }),
        })
    }

    /// The identity of a row of this split.
    pub fn identity(&self, row: u64) -> RowIdentity<'_> {
        let whole = self.whole.as_ref().and_then(|whole| {
            let row = usize::try_from(row).ok()?;
            Some(RowIdentity {
                split: &whole.name,
                row: *whole.rows.get(row)?,
                seed: whole.seed,
            })
        });
        whole.unwrap_or(RowIdentity {
            split: &self.name,
            row,
            seed: self.seed,
        })
    }

    /// A hash of the name, which is the same in every run.
    pub fn id(&self) -> u64 {
        self.seed
    }

    /// The name, as stored in provenance and coverage.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Rows of one split, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRows {
    /// The split of the rows.
    pub split: Arc<Split>,
    /// Row numbers, counted from 0 in the split.
    pub rows: Range<u64>,
}

/// The source rows that a batch represents, including those whose records were filtered or
/// rejected.
///
/// An *ordinal* is a position in this list: the n-th source row of the batch. It identifies a
/// record after any filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    pub(super) ranges: Vec<SplitRows>,
    /// For each range, the ordinal after its last row.
    ends: Vec<u64>,
}

impl Provenance {
    /// Consecutive rows of one split.
    pub fn rows(split: Arc<Split>, rows: Range<u64>) -> Self {
        Self::new(vec![SplitRows { split, rows }])
    }

    /// Ranges in the order of their ordinals.
    pub fn new(ranges: Vec<SplitRows>) -> Self {
        let mut end = 0;
        let ends = ranges.iter().map(|SplitRows { rows, .. }| {
            end += rows.end - rows.start;
            end
        });
        let ends = ends.collect();
        Self { ranges, ends }
    }

    /// The ranges, in the order of their ordinals.
    pub fn ranges(&self) -> &[SplitRows] {
        &self.ranges
    }

    /// The number of source rows.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there are no source rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The split and row of an ordinal; `None` beyond the end.
    pub fn row(&self, ordinal: u32) -> Option<(&Arc<Split>, u64)> {
        let ordinal = u64::from(ordinal);
        let at = self.ends.partition_point(|&end| end <= ordinal);
        let SplitRows { split, rows } = self.ranges.get(at)?;
        Some((split, rows.end - (self.ends[at] - ordinal)))
    }

    /// The identity of the row of an ordinal; `None` beyond the end.
    pub fn identity(&self, ordinal: u32) -> Option<RowIdentity<'_>> {
        let (split, row) = self.row(ordinal)?;
        Some(split.identity(row))
    }

    /// A seed for random numbers that depends only on the row's identity and on `salt`, so that a
    /// replay draws the same numbers.
    pub fn seed(&self, ordinal: u32, salt: u64) -> u64 {
        let (split, row) = self
            .identity(ordinal)
            .map_or((0, u64::from(ordinal)), |identity| {
                (identity.seed, identity.row)
            });
        splitmix64(splitmix64(split ^ splitmix64(salt)) ^ row)
    }

    /// The rows at the ordinals `part`.
    #[must_use]
    pub fn slice(&self, part: Range<u64>) -> Self {
        let mut ranges = Vec::new();
        let mut start = 0;
        for range in &self.ranges {
            let len = range.rows.end - range.rows.start;
            let from = part.start.clamp(start, start + len) - start;
            let to = part.end.clamp(start, start + len) - start;
            if from < to {
                let rows = range.rows.start + from..range.rows.start + to;
                ranges.push(SplitRows {
                    split: Arc::clone(&range.split),
                    rows,
                });
            }
            start += len;
        }
        Self::new(ranges)
    }
}

/// FNV-1a with 64 bits. It must never change, because seeds of recorded noise depend on it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit affects every output bit.
pub(crate) fn splitmix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
