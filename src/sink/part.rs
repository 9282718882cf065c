//! One Parquet file of a dataset while it is written: its encodings, its row groups, its atomic end.

use std::fs::{self, File};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression as Codec, ConvertedType, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnDescPtr;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::durable::{create, sync_folder, temporary};
use crate::error::{Fault, StageError};
use crate::memory::{record_bytes, rows_that_fit};
use crate::sink::Written;
use crate::sink::footer::Footer;
use crate::units::Bytes;

/// How pages are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
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

impl Compression {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RowGroup {
    /// At most so many bytes, before they are encoded; a single larger record has a group of its own.
    pub bytes: Bytes,
    /// At most so many records.
    pub records: NonZeroU32,
}

impl Default for RowGroup {
    fn default() -> Self {
        const RECORDS: NonZeroU32 = NonZeroU32::new(131_072).expect("not zero");
        Self { bytes: Bytes(64 << 20), records: RECORDS }
    }
}

/// What all files of a dataset have in common.
#[derive(Debug, Clone)]
pub(super) struct Format {
    schema: SchemaRef,
    properties: WriterProperties,
    row_group: RowGroup,
}

impl Format {
    /// Floats are split into their bytes, which compress better so, and have no dictionary.
    ///
    /// # Errors
    /// A fault at `columns` for each column of a type that Parquet does not have.
    pub(super) fn new(schema: SchemaRef, compression: Compression, row_group: RowGroup) -> Result<Self, Vec<Fault>> {
        let mut properties = WriterProperties::builder()
            .set_compression(compression.codec())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("latentflow ", env!("CARGO_PKG_VERSION")).to_owned())
            // Row groups end where we say, by rows and Arrow bytes, never by encoded size.
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(None);
        for leaf in leaves(&schema)? {
            let path = leaf.path().clone();
            properties = match leaf.physical_type() {
                Type::FLOAT | Type::DOUBLE => properties
                    .set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT)
                    .set_column_dictionary_enabled(path, false),
                // Encoded images do not repeat: a dictionary would only hash them.
                Type::BYTE_ARRAY if leaf.converted_type() != ConvertedType::UTF8 => {
                    properties.set_column_dictionary_enabled(path, false)
                }
                _ => properties,
            };
        }
        Ok(Self { schema, properties: properties.build(), row_group })
    }
}

/// The columns that Parquet stores for these: one for each primitive value inside.
fn leaves(schema: &Schema) -> Result<Vec<ColumnDescPtr>, Vec<Fault>> {
    let (mut leaves, mut faults) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        match ArrowSchemaConverter::new().convert(&Schema::new(vec![Arc::clone(field)])) {
            Ok(stored) => leaves.extend_from_slice(stored.columns()),
            Err(error) => {
                faults.push(Fault::new("columns", format!("column `{}`: {error}; leave it out", field.name())))
            }
        }
    }
    if faults.is_empty() { Ok(leaves) } else { Err(faults) }
}

/// A file that bears a temporary name until it is whole.
pub(super) struct Part {
    path: PathBuf,
    writer: ArrowWriter<File>,
    row_group: RowGroup,
    /// Arrow bytes in the row group that is open.
    group_bytes: u64,
    bytes: u64,
    records: u64,
}

impl Part {
    /// Begins the file that will be found under `path`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn begin(path: PathBuf, format: &Format) -> Result<Self, StageError> {
        let unfinished = temporary(&path);
        let file = create(&unfinished).map_err(StageError::io(&unfinished))?;
        let writer = ArrowWriter::try_new(file, SchemaRef::clone(&format.schema), Some(format.properties.clone()));
        let writer = writer.map_err(failed(&path))?;
        Ok(Self { path, writer, row_group: format.row_group, group_bytes: 0, bytes: 0, records: 0 })
    }

    /// Appends records. After an error the file is of no use.
    ///
    /// # Errors
    /// When they cannot be encoded or written.
    pub(super) fn write(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        self.append(records).map_err(failed(&self.path))?;
        self.bytes += record_bytes(records);
        self.records += records.num_rows() as u64;
        Ok(())
    }

    fn append(&mut self, records: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = records.clone();
        while rest.num_rows() > 0 {
            let open = self.writer.in_progress_rows();
            let rows = (self.row_group.records.get() as usize).saturating_sub(open).min(rest.num_rows());
            let room = self.row_group.bytes.0.saturating_sub(self.group_bytes);
            let fit = rows_that_fit(&rest.slice(0, rows), room);
            if fit == 0 && open > 0 {
                self.end_row_group()?;
                continue;
            }
            let fit = fit.max(1);
            let part = rest.slice(0, fit);
            self.writer.write(&part)?;
            self.group_bytes += record_bytes(&part);
            rest = rest.slice(fit, rest.num_rows() - fit);
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        self.group_bytes = 0;
        self.writer.flush()
    }

    /// Arrow bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that were written.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Writes the footer and gives the file its name, durably; says what it came to.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn finish(mut self, footer: &Footer) -> Result<Written, StageError> {
        for entry in footer.to_metadata() {
            self.writer.append_key_value_metadata(entry);
        }
        self.writer.finish().map_err(failed(&self.path))?;
        let bytes = self.writer.bytes_written() as u64;
        self.writer.inner().sync_all().map_err(StageError::io(&self.path))?;
        fs::rename(temporary(&self.path), &self.path).map_err(StageError::io(&self.path))?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(Written { files: 1, bytes, records: self.records })
    }
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> StageError {
    move |error| StageError::Other(format!("{}: {error}", path.display()))
}
