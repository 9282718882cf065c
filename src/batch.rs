//! What flows: records that travel together, the source rows they stand for, and those that were
//! refused.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;

/// A unit of input with a stable identity: a Parquet file, a tar shard, a listing of images.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Split {
    name: String,
    seed: u64,
}

impl Split {
    /// `name` must be the same in every run that means the same input, and no other input's.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        let name = name.into();
        let seed = fnv1a(name.as_bytes());
        Arc::new(Self { name, seed })
    }

    /// A number for the name, the same in every run.
    pub fn id(&self) -> u64 {
        self.seed
    }

    /// The identity, as it stands in provenance and coverage.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Rows of one split, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRows {
    /// Where the rows are.
    pub split: Arc<Split>,
    /// Which rows, counted from 0 in the split.
    pub rows: Range<u64>,
}

/// The source rows that a batch stands for, whether its records still hold them or not.
///
/// An *ordinal* is a place in here: the n-th source row of the batch. It names a record after any
/// filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    ranges: Vec<SplitRows>,
}

impl Provenance {
    /// Consecutive rows of one split.
    pub fn rows(split: Arc<Split>, rows: Range<u64>) -> Self {
        Self {
            ranges: vec![SplitRows { split, rows }],
        }
    }

    /// Ranges in the order of their ordinals.
    pub fn new(ranges: Vec<SplitRows>) -> Self {
        Self { ranges }
    }

    /// The ranges, in the order of their ordinals.
    pub fn ranges(&self) -> &[SplitRows] {
        &self.ranges
    }

    /// How many source rows there are.
    pub fn len(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.rows.end - range.rows.start)
            .sum()
    }

    /// Whether it stands for no row at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The split and row behind an ordinal; `None` beyond the end.
    pub fn row(&self, ordinal: u32) -> Option<(&Arc<Split>, u64)> {
        let mut left = u64::from(ordinal);
        for range in &self.ranges {
            let len = range.rows.end - range.rows.start;
            if left < len {
                return Some((&range.split, range.rows.start + left));
            }
            left -= len;
        }
        None
    }

    /// A seed for random numbers that depends on the row's identity and `salt` alone, so a replay
    /// draws the same.
    pub fn seed(&self, ordinal: u32, salt: u64) -> u64 {
        let (split, row) = self
            .row(ordinal)
            .map_or((0, u64::from(ordinal)), |(split, row)| (split.seed, row));
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
        Self { ranges }
    }
}

/// Records that travel together, and where they came from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Arrow columns; the schema is that of the batch's edge, fixed when planned.
    pub records: RecordBatch,
    /// For each record, the ordinal of its source row in `provenance`.
    pub row_ordinals: Vec<u32>,
    /// Every source row that the batch stands for, those that were dropped too.
    pub provenance: Arc<Provenance>,
}

impl Batch {
    /// A batch whose records are its source rows, one to one.
    pub fn new(records: RecordBatch, provenance: Provenance) -> Self {
        let row_ordinals = (0..u32::try_from(records.num_rows()).unwrap_or(u32::MAX)).collect();
        Self {
            records,
            row_ordinals,
            provenance: Arc::new(provenance),
        }
    }

    /// The same rows with other columns; `records` must have as many rows as before.
    #[must_use]
    pub fn with_records(self, records: RecordBatch) -> Self {
        debug_assert_eq!(
            records.num_rows(),
            self.row_ordinals.len(),
            "a transform changed the number of rows"
        );
        Self { records, ..self }
    }

    /// Only the records where `mask` is true (null counts as false).
    ///
    /// # Errors
    /// When the mask's length is not the number of records.
    pub fn filter(self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let records = filter_record_batch(&self.records, mask)?;
        let kept = |place: usize| mask.is_valid(place) && mask.value(place);
        let row_ordinals = self
            .row_ordinals
            .iter()
            .enumerate()
            .filter(|(place, _)| kept(*place))
            .map(|(_, &o)| o)
            .collect();
        Ok(Self {
            records,
            row_ordinals,
            provenance: self.provenance,
        })
    }

    /// The records at these places; they still stand for all of the batch's source rows.
    #[must_use]
    pub fn rows(&self, part: Range<usize>) -> Self {
        Self {
            records: self.records.slice(part.start, part.end - part.start),
            row_ordinals: self.row_ordinals[part].to_vec(),
            provenance: Arc::clone(&self.provenance),
        }
    }

    /// Splits between source rows: in front are, from the first on, those that have left at most
    /// `records` records; where `at_least_one`, the first that has left any is among them, however
    /// many. Ordinals begin at 0 in both parts.
    ///
    /// # Errors
    /// When the records cannot be separated.
    pub fn split_at_records(
        &self,
        records: usize,
        at_least_one: bool,
    ) -> Result<(Self, Self), ArrowError> {
        let mut ordinals = self.row_ordinals.clone();
        ordinals.sort_unstable();
        let all = self.provenance.len();
        let end = match (ordinals.first(), ordinals.get(records)) {
            (Some(first), Some(end)) if first == end && at_least_one => u64::from(*end) + 1,
            (_, Some(end)) => u64::from(*end),
            (_, None) => all,
        };
        let part = |rows: Range<u64>| -> Result<Self, ArrowError> {
            let is_inside = |ordinal: &u32| rows.contains(&u64::from(*ordinal));
            let mask: BooleanArray = self
                .row_ordinals
                .iter()
                .map(|ordinal| Some(is_inside(ordinal)))
                .collect();
            let shift = u32::try_from(rows.start).unwrap_or(u32::MAX);
            let row_ordinals = self
                .row_ordinals
                .iter()
                .filter(|ordinal| is_inside(ordinal))
                .map(|ordinal| ordinal - shift)
                .collect();
            let provenance = Arc::new(self.provenance.slice(rows.clone()));
            Ok(Self {
                records: filter_record_batch(&self.records, &mask)?,
                row_ordinals,
                provenance,
            })
        };
        Ok((part(0..end)?, part(end..all)?))
    }

    /// The records of several arms of the graph, one after the other; all stand for the same source
    /// rows.
    ///
    /// # Errors
    /// When the schemas differ.
    pub fn concat(arms: &[Self]) -> Result<Option<Self>, ArrowError> {
        let Some(first) = arms.first() else {
            return Ok(None);
        };
        if arms.len() == 1 {
            return Ok(Some(first.clone()));
        }
        let records = concat_batches(&first.records.schema(), arms.iter().map(|arm| &arm.records))?;
        let row_ordinals = arms
            .iter()
            .flat_map(|arm| arm.row_ordinals.iter().copied())
            .collect();
        Ok(Some(Self {
            records,
            row_ordinals,
            provenance: Arc::clone(&first.provenance),
        }))
    }
}

/// What became of the source rows of a batch, once that is durable in every sink.
#[derive(Debug, Clone)]
pub struct BatchAck {
    /// The rows.
    pub provenance: Arc<Provenance>,
    /// Those that were refused, and by which stage.
    pub rejected: Vec<(Arc<str>, Reject)>,
    /// The ordinals of those that reached no sink, without having been refused: a filter dropped
    /// them.
    pub filtered: Vec<u32>,
}

/// What a source hands over: a batch, the rows it could not read, and what it weighs.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The records. Rows that could not be read are in the provenance only, and in `rejects`.
    pub batch: Batch,
    /// Rows that the source could not turn into records.
    pub rejects: Vec<Reject>,
    /// Pixels that the batch's images have once decoded, by their headers; 0 for feature records.
    pub pixels: u64,
}

impl SourceBatch {
    /// Only the source rows at the ordinals `part`.
    #[must_use]
    pub fn slice(&self, part: Range<u64>) -> Self {
        let shift = |ordinal: u32| ordinal - u32::try_from(part.start).unwrap_or(u32::MAX);
        let row_ordinals = &self.batch.row_ordinals;
        let from = row_ordinals.partition_point(|&o| u64::from(o) < part.start);
        let to = row_ordinals.partition_point(|&o| u64::from(o) < part.end);
        let batch = Batch {
            records: self.batch.records.slice(from, to - from),
            row_ordinals: row_ordinals[from..to].iter().map(|&o| shift(o)).collect(),
            provenance: Arc::new(self.batch.provenance.slice(part.clone())),
        };
        let rejects = self
            .rejects
            .iter()
            .filter_map(|reject| reject.slice(&part))
            .collect();
        let all = self.batch.provenance.len().max(1);
        let pixels = self.pixels * (part.end - part.start) / all;
        Self {
            batch,
            rejects,
            pixels,
        }
    }
}

/// Why a record was refused: a small closed set, a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// It could not be read from where it lies.
    Unreadable,
    /// Its bytes are not what their format demands.
    Malformed,
    /// It ends before its format says it should.
    Truncated,
    /// It is sound, but of a kind that is not supported.
    Unsupported,
    /// It exceeds a limit.
    TooLarge,
    /// A value is missing.
    Missing,
    /// A value has another type or shape than the stage needs.
    Mismatch,
    /// A value is not a finite number.
    NotFinite,
    /// The model failed on it.
    Model,
    /// The stage failed on it with an error that it does not expect of records.
    Internal,
    /// The stage panicked on it.
    Panicked,
    /// The process ended, again and again, while it was worked on.
    Crashed,
}

impl RejectCode {
    /// All of them, for metrics that exist before their first event.
    pub const ALL: [Self; 12] = [
        Self::Unreadable,
        Self::Malformed,
        Self::Truncated,
        Self::Unsupported,
        Self::TooLarge,
        Self::Missing,
        Self::Mismatch,
        Self::NotFinite,
        Self::Model,
        Self::Internal,
        Self::Panicked,
        Self::Crashed,
    ];

    /// The code as it stands in rejects and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::NotFinite => "not_finite",
            Self::Model => "model",
            Self::Internal => "internal",
            Self::Panicked => "panicked",
            Self::Crashed => "crashed",
        }
    }
}

/// A record that was refused, and why.
#[derive(Debug, Clone)]
pub struct Reject {
    /// Which source row of the batch; the first one, if the reject stands for several.
    pub ordinal: u32,
    /// The number of source rows of the batch that it stands for, from `ordinal` on.
    pub rows: u64,
    /// The number of records that it stands for: one for each row, except for a reject of an
    /// earlier run that stood for several.
    pub records: u64,
    /// For metrics.
    pub code: RejectCode,
    /// For people: what was met, what was expected.
    pub reason: String,
    /// The record as it was met, where the source's batch does not hold it (a line that is no
    /// JSON).
    pub record: Option<Vec<u8>>,
    /// A reference to the file that holds the record, as JSON, where its source could not read it.
    pub reference: Option<Vec<u8>>,
    /// Where it came from and its row in there, where the source's batch does not hold it.
    pub source: Option<(String, u64)>,
}

impl Reject {
    /// A reject of which nothing is known but what the source's batch says.
    pub fn new(ordinal: u32, code: RejectCode, reason: impl Into<String>) -> Self {
        let (record, reference, source) = (None, None, None);
        Self {
            ordinal,
            rows: 1,
            records: 1,
            code,
            reason: reason.into(),
            record,
            reference,
            source,
        }
    }

    /// The part of the reject that stands for the source rows at the ordinals `part`, seen from the
    /// first of them.
    fn slice(&self, part: &Range<u64>) -> Option<Self> {
        let first = u64::from(self.ordinal);
        let (start, end) = (
            first.max(part.start),
            first.saturating_add(self.rows).min(part.end),
        );
        let ordinal = u32::try_from(start.checked_sub(part.start)?)
            .ok()
            .filter(|_| start < end)?;
        let rows = end - start;
        let records = if rows == self.rows {
            self.records
        } else {
            rows
        };
        let source = self
            .source
            .clone()
            .map(|(source, row)| (source, row + (start - first)));
        Some(Self {
            ordinal,
            rows,
            records,
            source,
            ..self.clone()
        })
    }
}

/// The number of records that rejects stand for.
pub fn rejected_records(rejects: &[Reject]) -> u64 {
    rejects
        .iter()
        .fold(0, |sum, reject| sum.saturating_add(reject.records))
}

/// Collects what a transform refuses.
#[derive(Debug, Default)]
pub struct RejectCollector {
    list: Vec<Reject>,
}

impl RejectCollector {
    /// Refuses the record whose origin is `ordinal`. The transform must drop it from its output.
    pub fn push(&mut self, ordinal: u32, code: RejectCode, reason: impl Into<String>) {
        self.list.push(Reject::new(ordinal, code, reason));
    }

    /// Adds what `others` holds.
    pub fn append(&mut self, mut others: Self) {
        self.list.append(&mut others.list);
    }

    /// What was refused, in the order of arrival.
    pub fn into_vec(self) -> Vec<Reject> {
        self.list
    }
}

/// FNV-1a, 64 bits: fixed for ever, since seeds of recorded noise depend on it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub fn splitmix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> Batch {
        let rows = u64::try_from(values.start).unwrap()..u64::try_from(values.end).unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        let records = RecordBatch::try_from_iter([("v", column)]).unwrap();
        Batch::new(records, Provenance::rows(Split::new("s"), rows))
    }

    #[test]
    fn a_record_keeps_its_identity_through_a_filter() {
        let mask = BooleanArray::from(vec![Some(false), Some(true), None, Some(true)]);
        let kept = batch(10..14).filter(&mask).unwrap();
        assert_eq!(kept.row_ordinals, [1, 3]);
        assert_eq!(
            kept.provenance
                .row(kept.row_ordinals[1])
                .map(|(_, row)| row),
            Some(13)
        );
        assert_eq!(kept.provenance.len(), 4);
    }

    #[test]
    fn batch_is_split_between_source_rows() {
        // Two records of row 0, none of rows 1 and 4, and row 2 in the arm behind again.
        let whole = Batch {
            row_ordinals: vec![0, 0, 2, 3, 5, 2],
            ..batch(10..16)
        };
        let split = |records, at_least_one| {
            let (first, rest) = whole.split_at_records(records, at_least_one).unwrap();
            let rows = |batch: &Batch| {
                batch
                    .provenance
                    .ranges()
                    .first()
                    .map(|range| range.rows.clone())
            };
            assert_eq!(first.provenance.len() + rest.provenance.len(), 6);
            (
                first.row_ordinals.clone(),
                rows(&first),
                rest.row_ordinals.clone(),
                rows(&rest),
            )
        };
        assert_eq!(
            split(3, false),
            (vec![0, 0], Some(10..12), vec![0, 1, 3, 0], Some(12..16))
        );
        assert_eq!(
            split(4, false),
            (vec![0, 0, 2, 2], Some(10..13), vec![0, 2], Some(13..16))
        );
        assert_eq!(
            split(1, false),
            (vec![], None, vec![0, 0, 2, 3, 5, 2], Some(10..16))
        );
        assert_eq!(
            split(1, true),
            (vec![0, 0], Some(10..11), vec![1, 2, 4, 1], Some(11..16))
        );
        assert_eq!(
            split(6, true),
            (vec![0, 0, 2, 3, 5, 2], Some(10..16), vec![], None)
        );
        let (_, rest) = whole.split_at_records(4, false).unwrap();
        assert_eq!(
            rest.records.column(0).as_ref(),
            &Int64Array::from(vec![13, 14])
        );
    }

    #[test]
    fn a_seed_depends_on_split_row_and_salt_alone() {
        let (whole, part) = (batch(0..8).provenance, batch(5..8).provenance);
        assert_eq!(whole.seed(6, 1), part.seed(1, 1));
        assert_ne!(whole.seed(6, 1), whole.seed(6, 2));
        assert_ne!(whole.seed(6, 1), whole.seed(5, 1));
    }

    #[test]
    fn slicing_a_source_batch_keeps_rejects_with_their_rows() {
        let mut whole = SourceBatch {
            batch: batch(0..6),
            rejects: Vec::new(),
            pixels: 600,
        };
        // Row 2 could not be read: five records stand for six rows.
        whole.batch.records = whole.batch.records.slice(0, 5);
        whole.batch.row_ordinals = vec![0, 1, 3, 4, 5];
        whole
            .rejects
            .push(Reject::new(2, RejectCode::Malformed, "bad"));
        let part = whole.slice(2..4);
        assert_eq!(part.batch.row_ordinals, [1]);
        assert_eq!(part.batch.records.num_rows(), 1);
        assert_eq!(
            part.rejects
                .iter()
                .map(|reject| reject.ordinal)
                .collect::<Vec<_>>(),
            [0]
        );
        assert_eq!((part.batch.provenance.len(), part.pixels), (2, 200));
    }

    #[test]
    fn reject_of_several_rows_is_cut_with_its_batch() {
        let empty = batch(0..6).records.slice(0, 0);
        let provenance = Provenance::rows(Split::new("s"), 100..1100).into();
        let source = Some(("a.parquet".to_owned(), 100));
        let reject = Reject {
            rows: 1000,
            records: 1000,
            source,
            ..Reject::new(0, RejectCode::Malformed, "bad")
        };
        let whole = SourceBatch {
            batch: Batch {
                records: empty,
                row_ordinals: Vec::new(),
                provenance,
            },
            rejects: vec![reject],
            pixels: 0,
        };
        let cut = [0..250, 250..999, 999..1000].map(|part| whole.slice(part).rejects.remove(0));
        assert_eq!(
            cut.each_ref().map(|reject| (reject.ordinal, reject.rows)),
            [(0, 250), (0, 749), (0, 1)]
        );
        assert_eq!(
            cut.each_ref()
                .map(|reject| reject.source.as_ref().unwrap().1),
            [100, 350, 1099]
        );
        assert_eq!(rejected_records(&cut), 1000);
    }

    #[test]
    fn reject_of_one_row_keeps_its_records_and_is_not_cut() {
        let mut whole = SourceBatch {
            batch: batch(0..2),
            rejects: Vec::new(),
            pixels: 0,
        };
        whole.batch = whole.batch.rows(0..0);
        whole.rejects.push(Reject {
            records: 500,
            ..Reject::new(0, RejectCode::Unreadable, "no bytes")
        });
        let cut = [0..1, 1..2].map(|part| rejected_records(&whole.slice(part).rejects));
        assert_eq!(cut, [500, 0]);
    }
}
