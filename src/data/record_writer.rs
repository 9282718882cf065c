//! Writes the records of one part into a file that gets its name when it is complete.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Subset;
use super::record_origin::OriginWriter;
use crate::data::record_file::record::RecordTrailer;
use crate::error::StageError;
use crate::fs_durable::{create_temp, temp_path};

/// Returns the path of the file with a part's records.
pub(super) fn records_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.records", part.as_str()))
}

/// Returns the path of the file with the end of each record, which is written if the sizes of the
/// records differ.
pub(super) fn ends_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.ends", part.as_str()))
}

/// The entry of the manifest for a part's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubsetSummary {
    /// Number of records.
    pub(super) records: u64,
    /// Length of the file of records.
    pub(super) bytes: u64,
    /// Height and width if they are the same for all records; otherwise the part has a file of
    /// ends.
    pub(super) size: Option<[usize; 2]>,
}

/// Writes the files of a part.
pub(super) struct RecordWriter {
    records_path: PathBuf,
    ends_path: PathBuf,
    file: BufWriter<File>,
    records: u64,
    bytes: u64,
    offsets: OffsetIndexWriter,
    origins: OriginWriter,
}

/// The ends of the records written so far.
enum OffsetIndexWriter {
    /// No record was written.
    Unknown,
    /// All records have this height and width, and this number of bytes.
    Same([u32; 2], u64),
    /// The end of each record.
    Listed(Vec<u64>),
}

impl RecordWriter {
    /// Creates the files of a part in an existing folder.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub(super) fn new(folder: &Path, part: Subset) -> Result<Self, StageError> {
        let (records_path, ends_path) = (records_path(folder, part), ends_path(folder, part));
        let file = create_temp(&temp_path(&records_path)).map_err(StageError::io(&records_path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self {
            records_path,
            ends_path,
            file,
            records: 0,
            bytes: 0,
            offsets: OffsetIndexWriter::Unknown,
            origins: OriginWriter::new(folder, part)?,
        })
    }

    /// Appends a record: its values, encoded as in the file, the trailer, and the name and the row of
    /// its origin.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(super) fn add(
        &mut self,
        values: &[u8],
        trailer: &RecordTrailer,
        (source, row): (&str, u64),
    ) -> Result<(), StageError> {
        self.origins.add(source, row)?;
        let written = self
            .file
            .write_all(values)
            .and_then(|()| self.file.write_all(&trailer.bytes()));
        written.map_err(StageError::io(&self.records_path))?;
        let (length, size) = (
            (values.len() + RecordTrailer::BYTES) as u64,
            [trailer.height, trailer.width],
        );
        match &mut self.offsets {
            OffsetIndexWriter::Unknown => self.offsets = OffsetIndexWriter::Same(size, length),
            OffsetIndexWriter::Same(first, _) if *first == size => {}
            OffsetIndexWriter::Same(_, each) => {
                let each = *each;
                let before = (1..=self.records).map(|records| records * each);
                self.offsets =
                    OffsetIndexWriter::Listed(before.chain([self.bytes + length]).collect());
            }
            OffsetIndexWriter::Listed(ends) => ends.push(self.bytes + length),
        }
        self.records += 1;
        self.bytes += length;
        Ok(())
    }

    /// Syncs the files and gives them their names. The caller syncs the folder.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, synced or renamed.
    pub(super) fn finish(self) -> Result<SubsetSummary, StageError> {
        let file = self
            .file
            .into_inner()
            .map_err(|error| StageError::io(&self.records_path)(error.into_error()))?;
        put(&file, &self.records_path)?;
        self.origins.finish()?;
        let size = match &self.offsets {
            OffsetIndexWriter::Unknown => Some([0, 0]),
            OffsetIndexWriter::Same(size, _) => Some(size.map(|side| side as usize)),
            OffsetIndexWriter::Listed(ends) => {
                let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
                let mut ends_file = create_temp(&temp_path(&self.ends_path))
                    .map_err(StageError::io(&self.ends_path))?;
                ends_file
                    .write_all(&bytes)
                    .map_err(StageError::io(&self.ends_path))?;
                put(&ends_file, &self.ends_path)?;
                None
            }
        };
        Ok(SubsetSummary {
            records: self.records,
            bytes: self.bytes,
            size,
        })
    }
}

/// Syncs a file and renames it from its temporary name to its own.
fn put(file: &File, path: &Path) -> Result<(), StageError> {
    file.sync_all()
        .and_then(|()| fs::rename(temp_path(path), path))
        .map_err(StageError::io(path))
}
