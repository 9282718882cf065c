//! The options of Parquet files.

use std::num::NonZeroU32;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression as Codec, ConvertedType, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnDescPtr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::ROW;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::nested_types::find_type;
use crate::system;
use crate::units::ByteSize;

/// Compression of pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ParquetCompression {
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
pub(crate) struct RowGroupConfig {
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
    pub(super) fn encoders(self) -> usize {
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
pub(crate) struct ParquetOptions {
    pub(super) schema: SchemaRef,
    pub(super) properties: WriterProperties,
    pub(super) row_group: RowGroupConfig,
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
    pub(crate) fn new(
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
    pub(crate) fn with_schema(
        &self,
        schema: SchemaRef,
        compression: ParquetCompression,
    ) -> Result<Self, StageError> {
        Self::new(schema, compression, self.row_group).map_err(|faults| {
            let messages: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::new(ErrorCode::PipelineInvalid, messages.join("; "))
        })
    }

    /// Memory for writing a file in bytes: each row group that is filled or encoded, in its Arrow
    /// and its encoded form, and the column writers.
    pub(crate) fn buffer_bytes(&self) -> u64 {
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
