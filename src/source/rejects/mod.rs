//! The `rejects` source reads records that an earlier run rejected, as their source read them, for
//! a corrected pipeline.

pub(crate) mod columns;
pub(crate) mod config;
pub(crate) mod format;
pub(crate) mod text_originals;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use crate::batch::reject::{Reject, RejectCode};
use crate::columns::rejects::{CODE, FORMAT, RECORD, RECORDS, SPLIT, STAGE};
use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::StageError;
use crate::image::probe;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::PIXEL_BYTES;
use crate::source::discovery::file_reference::FileReference;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::origin::origin_fields;
use crate::source::rejects::columns::{RejectColumns, RejectFilter};
use crate::source::rejects::config::not_rejects;
use crate::source::rejects::format::OriginalFormat;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::{BatchOutput, FileFormat, FileRecords};
use crate::storage::FileReader;

/// Reads the batches of a file of rejects.
struct RejectBatches<'a> {
    file: &'a InputFile,
    /// A second handle of the file, to check its state while it is read.
    handle: FileReader,
    reader: ParquetRecordBatchReader,
    /// The number of rows in the footer.
    rows: u64,
}

impl<'a> RejectBatches<'a> {
    fn open(file: &'a InputFile, input: FileReader, step: usize) -> Result<Self, ReadEnd> {
        let handle = input.try_clone().map_err(file.stopped())?;
        let opened = catch_panic(|| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(input)?;
            let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
            let columns = [SOURCE, ROW, SPLIT, STAGE, CODE, FORMAT, RECORD, RECORDS];
            let mask = ProjectionMask::columns(reader.parquet_schema(), columns);
            Ok::<_, ParquetError>((
                reader.with_projection(mask).with_batch_size(step).build()?,
                rows,
            ))
        });
        file.check_available(&handle)?;
        let (reader, rows) = opened.map_err(|(code, what)| file.unfit(code, &what, 1))?;
        Ok(Self {
            file,
            handle,
            reader,
            rows,
        })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, (RejectCode, String)> {
        catch_panic(|| self.reader.next().transpose())
    }

    /// The end of reading: an error of the environment if there is one, otherwise the given reason.
    fn stop(&self, (code, what): (RejectCode, String)) -> ReadEnd {
        match self.file.check_available(&self.handle) {
            Err(stop) => stop,
            Ok(()) => self.file.unfit(code, &what, self.rows),
        }
    }
}

/// The columns of a source of images.
fn image_schema() -> SchemaRef {
    let image = Field::new(IMAGE, DataType::Binary, false);
    Arc::new(Schema::new(
        origin_fields()
            .into_iter()
            .chain([image])
            .collect::<Vec<_>>(),
    ))
}

/// The format of planned rejects datasets.
struct RejectsFormat {
    filter: RejectFilter,
    /// The columns of the records.
    schema: SchemaRef,
    /// The columns that text records are parsed into.
    texts: SchemaRef,
    batch_limits: BatchLimits,
    /// Maximum size in bytes of a referenced file.
    record_bytes: u64,
}

impl FileFormat for RejectsFormat {
    const EXTENSIONS: &'static [&'static str] = &["parquet"];

    fn reads_rejects(&self) -> bool {
        true
    }

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut start = 0;
        let mut batches = RejectBatches::open(file, input, self.batch_limits.records)?;
        loop {
            let batch = match batches.next() {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err((code, what)) => {
                    file.check_available(&batches.handle)?;
                    return output.reject_rows(start..batches.rows.max(start + 1), code, what);
                }
            };
            let columns = RejectColumns::from_batch(&batch)
                .ok_or_else(|| batches.stop((RejectCode::Mismatch, not_rejects())))?;
            let sizes: Vec<(u64, u64)> = (0..batch.num_rows())
                .map(|row| self.size(&columns, row))
                .collect();
            let weigh = |rows: Range<usize>| {
                sizes[rows]
                    .iter()
                    .map(|&(bytes, pixels)| bytes.max(pixels * PIXEL_BYTES))
                    .sum()
            };
            for part in self.batch_limits.split(batch.num_rows(), &weigh) {
                let rows = start + part.start as u64..start + part.end as u64;
                if !output.done(&rows) {
                    let pixels = sizes[part.clone()].iter().map(|(_, pixels)| pixels).sum();
                    output.send(
                        rows,
                        FileRecords {
                            pixels,
                            ..self.records(&columns, part)?
                        },
                    )?;
                }
            }
            start += batch.num_rows() as u64;
        }
    }
}

impl RejectsFormat {
    /// The bytes and pixels of a record; 0 if it is not selected.
    fn size(&self, columns: &RejectColumns<'_>, row: usize) -> (u64, u64) {
        if !columns.matches(&self.filter, row) || !columns.record.is_valid(row) {
            return (0, 0);
        }
        let record = columns.record.value(row);
        if columns.is(row, OriginalFormat::File) {
            return FileReference::from_json(record).map_or((0, 0), |reference| reference.weight());
        }
        let pixels = columns
            .is(row, OriginalFormat::Image)
            .then(|| probe(record).map_or(0, |header| header.charged_pixels()));
        (record.len() as u64, pixels.unwrap_or(0))
    }

    /// Parses a stored text record, or returns why it cannot be read again.
    fn parse_text(
        &self,
        columns: &RejectColumns<'_>,
        row: usize,
        format: OriginalFormat,
    ) -> Result<RecordBatch, String> {
        let stored = columns.record.value(row);
        let values = text_originals::parse(format, stored, &self.texts)
            .map_err(|error| error.to_string())?;
        let origin = columns.origin(row);
        let (source, source_row) = origin.ok_or_else(|| "its origin is not stored".to_owned())?;
        let column = |field: &Arc<Field>| -> ArrayRef {
            match (values.column_by_name(field.name()), field.name().as_str()) {
                (Some(column), _) => Arc::clone(column),
                (None, SOURCE) => Arc::new(StringArray::from(vec![source.as_str()])),
                (None, ROW) => Arc::new(UInt64Array::from(vec![source_row])),
                (None, _) => new_null_array(field.data_type(), 1),
            }
        };
        let all = self.schema.fields().iter().map(column).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), all).map_err(|error| error.to_string())
    }

    fn records(
        &self,
        columns: &RejectColumns<'_>,
        part: Range<usize>,
    ) -> Result<FileRecords, ReadEnd> {
        let mut records = FileRecords::default();
        let mut found = vec![RecordBatch::new_empty(Arc::clone(&self.schema))];
        for (ordinal, row) in (0_u32..)
            .zip(part)
            .filter(|(_, row)| columns.matches(&self.filter, *row))
        {
            let restored =
                match columns.is(row, OriginalFormat::File) && self.schema == image_schema() {
                    true => columns.read_file(row, self.record_bytes)?,
                    false => match columns.text_format(row) {
                        Some(format) => self.parse_text(columns, row, format),
                        None => columns.read(row, &self.schema),
                    },
                };
            match restored {
                Ok(record) => {
                    found.push(record);
                    records.origin.push(ordinal);
                }
                Err(what) => {
                    let reason = format!("cannot be read again: {what}");
                    let (record, layout) = columns.original(row);
                    let source = columns.origin(row);
                    records.rejects.push(Reject {
                        record,
                        layout,
                        source,
                        records: columns.records(row),
                        ..Reject::new(ordinal, RejectCode::Unreadable, reason)
                    });
                }
            }
        }
        records.columns = concat_batches(&self.schema, &found)
            .map_err(StageError::from)?
            .columns()
            .to_vec();
        Ok(records)
    }
}
