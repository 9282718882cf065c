//! The `parquet` source: columns of Parquet files, features or images.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataOptions,
    ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::{ConfigError, ErrorClass, StageError};
use crate::nested_types::find_type;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::file_checkpoints::OnChange;
use crate::source::file_columns::{FileColumns, logical_schema};
use crate::source::file_source::{
    BatchOutput, FileFormat, FileSource, ReadEnd, ReadPolicy, catch_panic, check_names,
};
use crate::source::hive_partitions::HivePartitions;
use crate::source::image_column::ImageColumn;
use crate::source::input_file::{self, InputFile};
use crate::source::parallel_read::{ParallelRead, read_ahead};
use crate::source::parquet_int96::{BadRows, Int96Check, cut_at_bad_rows};
use crate::source::parquet_page_sizes::DecodedSizes;
use crate::source::parquet_row_reader::{NextRows, RowGroupRef, RowReader};
use crate::source::parquet_types::{Int96Unit, metadata_as_read};
use crate::source::schema_inference::{InferredColumns, unified};
use crate::source::table_rows::TableRows;
use crate::source::{BatchSize, IMAGE, Source, SourceConfig, SourceShare};
use crate::storage::FileReader;
use crate::system;

/// Reads columns of Parquet files. A column has the type that holds its values in all files, and
/// dictionaries become plain values; a file that lacks a column has nulls. A column of encoded
/// images (binary, or the `struct<bytes, path>` of Hugging Face datasets) becomes the binary column
/// `image`; of a column of lists of images, each image becomes a record. Folders named `key=value`
/// become columns.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ParquetSourceConfig {
    /// A file, a folder (all *.parquet files in it and in its subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// The columns to read. Default: all.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub columns: Option<Vec<String>>,
    /// The column of encoded images. Default: the column of type `struct<bytes, path>`, otherwise
    /// the binary column `image`, if the file has one of them.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub image_column: Option<String>,
    /// The unit of timestamps that are stored as INT96, as Spark, Hive and Impala do. Records with
    /// a timestamp that the unit cannot represent are rejected (`unsupported`): with `us` digits
    /// below a microsecond, with `ns` years before 1678 or after 2261. Default: us.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub int96: Int96Unit,
    /// The number of row groups that are decoded concurrently, each on its own thread and up to 64
    /// MiB ahead of its turn. Default: one for every four cores.
    #[schemars(extend("x-changes-rows" = false))]
    pub readers: Option<u16>,
    /// How to treat a file that has changed since an earlier run read it: `new` reads it as a new
    /// file and warns that the rows of its earlier version stay in the output; `refuse` ends
    /// `check` and `run` with an error that names the file. A file of at most 32 MiB with the same
    /// content counts as unchanged, regardless of its modification time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

/// A row group whose longest record exceeds the record limit by up to this factor is still decoded,
/// so that only that record is rejected.
const LARGE_RECORD_FACTOR: u64 = 2;

/// The factor by which rows may exceed the bytes of a batch if each of them repeats the longest
/// value of a dictionary: most values are shorter.
const DICTIONARY_FACTOR: u64 = 4;

/// Maximum uncompressed size that a row group may declare, in bytes. Writers make smaller row
/// groups, and the columns of larger ones may overflow.
const MAX_GROUP_BYTES: u64 = 2 << 30;

impl SourceConfig for ParquetSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let path = |error: StageError| vec![ConfigError::from_error("path", &error)];
        let files = input_file::list(name, &self.path, ParquetFormat::EXTENSIONS).map_err(path)?;
        let share = SourceShare::new(context.shard);
        let InferredColumns { fields, notes } = self.read_columns(&files, &share).map_err(path)?;
        let mut partitions = HivePartitions::infer(&files, &Schema::new(fields.clone()));
        let columns = self.choose(fields, &partitions)?;
        check_types(&columns)?;
        if let Some(chosen) = &self.columns {
            partitions = partitions.select(chosen);
        }
        let image = ImageColumn::find(&columns, self.image_column.as_deref())
            .map_err(|reason| vec![ConfigError::new("image_column", reason)])?;
        let all = columns.iter().chain(partitions.fields());
        let has_choice = self
            .columns
            .replace(all.map(|field| field.name().clone()).collect())
            .is_some();
        self.image_column = image.as_ref().map(|image| image.name(&columns).to_owned());
        let given = image.as_ref().map_or_else(
            || Schema::new(columns.clone()),
            |image| image.schema(&columns),
        );
        check_names(given.fields().iter().map(|field| field.name()))
            .map_err(|reason| vec![ConfigError::new("path", reason)])?;
        let images = given.column_with_name(IMAGE).is_some();
        let batch_limits = if images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        let count = self
            .readers
            .map_or_else(|| system::available_cores() / 4, usize::from)
            .max(1);
        let bytes = context.limits.memory.map_or(READ_TASK_BYTES, |memory| {
            READ_TASK_BYTES.min(memory.0 / 16 / count as u64)
        });
        let parallel_read = ParallelRead { count, bytes };
        let largest_file = files.iter().map(InputFile::size).max().unwrap_or(0);
        let format = ParquetFormat {
            columns,
            has_choice,
            rows: TableRows {
                image,
                batch_limits,
                record_bytes: context.limits.record_bytes.0,
            },
            int96: self.int96,
            limits: context.limits,
            largest_file,
            parallel_read,
            share: share.clone(),
        };
        let policy = ReadPolicy::new(self.on_change, share);
        let source = FileSource::new(name, &self.path, &given, format, policy);
        Ok(Box::new(
            source.with_notes(notes).with_partitions(partitions),
        ))
    }
}

impl ParquetSourceConfig {
    /// Unifies the columns of the files, and counts the row groups of the share if all files are
    /// local, so that every footer is read.
    fn read_columns(
        &self,
        files: &[InputFile],
        share: &SourceShare,
    ) -> Result<InferredColumns, StageError> {
        let (in_share, all) = (AtomicU64::new(0), AtomicU64::new(0));
        let count = |file: &InputFile, footer: &ParquetMetaData| {
            let groups = footer.num_row_groups();
            let own = (0..groups).filter(|&index| share.has_row_group(&file.name, index));
            in_share.fetch_add(own.count() as u64, Ordering::Relaxed);
            all.fetch_add(groups as u64, Ordering::Relaxed);
        };
        let columns = unified(files, |file, input| {
            let found = catch_panic(|| {
                let footer = metadata(&input)?;
                if share.shard().is_some() {
                    count(file, &footer);
                }
                metadata_as_read(footer, self.int96)
            });
            file.check_available(&input)?;
            let found = found.map_err(|(code, reason)| file.unfit(code, &reason, 1))?;
            logical_schema(found.schema())
                .map(Some)
                .map_err(|reason| file.unfit(RejectCode::Unsupported, &reason, 1))
        })?;
        if files.iter().all(InputFile::is_local) {
            share.set_size(in_share.into_inner(), all.into_inner(), "row groups");
        }
        Ok(columns)
    }

    /// Returns the requested columns in the order of the files.
    fn choose(
        &self,
        mut fields: Vec<FieldRef>,
        partitions: &HivePartitions,
    ) -> Result<Vec<FieldRef>, Vec<ConfigError>> {
        let Some(requested) = &self.columns else {
            return Ok(fields);
        };
        let all = fields.iter().chain(partitions.fields());
        let known: Vec<&str> = all.map(|field| field.name().as_str()).collect();
        let unknown = requested
            .iter()
            .filter(|name| !known.contains(&name.as_str()));
        let faults: Vec<ConfigError> = unknown
            .map(|name| {
                let hint = did_you_mean(name, &known);
                ConfigError::new(
                    "columns",
                    format!("unknown column `{name}`{hint}; known: {}", known.join(", ")),
                )
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        fields.retain(|field| requested.contains(field.name()));
        Ok(fields)
    }
}

/// Checks that the values of columns can be read. The months of an interval cannot.
///
/// # Errors
/// A fault at `columns` for each column of another type.
fn check_types(columns: &[FieldRef]) -> Result<(), Vec<ConfigError>> {
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    let faults: Vec<ConfigError> = columns
        .iter()
        .filter(|field| find_type(field.data_type(), &is_interval).is_some())
        .map(|field| {
            let message = format!(
                "column `{}` is an INTERVAL of Parquet, whose months cannot be read; leave it out \
                 of `columns`, or store it as numbers",
                field.name()
            );
            ConfigError::new("columns", message)
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

fn metadata(input: &FileReader) -> Result<Arc<ParquetMetaData>, parquet::errors::ParquetError> {
    // Statistics are not used here, so malformed statistics must not cause a reject.
    let options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let footer = ParquetMetaDataReader::new()
        .with_metadata_options(Some(options))
        .parse_and_finish(input)?;
    let file = footer.file_metadata();
    // The decoder trusts the row count of the file, which some writers leave at 0. The rows that
    // are read are those of the row groups.
    let rows = footer
        .row_groups()
        .iter()
        .fold(0, |rows: i64, group| rows.saturating_add(group.num_rows()));
    let file = FileMetaData::new(
        file.version(),
        rows,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    Ok(Arc::new(ParquetMetaData::new(
        file,
        footer.row_groups().to_vec(),
    )))
}

/// The number of rows that a file declares, at least 1.
fn declared(metadata: &ParquetMetaData) -> u64 {
    let rows = metadata.row_groups().iter().map(group_rows);
    rows.fold(0, u64::saturating_add).max(1)
}

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
                    *unavailable.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Ok(())
                }
                read => read,
            },
        )?;
        let unavailable = unavailable
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
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

/// An open file whose footer has been read.
struct OpenParquetFile<'a> {
    parquet: &'a ParquetFormat,
    file: &'a InputFile,
    input: FileReader,
    metadata: ArrowReaderMetadata,
    columns: &'a FileColumns,
}

impl OpenParquetFile<'_> {
    /// Reads one row group. After an error, the rows from the first bad batch to the end of the row
    /// group become one reject, since a decoder that has failed is unreliable for the rows that
    /// follow.
    fn read_group(
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

#[cfg(test)]
mod tests;
