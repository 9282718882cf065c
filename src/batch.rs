//! Batches of records with the source rows that they represent, and rejected records.

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
    /// The split of which this one is a part.
    whole: Option<WholeSplit>,
}

/// A split that is divided into parts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeSplit {
    name: String,
    seed: u64,
    /// For each row of the part, its row in the whole.
    rows: Vec<u64>,
}

/// The identity of a row, which does not depend on how its split is divided into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowIdentity<'a> {
    /// The name of the undivided split.
    pub split: &'a str,
    /// The row in the undivided split.
    pub row: u64,
    /// The hash of the name.
    seed: u64,
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
    pub fn part_of(whole: impl Into<String>, rows: Vec<u64>, name: impl Into<String>) -> Arc<Self> {
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
    ranges: Vec<SplitRows>,
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

/// Records that are processed together, with their provenance.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Arrow columns. Their schema is that of the edge of the graph, which is fixed at planning.
    pub records: RecordBatch,
    /// For each record, the ordinal of its source row in `provenance`.
    pub row_ordinals: Vec<u32>,
    /// All source rows that the batch represents, including those of filtered and rejected records.
    pub provenance: Arc<Provenance>,
}

impl Batch {
    /// A batch with one record for each source row.
    pub fn new(records: RecordBatch, provenance: Provenance) -> Self {
        let row_ordinals = (0..u32::try_from(records.num_rows()).unwrap_or(u32::MAX)).collect();
        Self {
            records,
            row_ordinals,
            provenance: Arc::new(provenance),
        }
    }

    /// The same rows with other columns; `records` must have the same number of rows as before.
    #[must_use]
    pub fn with_records(self, records: RecordBatch) -> Self {
        debug_assert_eq!(
            records.num_rows(),
            self.row_ordinals.len(),
            "a transform changed the number of rows"
        );
        Self { records, ..self }
    }

    /// Keeps only the records whose `mask` is true; null counts as false.
    ///
    /// # Errors
    /// Returns an error if the length of the mask is not the number of records.
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

    /// The records at these positions, with the provenance of the entire batch.
    #[must_use]
    pub fn rows(&self, part: Range<usize>) -> Self {
        Self {
            records: self.records.slice(part.start, part.end - part.start),
            row_ordinals: self.row_ordinals[part].to_vec(),
            provenance: Arc::clone(&self.provenance),
        }
    }

    /// Splits the batch between two source rows. The first part has the longest prefix of source
    /// rows with at most `records` records. With `at_least_one`, it has at least the first source
    /// row that has any records, even if those exceed `records`. Ordinals start at 0 in both parts.
    ///
    /// # Errors
    /// Returns an error if Arrow cannot filter the records.
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

    /// Concatenates the records of several branches of the graph, which all represent the same
    /// source rows.
    ///
    /// # Errors
    /// Returns an error if the schemas differ.
    pub fn concat(branches: &[Self]) -> Result<Option<Self>, ArrowError> {
        let Some(first) = branches.first() else {
            return Ok(None);
        };
        if branches.len() == 1 {
            return Ok(Some(first.clone()));
        }
        let records = concat_batches(
            &first.records.schema(),
            branches.iter().map(|branch| &branch.records),
        )?;
        let row_ordinals = branches
            .iter()
            .flat_map(|branch| branch.row_ordinals.iter().copied())
            .collect();
        Ok(Some(Self {
            records,
            row_ordinals,
            provenance: Arc::clone(&first.provenance),
        }))
    }
}

/// The acknowledgement of a batch: the outcome of its source rows, once it is durable in every
/// sink.
#[derive(Debug, Clone)]
pub struct BatchAck {
    /// The rows.
    pub provenance: Arc<Provenance>,
    /// Rejected records, with the stage that rejected each.
    pub rejected: Vec<(Arc<str>, Reject)>,
    /// Ordinals of the rows that reached no sink and were not rejected: a filter dropped them.
    pub filtered: Vec<u32>,
}

/// Output of a source: a batch, the rows that could not be read, and the number of pixels.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The records. Rows that could not be read are only in the provenance and in `rejects`.
    pub batch: Batch,
    /// Rows for which the source could not create records.
    pub rejects: Vec<Reject>,
    /// Number of pixels that the batch's images have after decoding, by their headers; 0 for
    /// feature records.
    pub pixels: u64,
}

impl SourceBatch {
    /// The part with the source rows at the ordinals `part`.
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

/// The cause of a reject, from a small closed set that is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// The record could not be read from its location.
    Unreadable,
    /// The bytes of the record violate their format.
    Malformed,
    /// The record ends before its format allows it to.
    Truncated,
    /// The record is valid, but of a kind that is not supported.
    Unsupported,
    /// The record exceeds a limit.
    TooLarge,
    /// A value is missing.
    Missing,
    /// A value has a different type or shape than the stage needs.
    Mismatch,
    /// A value is not a finite number.
    NotFinite,
    /// The model failed on the record.
    Model,
    /// The stage failed on the record with an error that it does not expect of records.
    Internal,
    /// The stage panicked on the record.
    Panicked,
    /// The process terminated repeatedly while the record was processed.
    Crashed,
}

impl RejectCode {
    /// All codes, for metrics that exist before their first event.
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

    /// The code as stored in rejects and metrics.
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

/// How the original text of a rejected record can be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RecordLayout {
    /// It cannot be parsed.
    #[default]
    Unparsed,
    /// It is a JSON object.
    Json,
    /// It is a record of delimited text; the text describes its columns as JSON.
    Csv(Arc<str>),
}

/// A rejected record and the reason.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The ordinal of the rejected source row, or of the first one if the reject represents
    /// several.
    pub ordinal: u32,
    /// The number of source rows that the reject represents, from `ordinal` on.
    pub rows: u64,
    /// The number of records that the reject represents: one for each row, except for a reject of
    /// an earlier run that represented several.
    pub records: u64,
    /// The cause, for metrics.
    pub code: RejectCode,
    /// The reason, for users: the value that was met, and the expected value.
    pub reason: String,
    /// The original record, if the source's batch does not hold it, such as a line that is not
    /// valid JSON.
    pub record: Option<Vec<u8>>,
    /// How `record` can be read again.
    pub layout: RecordLayout,
    /// A reference to the file that holds the record, as JSON, if its source could not read it.
    pub reference: Option<Vec<u8>>,
    /// The name of the input and the row in it, if the source's batch does not hold them.
    pub source: Option<(String, u64)>,
}

impl Reject {
    /// A reject of one record, whose original and origin are in the source's batch.
    pub fn new(ordinal: u32, code: RejectCode, reason: impl Into<String>) -> Self {
        let (record, reference, source) = (None, None, None);
        Self {
            ordinal,
            rows: 1,
            records: 1,
            code,
            reason: reason.into(),
            record,
            layout: RecordLayout::Unparsed,
            reference,
            source,
        }
    }

    /// The part of the reject for the source rows at the ordinals `part`, with ordinals relative to
    /// the start of `part`.
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

/// The number of records that rejects represent.
pub fn rejected_records(rejects: &[Reject]) -> u64 {
    rejects
        .iter()
        .fold(0, |sum, reject| sum.saturating_add(reject.records))
}

/// Collects the rejects of a transform.
#[derive(Debug, Default)]
pub struct RejectCollector {
    list: Vec<Reject>,
}

impl RejectCollector {
    /// Rejects the record with the given ordinal. The transform must remove it from its output.
    pub fn push(&mut self, ordinal: u32, code: RejectCode, reason: impl Into<String>) {
        self.list.push(Reject::new(ordinal, code, reason));
    }

    /// Adds the rejects of `others`.
    pub fn append(&mut self, mut others: Self) {
        self.list.append(&mut others.list);
    }

    /// The rejects, in the order of arrival.
    pub fn into_vec(self) -> Vec<Reject> {
        self.list
    }
}

/// FNV-1a with 64 bits. It must never change, because seeds of recorded noise depend on it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit affects every output bit.
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
    fn filtered_record_keeps_its_identity() {
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
        // Two records of row 0, none of rows 1 and 4, and a second record of row 2 from a later
        // branch.
        let full = Batch {
            row_ordinals: vec![0, 0, 2, 3, 5, 2],
            ..batch(10..16)
        };
        let split = |records, at_least_one| {
            let (first, rest) = full.split_at_records(records, at_least_one).unwrap();
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
        let (_, rest) = full.split_at_records(4, false).unwrap();
        assert_eq!(
            rest.records.column(0).as_ref(),
            &Int64Array::from(vec![13, 14])
        );
    }

    #[test]
    fn ordinals_are_found_in_their_ranges() {
        let (a, b) = (Split::new("a"), Split::new("b"));
        let range = |split: &Arc<Split>, rows: Range<u64>| SplitRows {
            split: Arc::clone(split),
            rows,
        };
        let all = Provenance::new(vec![range(&a, 5..7), range(&b, 0..0), range(&b, 9..10)]);
        let row = |ordinal| all.row(ordinal).map(|(split, row)| (split.name(), row));
        assert_eq!(
            (0..4).map(row).collect::<Vec<_>>(),
            [Some(("a", 5)), Some(("a", 6)), Some(("b", 9)), None]
        );
        assert_eq!((all.len(), Provenance::default().row(0)), (3, None));
    }

    #[test]
    fn row_of_a_part_has_the_identity_of_its_row_in_the_whole() {
        let whole = Provenance::rows(Split::new("in/listing-0"), 0..10);
        let part = Split::part_of("in/listing-0", vec![1, 4, 9], "in/listing-0/part");
        let part = Provenance::rows(part, 1..3);
        for (ordinal, row) in [(0, 4), (1, 9)] {
            assert_eq!(part.seed(ordinal, 7), whole.seed(row, 7));
            assert_eq!(part.identity(ordinal), whole.identity(row));
        }
        assert_eq!(
            part.row(0).map(|(split, row)| (split.name(), row)),
            Some(("in/listing-0/part", 1))
        );
        assert_eq!(part.identity(2), None);
    }

    #[test]
    fn seed_depends_only_on_split_row_and_salt() {
        let (full, part) = (batch(0..8).provenance, batch(5..8).provenance);
        assert_eq!(full.seed(6, 1), part.seed(1, 1));
        assert_ne!(full.seed(6, 1), full.seed(6, 2));
        assert_ne!(full.seed(6, 1), full.seed(5, 1));
    }

    #[test]
    fn sliced_source_batch_keeps_rejects_with_their_rows() {
        let mut full = SourceBatch {
            batch: batch(0..6),
            rejects: Vec::new(),
            pixels: 600,
        };
        // Row 2 could not be read: five records represent six rows.
        full.batch.records = full.batch.records.slice(0, 5);
        full.batch.row_ordinals = vec![0, 1, 3, 4, 5];
        full.rejects
            .push(Reject::new(2, RejectCode::Malformed, "bad"));
        let part = full.slice(2..4);
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
        let uncut = Reject {
            rows: 1000,
            records: 1000,
            source,
            ..Reject::new(0, RejectCode::Malformed, "bad")
        };
        let full = SourceBatch {
            batch: Batch {
                records: empty,
                row_ordinals: Vec::new(),
                provenance,
            },
            rejects: vec![uncut],
            pixels: 0,
        };
        let cut = [0..250, 250..999, 999..1000].map(|part| full.slice(part).rejects.remove(0));
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
        let mut full = SourceBatch {
            batch: batch(0..2),
            rejects: Vec::new(),
            pixels: 0,
        };
        full.batch = full.batch.rows(0..0);
        full.rejects.push(Reject {
            records: 500,
            ..Reject::new(0, RejectCode::Unreadable, "no bytes")
        });
        let cut = [0..1, 1..2].map(|part| rejected_records(&full.slice(part).rejects));
        assert_eq!(cut, [500, 0]);
    }
}
