//! Writes the records of one part into a file that is there once it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::records::Tail;
use super::spec::Part;
use crate::durable::{create, temporary};
use crate::error::StageError;

/// The file of a part's records.
pub(super) fn records_path(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.records", part.as_str()))
}

/// The file that says where records end, for those that are not all alike.
pub(super) fn ends_path(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.ends", part.as_str()))
}

/// What the manifest says of a part's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    /// How many records there are.
    pub(super) records: u64,
    /// How long the file of records is.
    pub(super) bytes: u64,
    /// Height and width, where all have the same; else there is a file of ends.
    pub(super) size: Option<[usize; 2]>,
}

/// A part's files while they are written.
pub(super) struct Writer {
    records_path: PathBuf,
    ends_path: PathBuf,
    file: BufWriter<File>,
    records: u64,
    bytes: u64,
    ends: Ends,
}

/// Where the records written so far end.
enum Ends {
    /// None was written.
    Unknown,
    /// All have this height and width, and so many bytes.
    Same([u32; 2], u64),
    /// Each ends here.
    Listed(Vec<u64>),
}

impl Writer {
    /// Begins the files of a part in a folder that is there.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn new(folder: &Path, part: Part) -> Result<Self, StageError> {
        let (records_path, ends_path) = (records_path(folder, part), ends_path(folder, part));
        let file = create(&temporary(&records_path)).map_err(StageError::io(&records_path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { records_path, ends_path, file, records: 0, bytes: 0, ends: Ends::Unknown })
    }

    /// Appends a record: its values as they stand in the file, and what belongs to them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn add(&mut self, values: &[u8], tail: &Tail) -> Result<(), StageError> {
        let written = self.file.write_all(values).and_then(|()| self.file.write_all(&tail.bytes()));
        written.map_err(StageError::io(&self.records_path))?;
        let (length, size) = ((values.len() + Tail::BYTES) as u64, [tail.height, tail.width]);
        match &mut self.ends {
            Ends::Unknown => self.ends = Ends::Same(size, length),
            Ends::Same(first, _) if *first == size => {}
            Ends::Same(_, each) => {
                let each = *each;
                let before = (1..=self.records).map(|records| records * each);
                self.ends = Ends::Listed(before.chain([self.bytes + length]).collect());
            }
            Ends::Listed(ends) => ends.push(self.bytes + length),
        }
        self.records += 1;
        self.bytes += length;
        Ok(())
    }

    /// Puts the files in place, durably but for the folder's own entries.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn finish(self) -> Result<Written, StageError> {
        let file = self.file.into_inner().map_err(|error| StageError::io(&self.records_path)(error.into_error()))?;
        put(&file, &self.records_path)?;
        let size = match &self.ends {
            Ends::Unknown => Some([0, 0]),
            Ends::Same(size, _) => Some(size.map(|side| side as usize)),
            Ends::Listed(ends) => {
                let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
                let mut file = create(&temporary(&self.ends_path)).map_err(StageError::io(&self.ends_path))?;
                file.write_all(&bytes).map_err(StageError::io(&self.ends_path))?;
                put(&file, &self.ends_path)?;
                None
            }
        };
        Ok(Written { records: self.records, bytes: self.bytes, size })
    }
}

/// Gives a file that was written under a temporary name its own.
fn put(file: &File, path: &Path) -> Result<(), StageError> {
    file.sync_all().and_then(|()| fs::rename(temporary(path), path)).map_err(StageError::io(path))
}
