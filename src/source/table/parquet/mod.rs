//! The `parquet` source: columns of Parquet files, features or images.

pub(crate) mod config;
pub(crate) mod int96;
pub(crate) mod levels;
pub(crate) mod page_headers;
pub(crate) mod page_sizes;
pub(crate) mod row_groups;
pub(crate) mod row_reader;
pub(crate) mod types;

use std::ops::Range;

use arrow::datatypes::FieldRef;
use parking_lot::Mutex;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::batch::reject::RejectCode;
use crate::error::ErrorClass;
use crate::plan_context::PipelineLimits;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::table::file_columns::FileColumns;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::{BatchOutput, FileFormat};
use crate::source::table::parallel_read::{ParallelRead, read_ahead};
use crate::source::table::parquet::config::{DICTIONARY_FACTOR, declared, metadata};
use crate::source::table::parquet::row_groups::OpenParquetFile;
use crate::source::table::parquet::types::{Int96Unit, metadata_as_read};
use crate::source::table::rows::TableRows;
use crate::storage::FileReader;
use crate::system;

/// Upper bound on the rows of one row group, so that the sum over the row groups of a file cannot
/// overflow.
const MAX_GROUP_ROWS: u64 = 1 << 40;

fn group_rows(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows())
        .unwrap_or(0)
        .min(MAX_GROUP_ROWS)
}

/// The checked options for reading Parquet files.
struct ParquetFormat {
    columns: Vec<FieldRef>,
    /// Whether the pipeline names the columns to read.
    has_choice: bool,
    rows: TableRows,
    int96: Int96Unit,
    /// Limits on the memory for decoding a row group. Whether a row group is rejected does not
    /// depend on the number of concurrent readers, but a row group that is decoded ahead of its
    /// turn uses at most its share.
    limits: PipelineLimits,
    /// Size of the largest listed file in bytes.
    largest_file: u64,
    /// The concurrency of decoding row groups.
    parallel_read: ParallelRead,
    /// The row groups that are read.
    share: SourceShare,
}

/// The number of bytes that are decoded ahead of a row group's turn: most of a row group that
/// latentflow writes.
const READ_TASK_BYTES: u64 = 64 << 20;

/// A row group may use this multiple of its stored bytes in addition to the fixed limit: tables
/// with very many columns need one page of each column in memory.
const STORED_FACTOR: u64 = 4;

impl ParquetFormat {
    /// Returns the maximum number of bytes for decoding a row group (or the largest row group of a
    /// file) of `stored` bytes.
    fn held_by(&self, stored: u64) -> u64 {
        let limit = self.limits.buffer_bytes();
        match self.limits.memory {
            Some(_) => limit,
            None => limit
                .saturating_add(stored.saturating_mul(STORED_FACTOR))
                .min(limit.max(system::memory_limit() / 2)),
        }
    }
}

impl ParquetFormat {
    /// The rows of the row groups of the share that have any, each with the index of its row group.
    fn row_groups(&self, file: &InputFile, footer: &ParquetMetaData) -> Vec<(usize, Range<u64>)> {
        let mut start = 0;
        let groups = footer
            .row_groups()
            .iter()
            .enumerate()
            .map(|(index, group)| {
                let rows = start..start + group_rows(group);
                start = rows.end;
                (index, rows)
            });
        groups
            .filter(|(index, rows)| {
                !rows.is_empty() && self.share.has_row_group(&file.name, *index)
            })
            .collect()
    }

    /// The rows of a file that are rejected together: all rows that the file declares, at least 1;
    /// with a shard, those of its row groups.
    fn rejected_rows(&self, file: &InputFile, footer: &ParquetMetaData) -> Vec<Range<u64>> {
        let groups = self.row_groups(file, footer);
        if self.share.shard().is_none() || groups.is_empty() {
            return std::iter::once(0..declared(footer)).collect();
        }
        groups.into_iter().map(|(_, rows)| rows).collect()
    }
}

impl FileFormat for ParquetFormat {
    const EXTENSIONS: &'static [&'static str] = &["parquet"];

    fn divides_files(&self) -> bool {
        true
    }

    /// A file without readable rows belongs to the shard of its name.
    fn has_part(&self, file: &InputFile, input: &FileReader) -> Result<bool, ReadEnd> {
        let footer = catch_panic(|| metadata(input));
        file.check_available(input)?;
        let has_rows = |readable: &ParquetMetaData| {
            let mut groups = readable.row_groups().iter();
            groups.any(|group| group_rows(group) > 0)
        };
        Ok(match footer {
            Ok(footer) if has_rows(&footer) => !self.row_groups(file, &footer).is_empty(),
            _ => self.share.has_file(&file.name),
        })
    }

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let footer = match catch_panic(|| metadata(&input)) {
            Ok(footer) => footer,
            Err((code, reason)) => {
                file.check_available(&input)?;
                return output.reject_rest(0, code, &reason);
            }
        };
        let metadata = match catch_panic(|| metadata_as_read(footer.clone(), self.int96)) {
            Ok(metadata) => metadata,
            Err((code, reason)) => {
                let rejected = self.rejected_rows(file, &footer);
                return rejected
                    .into_iter()
                    .try_for_each(|rows| output.reject_rows(rows, code, reason.clone()));
            }
        };
        let columns = FileColumns::new(&self.columns, metadata.schema()).map_err(|reason| {
            let rejected = self.rejected_rows(file, &footer);
            let records = rejected.iter().map(|rows| rows.end - rows.start);
            let records = records.fold(0, u64::saturating_add);
            file.unfit(RejectCode::Mismatch, &reason, records)
        })?;
        if !self.has_choice {
            file.note_left_out(&columns.left_out(metadata.schema()));
        }
        let own = self.row_groups(file, &footer).into_iter();
        let groups: Vec<_> = own
            .filter(|(_, rows)| !output.done(rows))
            .map(|(index, rows)| (index, footer.row_group(index), rows))
            .collect();
        let first = groups.first().map(|&(group_index, ..)| group_index);
        // A device error in one row group does not prevent the other row groups from being read.
        let unavailable = Mutex::new(None);
        let read = |(group_index, group, rows): &(usize, &RowGroupMetaData, Range<u64>),
                    group_output: &BatchOutput<'_>| {
            // Each row group is read through a separately opened file, since cloned handles share
            // their position. The first row group uses the handle that read the footer, together
            // with the data of the object that has been fetched already.
            let input = if Some(*group_index) == first {
                input.try_clone()
            } else {
                file.reopen()
            };
            let input = input.map_err(file.stopped())?;
            let metadata = metadata.clone();
            let opened = OpenParquetFile {
                parquet: self,
                file,
                input,
                metadata,
                columns: &columns,
            };
            opened.read_group(*group_index, group, rows.clone(), group_output)
        };
        read_ahead(
            &groups,
            self.parallel_read,
            output,
            |group, output| match read(group, output) {
                Err(ReadEnd::Unavailable(error)) if error.class == ErrorClass::Environment => {
                    *unavailable.lock() = Some(error);
                    Ok(())
                }
                read => read,
            },
        )?;
        let unavailable = unavailable.into_inner();
        unavailable.map_or(Ok(()), |unavailable| Err(unavailable.into()))
    }

    fn buffer_bytes(&self) -> u64 {
        // Every row group other than the one that delivers batches may be ahead by
        // `parallel_read.bytes` and decodes within its share.
        let ahead = self.parallel_read.count.saturating_sub(1) as u64;
        let held = self.held_by(self.largest_file);
        let batch = self
            .rows
            .batch_limits
            .bytes
            .saturating_mul(DICTIONARY_FACTOR);
        let shares = held / self.parallel_read.count as u64 * ahead;
        self.parallel_read
            .bytes
            .saturating_mul(ahead)
            .saturating_add(held)
            .saturating_add(shares)
            .saturating_add(batch)
    }

    fn count_rows(&self, file: &InputFile) -> Option<u64> {
        let input = file.reopen().ok()?;
        let footer = catch_panic(|| metadata(&input));
        // An unreadable footer counts as one row here; reading the file reports the error.
        file.check_available(&input).ok()?;
        let rows = match footer {
            Ok(footer) if self.share.shard().is_none() => declared(&footer),
            Ok(footer) => {
                let groups = self.row_groups(file, &footer);
                let rows = groups.into_iter().map(|(_, rows)| rows.end - rows.start);
                rows.fold(0, u64::saturating_add)
            }
            Err(_) => u64::from(self.share.has_file(&file.name)),
        };
        Some(rows)
    }
}

#[cfg(test)]
mod tests;
