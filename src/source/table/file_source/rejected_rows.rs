//! Rejects of files and rows.

use std::io;
use std::ops::Range;

use arrow::array::RecordBatch;

use crate::batch::provenance::Provenance;
use crate::batch::reject::{Reject, RejectCode};
use crate::batch::{Batch, SourceBatch};
use crate::source::discovery::input_file::unusable;
use crate::source::discovery::listed_file::RecordError;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::batch_output::{
    BatchOutput, FileRecords, ROWS_PER_BYTE, UNKNOWN_NUMBER,
};

impl BatchOutput<'_> {
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
}
