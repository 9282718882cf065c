//! One Parquet file of a dataset while it is written: its encodings, its row groups, its atomic
//! end.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, IntervalUnit, Schema, SchemaRef};
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
use crate::sink::CommitStats;
use crate::sink::narrow_dictionaries::NarrowDictionaries;
use crate::sink::provenance_footer::ProvenanceFooter;
use crate::sink::row_group_writer::RowGroupWriter;
use crate::source::ROW;
use crate::storage::{AtomicWriter, Location, S3Path};
use crate::system;
use crate::units::ByteSize;

/// How pages are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParquetCompression {
    /// Zstandard, level 1: the smallest files at little cost.
    #[default]
    Zstd,
    /// Snappy: for readers that know nothing newer.
    Snappy,
    /// LZ4: cheaper to read than Zstandard, and larger.
    Lz4,
    /// Not at all.
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

/// How large a row group may become; the first limit that is reached closes it.
/// The file's writer holds one in memory, encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct RowGroupConfig {
    /// At most so many bytes, before they are encoded; a single larger record has a group of its
    /// own.
    pub bytes: ByteSize,
    /// At most so many records.
    pub records: NonZeroU32,
    /// So many are encoded at a time, on threads of their own, while the next one is filled; 0: one
    /// alone, as its records come. The bytes are the same. Default: one for every four cores, so
    /// that one core need not keep up with all.
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
        // Twice this is in memory while it is written, and readers want no less.
        Self {
            bytes: ByteSize(16 << 20),
            records: RECORDS,
            encoders: None,
        }
    }
}

/// What all files of a dataset have in common.
#[derive(Debug, Clone)]
pub(super) struct ParquetOptions {
    schema: SchemaRef,
    properties: WriterProperties,
    row_group: RowGroupConfig,
    leaves: u64,
}

/// Bytes that the writer holds for a column, however little is in it.
const COLUMN_BYTES: u64 = 72 << 10;

impl ParquetOptions {
    /// Floats are split into their bytes, which compress better so, and have no dictionary; places
    /// in a source are written as differences.
    ///
    /// # Errors
    /// A fault at `columns` for each column of a type that Parquet does not have.
    pub(super) fn new(
        schema: SchemaRef,
        compression: ParquetCompression,
        row_group: RowGroupConfig,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut properties = WriterProperties::builder()
            .set_compression(compression.codec())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("latentflow ", env!("CARGO_PKG_VERSION")).to_owned())
            // Row groups end where we say, by rows and Arrow bytes, never by encoded size.
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(None);
        let leaves = leaves(&schema)?;
        for leaf in &leaves {
            let path = leaf.path().clone();
            properties = match leaf.physical_type() {
                Type::FLOAT | Type::DOUBLE => {
                    // Nobody looks for the least value anywhere in a column of vectors.
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
                // Places count up: their differences take next to nothing, while a dictionary would
                // hold each of them.
                Type::INT64 if path.string() == ROW => properties
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_dictionary_enabled(path, false),
                // Encoded images do not repeat: a dictionary would only hash them.
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

    /// Bytes that a file takes while it is written: each row group that is filled or encoded, as it
    /// comes and as it is encoded, and what each column's writer holds.
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

/// The columns that Parquet stores for these: one for each primitive value inside.
fn leaves(schema: &Schema) -> Result<Vec<ColumnDescPtr>, Vec<ConfigError>> {
    let (mut leaves, mut faults) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let stored = match unstorable(field.data_type()) {
            None => ArrowSchemaConverter::new().convert(&Schema::new(vec![Arc::clone(field)])),
            Some(inside) => Err(ParquetError::NYI(format!(
                "Parquet does not hold values of type {inside}"
            ))),
        };
        match stored {
            Ok(stored) => leaves.extend_from_slice(stored.columns()),
            Err(error) => {
                faults.push(ConfigError::new(
                    "columns",
                    format!("column `{}`: {error}; leave it out", field.name()),
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

/// A type inside this one that the library panics on, or fails on once there are values.
fn unstorable(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::Union(_, _) | DataType::Interval(IntervalUnit::MonthDayNano) => Some(data_type),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => unstorable(item.data_type()),
        DataType::Struct(fields) => fields
            .iter()
            .find_map(|field| unstorable(field.data_type())),
        DataType::Dictionary(_, value) => unstorable(value),
        _ => None,
    }
}

/// A file that nobody sees until it is whole.
pub(super) struct ParquetFileWriter {
    location: Location,
    groups: RowGroupWriter<AtomicWriter>,
    row_group: RowGroupConfig,
    /// Arrow bytes in the row group that is open.
    group_bytes: u64,
    dictionaries: NarrowDictionaries,
    bytes: u64,
    records: u64,
}

impl ParquetFileWriter {
    /// Begins the file that will be found under `location`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn begin(
        location: Location,
        note: Option<S3Path>,
        format: &ParquetOptions,
    ) -> Result<Self, StageError> {
        let schema = SchemaRef::clone(&format.schema);
        let dictionaries = NarrowDictionaries::of(&schema);
        let (output, row_group) = (location.create_writer(note)?, format.row_group);
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
            dictionaries,
            bytes: 0,
            records: 0,
        })
    }

    /// Appends records. After an error the file is of no use.
    ///
    /// # Errors
    /// When they cannot be encoded or written.
    pub(super) fn write(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        self.append(records).map_err(failed(&self.location))?;
        self.bytes += record_bytes(records);
        self.records += records.num_rows() as u64;
        Ok(())
    }

    fn append(&mut self, records: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = records.clone();
        while rest.num_rows() > 0 {
            if !self.dictionaries.fit(&rest) && self.groups.open_rows() > 0 {
                self.end_row_group()?;
            }
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
            self.dictionaries.add(&part);
            self.groups.write(part)?;
            rest = rest.slice(fit, rest.num_rows() - fit);
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        self.group_bytes = 0;
        self.dictionaries.clear();
        self.groups.end_group()
    }

    /// Arrow bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that were written.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Writes the footer and gives the file its name, durably; says what it came to. `check` is
    /// asked last of all whether this may still be done.
    ///
    /// # Errors
    /// When the system refuses, or `check` does.
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
            // Where another run has given it up, that says more than what the store answered.
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
            Ok(refused) => location.io_error(*refused),
            Err(cause) => StageError::Other(format!("{location}: {cause}")),
        },
        other => StageError::Other(format!("{location}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, BinaryArray, StringArray};
    use arrow::datatypes::{Field, Fields, UnionFields, UnionMode};
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
        let place = Location::from(folder.path());
        let format = ParquetOptions::new(schema(), ParquetCompression::Zstd, row_group).unwrap();
        let mut part =
            ParquetFileWriter::begin(place.join("part-00000.parquet"), None, &format).unwrap();
        batches.iter().for_each(|batch| part.write(batch).unwrap());
        assert!(data_files(&place).unwrap().is_empty());
        part.finish(
            &ProvenanceFooter::new(OutputIdentity::default(), Coverage::default()),
            || Ok(()),
        )
        .unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        data_files(&place).unwrap()[0].metadata().unwrap()
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
    fn row_groups_are_cut_by_bytes_and_a_record_that_is_larger_has_its_own() {
        let some = |rows| ByteSize(record_bytes(&records(rows)));
        let cut = |bytes| {
            groups(&written(
                RowGroupConfig {
                    bytes,
                    ..RowGroupConfig::default()
                },
                &[records(10), records(15)],
            ))
        };
        assert_eq!(cut(some(10)), [10, 10, 5]);
        assert_eq!(cut(ByteSize(1)), [1; 25]);
    }

    #[test]
    fn floats_are_split_into_their_bytes_and_only_words_have_a_dictionary() {
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
    fn a_column_that_parquet_cannot_hold_is_named() {
        let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
        let interval = Field::new_list_field(DataType::Interval(IntervalUnit::MonthDayNano), true);
        let schema = Schema::new(vec![
            Field::new("fine", DataType::Int8, true),
            Field::new("choice", union, true),
            Field::new("spans", DataType::List(Arc::new(interval)), true),
            Field::new("nothing", DataType::Struct(Fields::empty()), true),
        ]);
        let faults = ParquetOptions::new(
            Arc::new(schema),
            ParquetCompression::Zstd,
            RowGroupConfig::default(),
        )
        .unwrap_err();
        let named: Vec<&str> = faults
            .iter()
            .filter_map(|fault| fault.message.split('`').nth(1))
            .collect();
        assert_eq!(named, ["choice", "spans", "nothing"]);
    }
}
