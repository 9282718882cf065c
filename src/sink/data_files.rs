//! The data files of an output folder, wherever it lies, and their footers.

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::StageError;
use crate::sink::provenance_footer::ProvenanceFooter;
use crate::storage::{FileReader, Location, StoreEntry};

/// A Parquet file.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Where it lies.
    pub location: Location,
    /// Its name, its size.
    pub entry: StoreEntry,
}

/// The data files directly in a folder, by name; none where the folder does not exist.
///
/// # Errors
/// When the folder cannot be read.
pub fn data_files(folder: &Location) -> Result<Vec<DataFile>, StageError> {
    let is_data = |entry: &StoreEntry| {
        !entry.name.starts_with(['.', '_']) && entry.name.ends_with(".parquet")
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
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(&self) -> Result<FileReader, StageError> {
        let StoreEntry { size, etag, .. } = &self.entry;
        self.location
            .open(*size, etag.as_deref())
            .map_err(|error| self.location.io_error(error))
    }

    /// Its metadata, from its footer alone.
    ///
    /// # Errors
    /// When it cannot be read, or has no sound footer; the file is named.
    pub fn metadata(&self) -> Result<ParquetMetaData, StageError> {
        let input = self.open()?;
        ParquetMetaDataReader::new()
            .parse_and_finish(&input)
            .map_err(|error| match input.failure() {
                Some((_, error)) => self.location.io_error(error),
                None => StageError::Other(format!(
                    "{}: this is no whole Parquet file: {error}; restore or remove it",
                    self.location
                )),
            })
    }

    /// What latentflow wrote of it into its footer; `None` for another's file.
    ///
    /// # Errors
    /// As [`DataFile::metadata`], and where the footer is damaged.
    pub fn footer(&self) -> Result<Option<ProvenanceFooter>, StageError> {
        ProvenanceFooter::of(&self.location, &self.metadata()?)
    }
}
