//! Writes the records of one part into a file that is there once it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Subset;
use super::record_file::RecordTrailer;
use crate::error::StageError;
use crate::fs_durable::{create_temp, temp_path};

/// The file of a part's records.
pub(super) fn records_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.records", part.as_str()))
}

/// The file that says where records end, for those that are not all alike.
pub(super) fn ends_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.ends", part.as_str()))
}

/// What the manifest says of a part's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubsetSummary {
    /// How many records there are.
    pub(super) records: u64,
    /// How long the file of records is.
    pub(super) bytes: u64,
    /// Height and width, where all have the same; else there is a file of ends.
    pub(super) size: Option<[usize; 2]>,
}

/// A part's files while they are written.
pub(super) struct RecordWriter {
    records_path: PathBuf,
    ends_path: PathBuf,
    file: BufWriter<File>,
    records: u64,
    bytes: u64,
    offsets: OffsetIndexWriter,
}

/// Where the records written so far end.
enum OffsetIndexWriter {
    /// None was written.
    Unknown,
    /// All have this height and width, and so many bytes.
    Same([u32; 2], u64),
    /// Each ends here.
    Listed(Vec<u64>),
}

impl RecordWriter {
    /// Begins the files of a part in a folder that is there.
    ///
    /// # Errors
    /// When the system refuses.
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
        })
    }

    /// Appends a record: its values as they stand in the file, and what belongs to them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn add(&mut self, values: &[u8], tail: &RecordTrailer) -> Result<(), StageError> {
        let written = self
            .file
            .write_all(values)
            .and_then(|()| self.file.write_all(&tail.bytes()));
        written.map_err(StageError::io(&self.records_path))?;
        let (length, size) = (
            (values.len() + RecordTrailer::BYTES) as u64,
            [tail.height, tail.width],
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

    /// Puts the files in place, durably but for the folder's own entries.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn finish(self) -> Result<SubsetSummary, StageError> {
        let file = self
            .file
            .into_inner()
            .map_err(|error| StageError::io(&self.records_path)(error.into_error()))?;
        put(&file, &self.records_path)?;
        let size = match &self.offsets {
            OffsetIndexWriter::Unknown => Some([0, 0]),
            OffsetIndexWriter::Same(size, _) => Some(size.map(|side| side as usize)),
            OffsetIndexWriter::Listed(ends) => {
                let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
                let mut file = create_temp(&temp_path(&self.ends_path))
                    .map_err(StageError::io(&self.ends_path))?;
                file.write_all(&bytes)
                    .map_err(StageError::io(&self.ends_path))?;
                put(&file, &self.ends_path)?;
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

/// Gives a file that was written under a temporary name its own.
fn put(file: &File, path: &Path) -> Result<(), StageError> {
    file.sync_all()
        .and_then(|()| fs::rename(temp_path(path), path))
        .map_err(StageError::io(path))
}
