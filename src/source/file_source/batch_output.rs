//! Where the batches of a file go: records with their origin, and rejects that stand for rows.

use std::io;
use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::ReadEnd;
use crate::batch::{Batch, Provenance, Reject, RejectCode, SourceBatch};
use crate::coverage::ResumeState;
use crate::source::file_checkpoints::{CheckpointTracker, HashingReader};
use crate::source::input_file::{InputFile, unusable};
use crate::source::listed_file::RecordError;
use crate::source::missing_values::reject_missing;
use crate::source::{SOURCE, add_origin};
use crate::storage::FileReader;

/// Records of a file on their way out.
#[derive(Default)]
pub(in crate::source) struct FileRecords {
    /// The planned columns, without origin.
    pub(in crate::source) columns: Vec<ArrayRef>,
    /// For each record its ordinal among the rows.
    pub(in crate::source) origin: Vec<u32>,
    /// Rows that are no records.
    pub(in crate::source) rejects: Vec<Reject>,
    /// What `source` holds where it is more than the file's name.
    pub(in crate::source) sources: Option<ArrayRef>,
    /// Pixels of the records' images.
    pub(in crate::source) pixels: u64,
}

/// Rows that a byte of a file can stand for: deflate and run-length encoding reach about as much.
/// Files that declare more are damaged or hostile.
pub(in crate::source) const ROWS_PER_BYTE: u64 = 1024;

/// Why a reject counts as one record.
const UNKNOWN_NUMBER: &str = "the number of records is unknown, so it counts as one";

/// Where a file's batches go.
pub(in crate::source) struct BatchOutput<'a> {
    pub(super) schema: &'a SchemaRef,
    pub(super) file: &'a InputFile,
    pub(super) resume: &'a ResumeState,
    /// Records what is read of a file of text, where that is remembered.
    pub(super) tracking: Option<&'a CheckpointTracker<'a>>,
    /// Takes a batch; `false`: nobody wants more.
    pub(super) take: &'a (dyn Fn(SourceBatch) -> bool + Sync),
    /// Returns when nothing else is read, but what goes ahead of its turn.
    pub(super) wait: &'a (dyn Fn() + Sync),
}

impl BatchOutput<'_> {
    /// The same, but batches go elsewhere.
    pub(in crate::source) fn through<'b>(
        &'b self,
        take: &'b (dyn Fn(SourceBatch) -> bool + Sync),
        wait: &'b (dyn Fn() + Sync),
    ) -> BatchOutput<'b> {
        BatchOutput {
            take,
            wait,
            ..*self
        }
    }

    /// Waits until all that stands before has been handed over: for what takes too much to be read
    /// ahead.
    pub(in crate::source) fn wait_until_head(&self) {
        (self.wait)();
    }

    /// Hands over a batch as it is. `false`: nobody wants more.
    pub(in crate::source) fn forward(&self, batch: SourceBatch) -> bool {
        (self.take)(batch)
    }

    /// The text of the file, up to the length that was listed.
    pub(in crate::source) fn track(&self, input: FileReader) -> HashingReader {
        match self.tracking {
            Some(tracking) => tracking.read(input),
            None => HashingReader::plain(input, self.file.size()),
        }
    }

    /// Says that the rows before `rows` are about to be handed over; `in_quotes`: the file was
    /// found to end within a quoted value.
    pub(in crate::source) fn begin(&self, rows: u64, in_quotes: bool) -> Result<(), ReadEnd> {
        self.tracking
            .map_or(Ok(()), |tracking| tracking.begin(rows, in_quotes))
            .map_err(ReadEnd::Failed)
    }

    /// Says that the file was read to its end and has `rows` rows.
    pub(in crate::source) fn end(&self, rows: u64, in_quotes: bool) -> Result<(), ReadEnd> {
        self.tracking
            .map_or(Ok(()), |tracking| tracking.end(rows, in_quotes))
            .map_err(ReadEnd::Failed)
    }

    /// Whether every sink has these rows of the file.
    pub(in crate::source) fn done(&self, rows: &Range<u64>) -> bool {
        self.resume.is_committed(self.file.split.name(), rows)
    }

    /// Hands over what became of these rows.
    pub(in crate::source) fn send(
        &self,
        rows: Range<u64>,
        mut records: FileRecords,
    ) -> Result<(), ReadEnd> {
        let added = self.schema.fields().len() - records.columns.len();
        reject_missing(&self.schema.fields()[added..], &mut records)?;
        let start = rows.start;
        let numbers = records
            .origin
            .iter()
            .map(|&ordinal| start + u64::from(ordinal));
        let mut batch = add_origin(self.schema, &self.file.name, numbers, &records.columns)?;
        let is_ours = added > 0 && self.schema.field(0).name() == SOURCE;
        if let Some(sources) = records.sources.take().filter(|_| is_ours) {
            batch = with_first(&batch, sources)?;
        }
        self.push(rows, batch, records)
    }

    /// Hands over that the file, which holds `records`, cannot be used.
    pub(super) fn reject_file(
        &self,
        RecordError { code, reason, .. }: RecordError,
        records: u64,
    ) -> Result<(), ReadEnd> {
        let split = unusable(&self.file.split);
        if self.resume.is_committed(split.name(), &(0..1)) {
            return Ok(());
        }
        let source = Some((self.file.name.clone(), 0));
        let rows = if records > self.max_rows() {
            1
        } else {
            records.max(1)
        };
        let rejects = vec![Reject {
            source,
            rows,
            records: rows,
            ..Reject::new(0, code, reason)
        }];
        let records = RecordBatch::new_empty(self.schema.clone());
        let batch = Batch {
            records,
            row_ordinals: Vec::new(),
            provenance: Provenance::rows(split, 0..rows).into(),
        };
        if self.forward(SourceBatch {
            batch,
            rejects,
            pixels: 0,
        }) {
            Ok(())
        } else {
            Err(ReadEnd::Cancelled)
        }
    }

    /// Ends a file at an I/O error before `row`: what cannot be read for a reason of the
    /// environment is left undone; if the file has changed, the rest of it is one reject.
    pub(in crate::source) fn stop_at(&self, row: u64, error: io::Error) -> Result<(), ReadEnd> {
        match self.file.unavailable(error) {
            Ok(unavailable) => Err(unavailable.into()),
            Err(error) => self.reject_rest(
                row,
                RejectCode::Unreadable,
                &format!("the rest of the file is lost: {error}"),
            ),
        }
    }

    /// Hands over that these rows are no records, as one reject that stands for all of them. A
    /// number of rows that a file of this size cannot hold is not believed: then the reject stands
    /// for one row.
    pub(in crate::source) fn reject_rows(
        &self,
        rows: Range<u64>,
        code: RejectCode,
        reason: String,
    ) -> Result<(), ReadEnd> {
        if rows.is_empty() {
            return Ok(());
        }
        let (start, count) = (rows.start, rows.end - rows.start);
        if count > self.max_rows() {
            let reason = format!(
                "{reason}; {count} rows are declared, more than the file can hold: it counts as one record"
            );
            return self.reject_rows(start..start + 1, code, reason);
        }
        let place = if count == 1 {
            format!("row {start}")
        } else {
            format!("{count} rows from {start}")
        };
        self.reject(rows, code, format!("{}, {place}: {reason}", self.file.name))
    }

    /// Rows that a file of this size can hold.
    fn max_rows(&self) -> u64 {
        self.file.size().saturating_mul(ROWS_PER_BYTE).max(1)
    }

    /// Hands over that the file cannot be read from `row` on, as one reject: the number of records
    /// is unknown.
    pub(in crate::source) fn reject_rest(
        &self,
        row: u64,
        code: RejectCode,
        reason: &str,
    ) -> Result<(), ReadEnd> {
        self.reject_rows(row..row + 1, code, format!("{reason}; {UNKNOWN_NUMBER}"))
    }

    /// One reject for these rows; the reason names the file.
    fn reject(&self, rows: Range<u64>, code: RejectCode, reason: String) -> Result<(), ReadEnd> {
        if self.done(&rows) {
            return Ok(());
        }
        let count = rows.end - rows.start;
        let rejects = vec![Reject {
            rows: count,
            records: count,
            ..Reject::new(0, code, reason)
        }];
        let empty = RecordBatch::new_empty(self.schema.clone());
        self.push(
            rows,
            empty,
            FileRecords {
                rejects,
                ..FileRecords::default()
            },
        )
    }

    fn push(
        &self,
        rows: Range<u64>,
        batch: RecordBatch,
        mut records: FileRecords,
    ) -> Result<(), ReadEnd> {
        for reject in &mut records.rejects {
            let place = || {
                (
                    self.file.name.clone(),
                    rows.start + u64::from(reject.ordinal),
                )
            };
            let source = reject.source.take().unwrap_or_else(place);
            reject.source = Some(source);
        }
        let provenance = Provenance::rows(self.file.split.clone(), rows).into();
        let batch = Batch {
            records: batch,
            row_ordinals: records.origin,
            provenance,
        };
        let batch = SourceBatch {
            batch,
            rejects: records.rejects,
            pixels: records.pixels,
        };
        if self.forward(batch) {
            Ok(())
        } else {
            Err(ReadEnd::Cancelled)
        }
    }
}

/// The same records with another first column.
fn with_first(batch: &RecordBatch, first: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    columns[0] = first;
    RecordBatch::try_new(batch.schema(), columns)
}
