//! Reads the row groups of one Parquet file.

use std::ops::Range;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use crate::batch::reject::RejectCode;
use crate::source::batch_limits::BatchLimits;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_columns::FileColumns;
use crate::source::table::file_source::BatchOutput;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::parquet::config::{
    DICTIONARY_FACTOR, LARGE_RECORD_FACTOR, MAX_GROUP_BYTES,
};
use crate::source::table::parquet::int96::{BadRows, Int96Check, cut_at_bad_rows};
use crate::source::table::parquet::page_sizes::DecodedSizes;
use crate::source::table::parquet::row_reader::{NextRows, RowGroupRef, RowReader};
use crate::source::table::parquet::{ParquetFormat, STORED_FACTOR};
use crate::storage::FileReader;

/// An open file whose footer has been read.
pub(super) struct OpenParquetFile<'a> {
    pub(super) parquet: &'a ParquetFormat,
    pub(super) file: &'a InputFile,
    pub(super) input: FileReader,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) columns: &'a FileColumns,
}

impl OpenParquetFile<'_> {
    /// Reads one row group. After an error, the rows from the first bad batch to the end of the row
    /// group become one reject, since a decoder that has failed is unreliable for the rows that
    /// follow.
    pub(super) fn read_group(
        &self,
        group_index: usize,
        group: &RowGroupMetaData,
        rows: Range<u64>,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let pages = match catch_panic(|| self.pages(group)) {
            Ok(pages) => pages,
            Err((code, reason)) => return self.refuse(rows, code, reason, output),
        };
        let bytes = self.declared_bytes(group).max(pages.bytes);
        let stored = self
            .leaves(group)
            .map(|leaf| leaf.byte_range().1)
            .fold(0, u64::saturating_add);
        let limit = self.parquet.held_by(stored.min(self.file.size()));
        if bytes > MAX_GROUP_BYTES {
            let reason =
                format!("the row group declares {bytes} bytes; the maximum is {MAX_GROUP_BYTES}");
            return output.reject_rows(rows, RejectCode::TooLarge, reason);
        }
        if pages.peak > limit {
            let reason = format!(
                "decoding the pages takes {} bytes; the maximum is {limit} (limits.memory)",
                pages.peak
            );
            return output.reject_rows(rows, RejectCode::TooLarge, reason);
        }
        let most = self
            .parquet
            .rows
            .record_bytes
            .saturating_mul(LARGE_RECORD_FACTOR)
            .min(limit);
        if pages.longest > most {
            let reason = format!(
                "a record has {} bytes; the maximum is {} (limits.record_bytes)",
                pages.longest, self.parquet.rows.record_bytes
            );
            return output.reject_rows(rows, RejectCode::TooLarge, reason);
        }
        let share = limit / self.parquet.parallel_read.count as u64;
        if pages.peak > share || pages.lists > stored.saturating_mul(2 * STORED_FACTOR).max(share) {
            output.wait_until_head();
        }
        let average = (bytes / (rows.end - rows.start))
            .max(pages.dense)
            .max(pages.longest);
        let step = self.step(average, pages.max_value);
        let mut start = rows.start;
        while output.done(&(start..rows.end.min(start + step))) {
            start += step;
        }
        let row_group = RowGroupRef {
            input: &self.input,
            metadata: &self.metadata,
            group_index,
            columns: self.columns.indices(),
        };
        let mut opened = catch_panic(|| {
            RowReader::open(row_group, start - rows.start..rows.end - rows.start, step)
        });
        let mut int96 =
            catch_panic(|| Int96Check::open(row_group, start - rows.start, self.parquet.int96));
        while start < rows.end {
            let next = opened.as_mut().map_err(|refusal| refusal.clone());
            let next =
                next.and_then(|reader| catch_panic(|| reader.next(step.min(rows.end - start))));
            let batch = match next {
                Ok(NextRows::Rows(batch)) => batch,
                Ok(NextRows::Irregular) => {
                    opened = catch_panic(|| {
                        RowReader::plain(row_group, start - rows.start..rows.end - rows.start, step)
                    });
                    continue;
                }
                Ok(NextRows::End) => {
                    let reason = "the row group ends before its declared number of rows".to_owned();
                    return self.refuse(start..rows.end, RejectCode::Truncated, reason, output);
                }
                Err((code, reason)) => return self.refuse(start..rows.end, code, reason, output),
            };
            let end = rows.end.min(start + batch.num_rows() as u64);
            let checked = int96.as_mut().map_err(|refusal| refusal.clone());
            let bad = checked.and_then(|check| catch_panic(|| check.next(batch.num_rows())));
            match bad {
                Ok(bad) => self.send(&batch, start, &bad, output)?,
                Err((code, reason)) => return self.refuse(start..rows.end, code, reason, output),
            }
            start = end;
        }
        Ok(())
    }

    /// Returns the number of rows to decode per batch, from the average bytes of a row and the
    /// bytes that a repeated dictionary value of `longest_value` bytes may add to each.
    fn step(&self, average: u64, longest_value: u64) -> u64 {
        let BatchLimits { records, bytes, .. } = self.parquet.rows.batch_limits;
        let fitting = bytes / average.max(1);
        let repeated = bytes.saturating_mul(DICTIONARY_FACTOR) / longest_value.max(1);
        fitting.min(repeated).clamp(1, records as u64)
    }

    /// Returns the planned column chunks of a row group.
    fn leaves<'g>(
        &self,
        group: &'g RowGroupMetaData,
    ) -> impl Iterator<Item = &'g ColumnChunkMetaData> {
        let descriptor = group.schema_descr();
        let leaves = 0..group.num_columns().min(descriptor.num_columns());
        leaves
            .filter(|&leaf| {
                self.columns
                    .indices()
                    .contains(&descriptor.get_column_root_idx(leaf))
            })
            .map(|leaf| group.column(leaf))
    }

    /// Rejects rows that could not be read, unless an error of the environment is the cause.
    fn refuse(
        &self,
        rows: Range<u64>,
        code: RejectCode,
        reason: String,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        self.file.check_available(&self.input)?;
        output.reject_rows(rows, code, reason)
    }

    /// Returns the uncompressed size that a row group declares for its planned columns, in bytes.
    fn declared_bytes(&self, group: &RowGroupMetaData) -> u64 {
        let sizes = self
            .leaves(group)
            .map(|leaf| u64::try_from(leaf.uncompressed_size()).unwrap_or(u64::MAX));
        sizes.fold(0, u64::saturating_add)
    }

    /// Returns the decoded sizes that the page headers of the planned columns declare.
    fn pages(
        &self,
        group: &RowGroupMetaData,
    ) -> Result<DecodedSizes, parquet::errors::ParquetError> {
        let mut all = DecodedSizes::default();
        for leaf in self.leaves(group) {
            let pages = DecodedSizes::read(&self.input, leaf, self.parquet.limits.buffer_bytes())?;
            all.add(pages);
        }
        Ok(all)
    }

    fn send(
        &self,
        batch: &RecordBatch,
        first: u64,
        bad: &BadRows,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        for (part, reason) in cut_at_bad_rows(0..batch.num_rows(), bad) {
            let start = first + part.start as u64;
            if let Some(reason) = reason {
                let rows = start..start + part.len() as u64;
                output.reject_rows(rows, RejectCode::Unsupported, reason.to_owned())?;
                continue;
            }
            let stored = batch.slice(part.start, part.len());
            let columns = self.columns.align(&stored)?;
            let place = (self.file.name.as_str(), start);
            self.parquet.rows.send(place, &stored, columns, output)?;
        }
        Ok(())
    }
}
