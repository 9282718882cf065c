//! The options of the source `parquet`, and the check of its files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema};
use parquet::file::metadata::{
    FileMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::columns::IMAGE;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::nested_types::find_type;
use crate::plan_context::PlanContext;
use crate::registry::did_you_mean;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::share::SourceShare;
use crate::source::images::column::ImageColumn;
use crate::source::table::file_columns::logical_schema;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{FileFormat, FileSource, check_names};
use crate::source::table::parallel_read::ParallelRead;
use crate::source::table::parquet::types::{Int96Unit, metadata_as_read};
use crate::source::table::parquet::{ParquetFormat, READ_TASK_BYTES, group_rows};
use crate::source::table::rows::TableRows;
use crate::source::table::schema_inference::{InferredColumns, unified};
use crate::source::{Source, SourceConfig};
use crate::storage::FileReader;
use crate::system;

/// Reads columns of Parquet files. A column has the type that holds its values in all files, and
/// dictionaries become plain values; a file that lacks a column has nulls. A column of encoded
/// images (binary, or the `struct<bytes, path>` of Hugging Face datasets) becomes the binary column
/// `image`; of a column of lists of images, each image becomes a record. Folders named `key=value`
/// become columns.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ParquetSourceConfig {
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
pub(super) const LARGE_RECORD_FACTOR: u64 = 2;

/// The factor by which rows may exceed the bytes of a batch if each of them repeats the longest
/// value of a dictionary: most values are shorter.
pub(super) const DICTIONARY_FACTOR: u64 = 4;

/// Maximum uncompressed size that a row group may declare, in bytes. Writers make smaller row
/// groups, and the columns of larger ones may overflow.
pub(super) const MAX_GROUP_BYTES: u64 = 2 << 30;

impl SourceConfig for ParquetSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = ParquetFormat::EXTENSIONS;

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

pub(super) fn metadata(
    input: &FileReader,
) -> Result<Arc<ParquetMetaData>, parquet::errors::ParquetError> {
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
pub(super) fn declared(metadata: &ParquetMetaData) -> u64 {
    let rows = metadata.row_groups().iter().map(group_rows);
    rows.fold(0, u64::saturating_add).max(1)
}
