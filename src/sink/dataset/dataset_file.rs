//! The data files of a dataset of this program, and their records.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression as Codec;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::OutputIdentity;
use crate::sink::dataset::data_files::DataFile;
use crate::sink::parquet::footer;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::options::ParquetCompression;
use crate::sink::parquet::stored_types::stored_schema;
use crate::source::table::parquet::types::{Int96Unit, metadata_as_read};

/// Maximum number of rows of a batch while records are copied.
const ROWS: usize = 8192;

/// The properties that files must have in common to be merged.
#[derive(Clone)]
pub(crate) struct MergeKey {
    pub(crate) identity: OutputIdentity,
    /// The schema of the rewritten file.
    pub(crate) schema: SchemaRef,
    pub(crate) compression: ParquetCompression,
}

/// A data file that latentflow wrote.
pub(crate) struct DatasetFile {
    pub(crate) file: DataFile,
    pub(crate) rows: u64,
    pub(crate) coverage: Coverage,
}

/// A data file that may be rewritten, with its merge key.
pub(crate) struct RewriteCandidate {
    pub(crate) kind: MergeKey,
    pub(crate) file: DatasetFile,
}

impl RewriteCandidate {
    /// Reads the footer of a file. Returns `None` if another program wrote the file.
    pub(crate) fn read(file: DataFile) -> Result<Option<Self>, StageError> {
        let metadata = file.metadata()?;
        let Some(footer) = ProvenanceFooter::from_metadata(&file.location, &metadata)? else {
            return Ok(None);
        };
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let compression = compression(&metadata);
        let schema = as_read(metadata).map_err(|error| {
            StageError::new(
                ErrorCode::DatasetCorrupt,
                format!("{}: {error}", file.location),
            )
        })?;
        let kind = MergeKey {
            identity: footer.identity,
            schema: stored_schema(&plain(schema.schema())),
            compression,
        };
        Ok(Some(Self {
            kind,
            file: DatasetFile {
                file,
                rows,
                coverage: footer.coverage,
            },
        }))
    }
}

/// The metadata of a file with the types that its records are read as. Earlier versions stored
/// dictionaries, which are read as plain values.
fn as_read(metadata: ParquetMetaData) -> Result<ArrowReaderMetadata, ParquetError> {
    metadata_as_read(Arc::new(metadata), Int96Unit::default())
}

/// The schema without the footer entries of latentflow, which the reader adds to its metadata and
/// which describe the file rather than the columns.
fn plain(schema: &Schema) -> SchemaRef {
    let kept = schema
        .metadata()
        .iter()
        .filter(|(key, _)| !key.starts_with(footer::KEY_PREFIX));
    let metadata: HashMap<String, String> = kept
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// The compression of the first column, which is that of all columns.
fn compression(metadata: &ParquetMetaData) -> ParquetCompression {
    let first = metadata
        .row_groups()
        .first()
        .and_then(|group| group.columns().first());
    match first.map(ColumnChunkMetaData::compression) {
        Some(Codec::SNAPPY) => ParquetCompression::Snappy,
        Some(Codec::LZ4 | Codec::LZ4_RAW) => ParquetCompression::Lz4,
        Some(Codec::UNCOMPRESSED) => ParquetCompression::None,
        _ => ParquetCompression::Zstd,
    }
}

impl DatasetFile {
    /// Calls `with` for all records, or for the given columns of them. Returns the reason if they
    /// cannot be read.
    ///
    /// # Errors
    /// Those of `with`, and an error if the file cannot be opened.
    pub(crate) fn read(
        &self,
        columns: Option<&[&str]>,
        mut with: impl FnMut(RecordBatch) -> Result<(), StageError>,
    ) -> Result<Result<(), String>, StageError> {
        for records in DatasetRecords::open(&self.file, columns) {
            match records {
                Ok(records) => with(records)?,
                Err(RecordsError::Unreadable(reason)) => return Ok(Err(reason)),
                Err(RecordsError::Unavailable(error)) => return Err(error),
            }
        }
        Ok(Ok(()))
    }
}

/// The reason why the records of a file end early.
pub(crate) enum RecordsError {
    /// The content of the file is invalid.
    Unreadable(String),
    /// The file cannot be opened.
    Unavailable(StageError),
}

/// The records of a data file. One row group at a time is read, so that memory does not hold
/// several large ones.
pub(crate) struct DatasetRecords<'a> {
    file: &'a DataFile,
    columns: Option<&'a [&'a str]>,
    metadata: Option<ArrowReaderMetadata>,
    /// The index of the next row group.
    next: usize,
    group: Option<ParquetRecordBatchReader>,
    has_failed: bool,
}

impl<'a> DatasetRecords<'a> {
    /// The records of a file, or the given columns of them.
    pub(crate) fn open(file: &'a DataFile, columns: Option<&'a [&'a str]>) -> Self {
        Self {
            file,
            columns,
            metadata: None,
            next: 0,
            group: None,
            has_failed: false,
        }
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, RecordsError> {
        let location = &self.file.location;
        let unreadable = |error: ParquetError| {
            RecordsError::Unreadable(format!("{location}: cannot be read: {error}"))
        };
        loop {
            if let Some(records) = self.group.as_mut().and_then(Iterator::next) {
                return records.map(Some).map_err(|error| unreadable(error.into()));
            }
            let input = self.file.open().map_err(RecordsError::Unavailable)?;
            let metadata = match self.metadata.take() {
                Some(metadata) => metadata,
                None => ParquetMetaDataReader::new()
                    .parse_and_finish(&input)
                    .and_then(as_read)
                    .map_err(unreadable)?,
            };
            let metadata = self.metadata.insert(metadata);
            if self.next >= metadata.metadata().num_row_groups() {
                return Ok(None);
            }
            let reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(input, metadata.clone());
            let mask = self.columns.map(|columns| {
                ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied())
            });
            let reader = reader
                .with_projection(mask.unwrap_or_else(ProjectionMask::all))
                .with_row_groups(vec![self.next])
                .with_batch_size(ROWS)
                .build();
            self.group = Some(reader.map_err(unreadable)?);
            self.next += 1;
        }
    }
}

impl Iterator for DatasetRecords<'_> {
    type Item = Result<RecordBatch, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let read = self.read();
        self.has_failed = read.is_err();
        read.transpose()
    }
}
