//! The writer of a Parquet file of a dataset: encodings, row groups, and the atomic completion.

use std::io;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::errors::ParquetError;

use crate::arrow_size::{record_bytes, rows_that_fit};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::failpoint;
use crate::sink::CommitStats;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::options::{ParquetOptions, RowGroupConfig};
use crate::sink::parquet::row_groups::RowGroupWriter;
use crate::storage::{AtomicWriter, Location, ObjectPath};

/// The writer of a file, which becomes visible when it is complete.
pub(crate) struct ParquetFileWriter {
    location: Location,
    groups: RowGroupWriter<AtomicWriter>,
    row_group: RowGroupConfig,
    /// Size in Arrow bytes of the open row group.
    group_bytes: u64,
    bytes: u64,
    records: u64,
}

impl ParquetFileWriter {
    /// Starts the file that will become visible at `location`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(crate) fn begin(
        location: Location,
        upload_record: Option<ObjectPath>,
        format: &ParquetOptions,
    ) -> Result<Self, StageError> {
        let schema = SchemaRef::clone(&format.schema);
        let (output, row_group) = (location.create_writer(upload_record)?, format.row_group);
        let groups = RowGroupWriter::begin(
            output,
            schema,
            format.properties.clone(),
            row_group.encoders(),
        );
        let groups = groups.map_err(failed(&location))?;
        Ok(Self {
            location,
            groups,
            row_group,
            group_bytes: 0,
            bytes: 0,
            records: 0,
        })
    }

    /// Appends records. After an error the writer must be dropped.
    ///
    /// # Errors
    /// If the records cannot be encoded or written.
    pub(crate) fn write(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        self.append(records).map_err(failed(&self.location))?;
        self.bytes += record_bytes(records);
        self.records += records.num_rows() as u64;
        Ok(())
    }

    fn append(&mut self, records: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = records.clone();
        while rest.num_rows() > 0 {
            let open = self.groups.open_rows();
            let rows = (self.row_group.records.get() as usize)
                .saturating_sub(open)
                .min(rest.num_rows());
            let room = self.row_group.bytes.0.saturating_sub(self.group_bytes);
            let fit = rows_that_fit(&rest.slice(0, rows), room);
            if fit == 0 && open > 0 {
                self.end_row_group()?;
                continue;
            }
            let fit = fit.max(1);
            let part = rest.slice(0, fit);
            self.group_bytes += record_bytes(&part);
            self.groups.write(part)?;
            rest = rest.slice(fit, rest.num_rows() - fit);
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        self.group_bytes = 0;
        self.groups.end_group()
    }

    /// Number of Arrow bytes written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of records written.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Writes the footer, and makes the file durable and visible. Calls `check` directly before the
    /// file becomes visible. Returns the size of the file.
    ///
    /// # Errors
    /// If the file cannot be written, or the error of `check`.
    pub(crate) fn finish(
        mut self,
        footer: &ProvenanceFooter,
        check: impl Fn() -> Result<(), StageError>,
    ) -> Result<CommitStats, StageError> {
        failpoint("written");
        let output = self
            .groups
            .finish(footer.to_metadata())
            .map_err(failed(&self.location))?;
        failpoint("closed");
        let bytes = output.bytes();
        check()?;
        if let Err(error) = output.finish() {
            // If another run has aborted the upload, the error of `check` is more specific.
            return Err(check().err().unwrap_or(error));
        }
        Ok(CommitStats {
            files: 1,
            bytes,
            records: self.records,
        })
    }
}

fn failed(location: &Location) -> impl FnOnce(ParquetError) -> StageError {
    move |error| match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(io_error) => location.io_error(*io_error),
            Err(cause) => StageError::new(ErrorCode::Parquet, format!("{location}: {cause}")),
        },
        other => StageError::new(ErrorCode::Parquet, format!("{location}: {other}")),
    }
}

#[cfg(test)]
mod tests;
