//! Rejects: the reason of each, and the records that it covers.

use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;

/// The cause of a reject, from a small closed set that is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
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
    pub(super) fn slice(&self, part: &Range<u64>) -> Option<Self> {
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
    pub(crate) fn into_vec(self) -> Vec<Reject> {
        self.list
    }
}
