//! The data files of an output folder or prefix, and their footers.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::storage::listing::StoreEntry;
use crate::storage::{FileReader, Location};

/// A Parquet file of an output.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// The location of the file.
    pub location: Location,
    /// The name and the size of the file.
    pub entry: StoreEntry,
}

/// The data files directly in a folder, sorted by name; empty if the folder does not exist.
///
/// # Errors
/// If the folder cannot be read.
pub fn data_files(folder: &Location) -> Result<Vec<DataFile>, StageError> {
    let skips_empty = folder.may_hold_aborted_objects();
    let is_data = |entry: &StoreEntry| {
        !entry.name.starts_with(['.', '_'])
            && entry.name.ends_with(".parquet")
            && !(skips_empty && entry.size == 0)
    };
    let files = folder.files()?.into_iter().filter(is_data);
    Ok(files
        .map(|entry| DataFile {
            location: folder.join(&entry.name),
            entry,
        })
        .collect())
}

impl DataFile {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self) -> Result<FileReader, StageError> {
        let StoreEntry { size, etag, .. } = &self.entry;
        self.location
            .open(*size, etag.as_deref())
            .map_err(|error| self.location.io_error(error))
    }

    /// The metadata of the file, for which only the footer is read.
    ///
    /// # Errors
    /// If the file cannot be read, or if its footer is invalid. The message contains the location.
    pub fn metadata(&self) -> Result<ParquetMetaData, StageError> {
        let input = self.open()?;
        ParquetMetaDataReader::new()
            .parse_and_finish(&input)
            .map_err(|error| match input.failure() {
                Some((_, cause)) => self.location.io_error(cause),
                None => StageError::new(
                    ErrorCode::DatasetCorrupt,
                    format!(
                        "{}: invalid or truncated Parquet file: {error}; restore or remove it",
                        self.location
                    ),
                ),
            })
    }

    /// The columns of the file, without metadata of the file.
    ///
    /// # Errors
    /// Those of [`DataFile::metadata`], and an error if a column has an unknown type.
    pub fn schema(&self) -> Result<SchemaRef, StageError> {
        let metadata = self.metadata()?;
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
        let schema = schema.map_err(|error| {
            StageError::new(
                ErrorCode::DatasetCorrupt,
                format!("{}: {error}", self.location),
            )
        })?;
        Ok(Arc::new(Schema::new(schema.fields().clone())))
    }

    /// The provenance in the footer; `None` if another program wrote the file.
    ///
    /// # Errors
    /// Those of [`DataFile::metadata`], and an error if the provenance is damaged.
    pub fn footer(&self) -> Result<Option<ProvenanceFooter>, StageError> {
        ProvenanceFooter::from_metadata(&self.location, &self.metadata()?)
    }
}
