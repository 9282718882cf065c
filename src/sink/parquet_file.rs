//! The writer of a Parquet file of a dataset: encodings, row groups, and the atomic completion.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression as Codec, ConvertedType, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnDescPtr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arrow_size::{record_bytes, rows_that_fit};
use crate::error::{ConfigError, StageError};
use crate::fs_durable::failpoint;
use crate::nested_types::find_type;
use crate::sink::CommitStats;
use crate::sink::provenance_footer::ProvenanceFooter;
use crate::sink::row_group_writer::RowGroupWriter;
use crate::source::ROW;
use crate::storage::{AtomicWriter, Location, S3Path};
use crate::system;
use crate::units::ByteSize;

/// Compression of pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParquetCompression {
    /// Zstandard, level 1: the smallest files at low cost.
    #[default]
    Zstd,
    /// Snappy: for readers that do not support newer codecs.
    Snappy,
    /// LZ4: larger files than Zstandard, but cheaper to read.
    Lz4,
    /// No compression.
    None,
}

impl ParquetCompression {
    fn codec(self) -> Codec {
        match self {
            // The default level is 1.
            Self::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Self::Snappy => Codec::SNAPPY,
            Self::Lz4 => Codec::LZ4_RAW,
            Self::None => Codec::UNCOMPRESSED,
        }
    }
}

/// Limits of a row group. The first limit that is reached ends the group. The writer of a file
/// holds one encoded group in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RowGroupConfig {
    /// Maximum size of a row group in bytes before encoding. A single larger record gets its own
    /// group. Default: 16 MiB.
    pub bytes: ByteSize,
    /// Maximum number of records of a row group. Default: 131,072.
    pub records: NonZeroU32,
    /// Number of row groups that are encoded concurrently on separate threads while the next one is
    /// filled. With 0, a single group is encoded as its records arrive. The bytes of the file are
    /// the same. Default: one for every four cores, since one core encodes more slowly than
    /// all cores produce records.
    pub encoders: Option<u16>,
}

impl RowGroupConfig {
    fn encoders(self) -> usize {
        self.encoders
            .map_or_else(|| system::available_cores() / 4, usize::from)
    }
}

impl Default for RowGroupConfig {
    fn default() -> Self {
        const RECORDS: NonZeroU32 = NonZeroU32::new(131_072).expect("not zero");
        // A group takes twice this size in memory while it is written, and readers need at least
        // it.
        Self {
            bytes: ByteSize(16 << 20),
            records: RECORDS,
            encoders: None,
        }
    }
}

/// The properties that all files of a dataset have in common.
#[derive(Debug, Clone)]
pub(super) struct ParquetOptions {
    schema: SchemaRef,
    properties: WriterProperties,
    row_group: RowGroupConfig,
    leaves: u64,
}

/// Memory of the writer of a column in bytes, regardless of its content.
const COLUMN_BYTES: u64 = 72 << 10;

impl ParquetOptions {
    /// Selects the encodings. Floats have no dictionary and use byte stream split, which compresses
    /// better; row numbers of a source are delta encoded.
    ///
    /// # Errors
    /// A fault at `columns` for each column with a type that Parquet does not support.
    pub(super) fn new(
        schema: SchemaRef,
        compression: ParquetCompression,
        row_group: RowGroupConfig,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut properties = WriterProperties::builder()
            .set_compression(compression.codec())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("latentflow ", env!("CARGO_PKG_VERSION")).to_owned())
            // Row groups are ended by this module, by rows and Arrow bytes, and not by encoded
            // size.
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(None);
        let leaves = leaves(&schema)?;
        for leaf in &leaves {
            let path = leaf.path().clone();
            properties = match leaf.physical_type() {
                Type::FLOAT | Type::DOUBLE => {
                    // Queries do not use the minimum and maximum of a column of vectors.
                    let statistics = if leaf.max_rep_level() > 0 {
                        EnabledStatistics::None
                    } else {
                        EnabledStatistics::Chunk
                    };
                    properties
                        .set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT)
                        .set_column_statistics_enabled(path.clone(), statistics)
                        .set_column_dictionary_enabled(path, false)
                }
                // Row numbers ascend. Their differences take little space, while a dictionary would
                // hold each number.
                Type::INT64 if path.string() == ROW => properties
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_dictionary_enabled(path, false),
                // Encoded images do not repeat, so a dictionary would only cost hashing.
                Type::BYTE_ARRAY if leaf.converted_type() != ConvertedType::UTF8 => {
                    properties.set_column_dictionary_enabled(path, false)
                }
                _ => properties,
            };
        }
        Ok(Self {
            schema,
            properties: properties.build(),
            row_group,
            leaves: leaves.len() as u64,
        })
    }

    /// The same properties for files with other columns.
    ///
    /// # Errors
    /// If a column has a type that Parquet does not support.
    pub(super) fn with_schema(
        &self,
        schema: SchemaRef,
        compression: ParquetCompression,
    ) -> Result<Self, StageError> {
        Self::new(schema, compression, self.row_group).map_err(|faults| {
            let messages: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::Other(messages.join("; "))
        })
    }

    /// Memory for writing a file in bytes: each row group that is filled or encoded, in its Arrow
    /// and its encoded form, and the column writers.
    pub(super) fn buffer_bytes(&self) -> u64 {
        let group = self
            .row_group
            .bytes
            .0
            .saturating_mul(2)
            .saturating_add(self.leaves * COLUMN_BYTES);
        group.saturating_mul(1 + self.row_group.encoders() as u64)
    }
}

/// Maximum number of levels of a Parquet schema that pyarrow reads. A list takes two.
const MAX_LEVELS: usize = 100;

/// The leaf columns that Parquet stores for the fields: one for each primitive value inside.
fn leaves(schema: &Schema) -> Result<Vec<ColumnDescPtr>, Vec<ConfigError>> {
    let (mut leaves, mut faults) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let stored = match find_type(field.data_type(), &is_unsupported) {
            None => ArrowSchemaConverter::new().convert(&Schema::new(vec![Arc::clone(field)])),
            Some(inside) => Err(ParquetError::NYI(format!(
                "Parquet cannot store values of type {inside}"
            ))),
        };
        let stored = stored.and_then(|stored| {
            let levels = stored
                .columns()
                .iter()
                .map(|leaf| leaf.path().parts().len());
            match levels.max().filter(|&levels| levels > MAX_LEVELS) {
                Some(levels) => Err(ParquetError::NYI(format!(
                    "its types are nested in {levels} levels of Parquet; readers support \
                     {MAX_LEVELS}"
                ))),
                None => Ok(stored),
            }
        });
        match stored {
            Ok(stored) => leaves.extend_from_slice(stored.columns()),
            Err(error) => {
                faults.push(ConfigError::new(
                    "columns",
                    format!(
                        "column `{}`: {error}; exclude it from the columns",
                        field.name()
                    ),
                ));
            }
        }
    }
    if faults.is_empty() {
        Ok(leaves)
    } else {
        Err(faults)
    }
}

/// Whether Parquet files cannot hold a type. The library does not support unions and intervals with
/// nanoseconds, and pyarrow and Polars do not read other intervals.
fn is_unsupported(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Union(_, _) | DataType::Interval(_))
}

/// The writer of a file, which becomes visible when it is complete.
pub(super) struct ParquetFileWriter {
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
    pub(super) fn begin(
        location: Location,
        upload_record: Option<S3Path>,
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
    pub(super) fn write(&mut self, records: &RecordBatch) -> Result<(), StageError> {
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
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of records written.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Writes the footer, and makes the file durable and visible. Calls `check` directly before the
    /// file becomes visible. Returns the size of the file.
    ///
    /// # Errors
    /// If the file cannot be written, or the error of `check`.
    pub(super) fn finish(
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
            Err(cause) => StageError::Other(format!("{location}: {cause}")),
        },
        other => StageError::Other(format!("{location}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, BinaryArray, StringArray};
    use arrow::datatypes::{Field, Fields, IntervalUnit, UnionFields, UnionMode};
    use parquet::file::metadata::ParquetMetaData;

    use super::*;
    use crate::coverage::Coverage;
    use crate::sink::OutputIdentity;
    use crate::sink::data_files::data_files;
    use crate::tensor::{fixed_column, variable_column, variable_field, vector_field};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("source", DataType::Utf8, false),
            Field::new("image", DataType::Binary, false),
            vector_field("latent", 8),
            variable_field("pixels", 1).unwrap(),
        ]))
    }

    fn records(rows: usize) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(vec!["same"; rows])),
            Arc::new(BinaryArray::from_iter_values(vec![b"bytes"; rows])),
            fixed_column(8, vec![0.5; rows * 8]).unwrap(),
            variable_column(1, vec![0.5; rows * 2], &vec![vec![2]; rows]).unwrap(),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn written(row_group: RowGroupConfig, batches: &[RecordBatch]) -> ParquetMetaData {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::from(folder.path());
        let format = ParquetOptions::new(schema(), ParquetCompression::Zstd, row_group).unwrap();
        let mut part =
            ParquetFileWriter::begin(location.join("part-00000.parquet"), None, &format).unwrap();
        batches.iter().for_each(|batch| part.write(batch).unwrap());
        assert!(data_files(&location).unwrap().is_empty());
        part.finish(
            &ProvenanceFooter::new(OutputIdentity::default(), Coverage::default()),
            || Ok(()),
        )
        .unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        data_files(&location).unwrap()[0].metadata().unwrap()
    }

    fn groups(metadata: &ParquetMetaData) -> Vec<i64> {
        metadata
            .row_groups()
            .iter()
            .map(parquet::file::metadata::RowGroupMetaData::num_rows)
            .collect()
    }

    #[test]
    fn row_groups_are_cut_by_records_across_batches() {
        let row_group = RowGroupConfig {
            records: NonZeroU32::new(100).unwrap(),
            ..RowGroupConfig::default()
        };
        assert_eq!(
            groups(&written(
                row_group,
                &[records(30), records(250), records(20)]
            )),
            [100, 100, 100]
        );
    }

    #[test]
    fn row_groups_are_cut_by_bytes_between_records() {
        let bytes_of = |rows| ByteSize(record_bytes(&records(rows)));
        let cut = |bytes| {
            groups(&written(
                RowGroupConfig {
                    bytes,
                    ..RowGroupConfig::default()
                },
                &[records(10), records(15)],
            ))
        };
        assert_eq!(cut(bytes_of(10)), [10, 10, 5]);
        assert_eq!(cut(ByteSize(1)), [1; 25]);
    }

    #[test]
    fn floats_use_byte_stream_split_and_text_a_dictionary() {
        let metadata = written(RowGroupConfig::default(), &[records(100)]);
        assert_eq!(
            metadata.file_metadata().created_by(),
            Some(concat!("latentflow ", env!("CARGO_PKG_VERSION")))
        );
        for column in metadata.row_group(0).columns() {
            let encodings: Vec<Encoding> = column.encodings().collect();
            let name = column.column_path().string();
            let float = column.column_type() == Type::FLOAT;
            assert_eq!(
                float,
                encodings.contains(&Encoding::BYTE_STREAM_SPLIT),
                "{name}: {encodings:?}"
            );
            let dictionary = column.dictionary_page_offset().is_some();
            assert_eq!(
                dictionary,
                name == "source" || name.starts_with("pixels.shape"),
                "{name}: {encodings:?}"
            );
            assert_eq!(
                column.compression(),
                Codec::ZSTD(ZstdLevel::default()),
                "{name}"
            );
        }
    }

    #[test]
    fn columns_of_unsupported_types_are_all_reported() {
        let nested = |depth: usize| {
            (0..depth).fold(DataType::Int8, |item, _| {
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            })
        };
        let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
        let interval = Field::new_list_field(DataType::Interval(IntervalUnit::MonthDayNano), true);
        let schema = Schema::new(vec![
            Field::new("fine", DataType::Int8, true),
            Field::new("choice", union, true),
            Field::new("spans", DataType::List(Arc::new(interval)), true),
            Field::new("nothing", DataType::Struct(Fields::empty()), true),
            Field::new("readable", nested(49), true),
            Field::new("deep", nested(50), true),
        ]);
        let faults = ParquetOptions::new(
            Arc::new(schema),
            ParquetCompression::Zstd,
            RowGroupConfig::default(),
        )
        .unwrap_err();
        let columns: Vec<&str> = faults
            .iter()
            .filter_map(|fault| fault.message.split('`').nth(1))
            .collect();
        assert_eq!(columns, ["choice", "spans", "nothing", "deep"]);
    }
}
