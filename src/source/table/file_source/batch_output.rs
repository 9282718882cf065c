//! The output of a file's reader: batches of records with their origin, and rejects of rows.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::batch::provenance::Provenance;
use crate::batch::reject::Reject;
use crate::batch::{Batch, SourceBatch};
use crate::columns::SOURCE;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::file_checkpoints::{CheckpointTracker, HashingReader};
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::origin::add_origin;
use crate::source::table::missing_values::reject_missing;
use crate::source::table::widened_columns::widen_columns;
use crate::storage::FileReader;

/// The records and rejects of one batch of a file.
#[derive(Default)]
pub(crate) struct FileRecords {
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
pub(crate) const ROWS_PER_BYTE: u64 = 1024;

/// The reason why a reject counts as one record.
pub(super) const UNKNOWN_NUMBER: &str =
    "the number of records is unknown, so the reject counts as one record";

/// The receiver of the batches of a file.
pub(crate) struct BatchOutput<'a> {
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
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?;
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

    pub(crate) fn push(
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
