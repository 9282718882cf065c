//! The output of a file's reader: batches of records with their origin, and rejects of rows.

use std::io;
use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::ReadEnd;
use crate::batch::{Batch, Provenance, Reject, RejectCode, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::source::file_checkpoints::{CheckpointTracker, HashingReader};
use crate::source::hive_partitions::HivePartitions;
use crate::source::input_file::{InputFile, unusable};
use crate::source::listed_file::RecordError;
use crate::source::missing_values::reject_missing;
use crate::source::widened_columns::widen_columns;
use crate::source::{SOURCE, add_origin};
use crate::storage::FileReader;

/// The records and rejects of one batch of a file.
#[derive(Default)]
pub(in crate::source) struct FileRecords {
    /// The planned columns, without their origin.
    pub(in crate::source) columns: Vec<ArrayRef>,
    /// The ordinal of each record among the rows of the batch.
    pub(in crate::source) origin: Vec<u32>,
    /// The rejected rows.
    pub(in crate::source) rejects: Vec<Reject>,
    /// The column `source`, if it holds more than the name of the file.
    pub(in crate::source) sources: Option<ArrayRef>,
    /// Pixels of the records' images.
    pub(in crate::source) pixels: u64,
}

impl FileRecords {
    /// Removes the records that are not kept, after their rejects were added.
    ///
    /// # Errors
    /// An error of Arrow's filter kernel, which does not occur for valid columns.
    pub(in crate::source) fn retain(&mut self, kept: &BooleanArray) -> Result<(), ArrowError> {
        let keep = |column: &ArrayRef| filter(column, kept);
        self.columns = self.columns.iter().map(keep).collect::<Result<_, _>>()?;
        self.sources = self.sources.as_ref().map(keep).transpose()?;
        let mut flags = kept.values().iter();
        self.origin.retain(|_| flags.next().unwrap_or(true));
        self.rejects.sort_by_key(|reject| reject.ordinal);
        Ok(())
    }
}

/// Maximum number of rows per byte of a file: the approximate limit of deflate and of run-length
/// encoding. Files that declare more rows are damaged or hostile.
pub(in crate::source) const ROWS_PER_BYTE: u64 = 1024;

/// The reason why a reject counts as one record.
const UNKNOWN_NUMBER: &str = "the number of records is unknown, so the reject counts as one record";

/// The receiver of the batches of a file.
pub(in crate::source) struct BatchOutput<'a> {
    pub(super) schema: &'a SchemaRef,
    /// The last columns of the schema, whose values are in the name of the file.
    pub(super) partitions: &'a HivePartitions,
    pub(super) file: &'a InputFile,
    pub(super) resume: &'a ResumeState,
    /// Records the progress in a text file, if checkpoints are stored.
    pub(super) tracking: Option<&'a CheckpointTracker<'a>>,
    /// Receives a batch; `false`: the receiver is gone.
    pub(super) take: &'a (dyn Fn(SourceBatch) -> bool + Sync),
    /// Returns once all earlier parts of the file have been sent.
    pub(super) wait: &'a (dyn Fn() + Sync),
}

impl BatchOutput<'_> {
    /// The same output with another receiver of batches.
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

    /// Waits until all earlier parts of the file have been sent. Used by parts that take too much
    /// memory to be read ahead.
    pub(in crate::source) fn wait_until_head(&self) {
        (self.wait)();
    }

    /// Sends a batch unchanged. `false`: the receiver is gone.
    pub(in crate::source) fn forward(&self, batch: SourceBatch) -> bool {
        (self.take)(batch)
    }

    /// The text of the file, up to the length in the listing.
    pub(in crate::source) fn track(&self, input: FileReader) -> HashingReader {
        match self.tracking {
            Some(tracking) => tracking.read(input),
            None => HashingReader::plain(input, self.file.size()),
        }
    }

    /// Records that the rows before `rows` are about to be sent; `in_quotes`: the file ends within
    /// a quoted value.
    pub(in crate::source) fn begin(&self, rows: u64, in_quotes: bool) -> Result<(), ReadEnd> {
        self.tracking
            .map_or(Ok(()), |tracking| tracking.begin(rows, in_quotes))
            .map_err(ReadEnd::Failed)
    }

    /// Records that the file was read to its end and has `rows` rows.
    pub(in crate::source) fn end(&self, rows: u64, in_quotes: bool) -> Result<(), ReadEnd> {
        self.tracking
            .map_or(Ok(()), |tracking| tracking.end(rows, in_quotes))
            .map_err(ReadEnd::Failed)
    }

    /// Whether every sink has committed these rows of the file.
    pub(in crate::source) fn done(&self, rows: &Range<u64>) -> bool {
        self.resume.is_committed(self.file.split.name(), rows)
    }

    /// Sends the records and rejects of these rows as a batch.
    pub(in crate::source) fn send(
        &self,
        rows: Range<u64>,
        mut records: FileRecords,
    ) -> Result<(), ReadEnd> {
        let values = self
            .partitions
            .values(&self.file.name, records.origin.len())
            .map_err(StageError::Other)?;
        records.columns.extend(values);
        let added = self.schema.fields().len() - records.columns.len();
        let planned = &self.schema.fields()[added..];
        widen_columns(planned, &mut records)?;
        reject_missing(planned, &mut records)?;
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

    /// Sends one reject for a file of `records` records that cannot be used.
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
        let empty = RecordBatch::new_empty(self.schema.clone());
        let batch = Batch {
            records: empty,
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

    /// Ends a file at an I/O error before `row`. After an error of the environment, the rest of the
    /// file remains unread; if the file has changed, the rest of it is one reject.
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

    /// Sends one reject that represents all of these rows. If a file of this size cannot hold that
    /// number of rows, the reject represents one row.
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
                "{reason}; the file declares {count} rows, more than it can hold, so the reject \
                 counts as one record"
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

    /// Maximum number of rows of a file of this size.
    fn max_rows(&self) -> u64 {
        self.file.size().saturating_mul(ROWS_PER_BYTE).max(1)
    }

    /// Sends one reject for the rest of the file from `row`. It counts as one record, since the
    /// number of records is unknown.
    pub(in crate::source) fn reject_rest(
        &self,
        row: u64,
        code: RejectCode,
        reason: &str,
    ) -> Result<(), ReadEnd> {
        self.reject_rows(row..row + 1, code, format!("{reason}; {UNKNOWN_NUMBER}"))
    }

    /// Sends one reject for these rows; `reason` names the file.
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

/// Replaces the first column of a batch.
fn with_first(batch: &RecordBatch, first: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    columns[0] = first;
    RecordBatch::try_new(batch.schema(), columns)
}
