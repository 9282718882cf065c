//! The origins of prepared records, in two files next to the values: one entry for each record, and
//! the names that the entries refer to.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::config::Subset;
use crate::data::positioned_read::read_at;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{create_temp, temp_path};
use crate::text_escape;

/// The place that a record was read from, as the columns `source` and `row` name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordOrigin {
    /// The name of the file, relative to the path of its source.
    pub source: String,
    /// The index of the record in the file, from 0.
    pub row: u64,
}

impl fmt::Display for RecordOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", text_escape::line(&self.source), self.row)
    }
}

/// The bytes of an entry: the start of the name, its length and the row, little-endian.
const ENTRY_BYTES: usize = 24;

fn entries_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.origins", part.as_str()))
}

fn names_path(folder: &Path, part: Subset) -> PathBuf {
    folder.join(format!("{}.names", part.as_str()))
}

/// Writes the origins of the records of one part.
pub(super) struct OriginWriter {
    entries: OriginFile,
    names: OriginFile,
    /// The name of the previous record, which is written once for consecutive records.
    name: String,
    /// The start and the end of that name.
    start: u64,
    end: u64,
}

/// A file that is being written.
struct OriginFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl OriginFile {
    fn new(path: PathBuf) -> Result<Self, StageError> {
        let file = create_temp(&temp_path(&path)).map_err(StageError::io(&path))?;
        Ok(Self {
            path,
            file: BufWriter::with_capacity(1 << 16, file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        self.file
            .write_all(bytes)
            .map_err(StageError::io(&self.path))
    }

    /// Syncs the file and gives it its name.
    fn finish(self) -> Result<(), StageError> {
        let Self { path, file } = self;
        let written = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        written
            .and_then(|written| written.sync_all())
            .and_then(|()| fs::rename(temp_path(&path), &path))
            .map_err(StageError::io(&path))
    }
}

impl OriginWriter {
    /// Creates the files of a part in an existing folder.
    ///
    /// # Errors
    /// Returns an error if a file cannot be created.
    pub(super) fn new(folder: &Path, part: Subset) -> Result<Self, StageError> {
        Ok(Self {
            entries: OriginFile::new(entries_path(folder, part))?,
            names: OriginFile::new(names_path(folder, part))?,
            name: String::new(),
            start: 0,
            end: 0,
        })
    }

    /// Appends the origin of the next record.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(super) fn add(&mut self, source: &str, row: u64) -> Result<(), StageError> {
        if self.name != source {
            source.clone_into(&mut self.name);
            self.start = self.end;
            self.end += source.len() as u64;
            self.names.write(source.as_bytes())?;
        }
        let entry = [self.start, self.end - self.start, row];
        self.entries.write(&entry.map(u64::to_le_bytes).concat())
    }

    /// Syncs the files and gives them their names. The caller syncs the folder.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, synced or renamed.
    pub(super) fn finish(self) -> Result<(), StageError> {
        self.names.finish()?;
        self.entries.finish()
    }
}

/// Reads the origins of the records of one part.
#[derive(Debug)]
pub(super) struct OriginReader {
    path: PathBuf,
    entries: File,
    names: File,
    /// The length of the file of names.
    names_len: u64,
}

impl OriginReader {
    /// Opens the files of a part with `records` records.
    ///
    /// # Errors
    /// Returns an error if a file is missing or has another length.
    pub(super) fn open(folder: &Path, part: Subset, records: u64) -> Result<Self, StageError> {
        let path = entries_path(folder, part);
        let open = |file: &Path| File::open(file).map_err(StageError::io(file));
        let len = |file: &File| {
            let metadata = file.metadata();
            metadata
                .map(|metadata| metadata.len())
                .map_err(StageError::io(&path))
        };
        let (entries, names) = (open(&path)?, open(&names_path(folder, part))?);
        if Some(len(&entries)?) != records.checked_mul(ENTRY_BYTES as u64) {
            return Err(StageError::new(
                ErrorCode::DataCorrupt,
                format!(
                    "{}: the file does not have the origins of {records} records",
                    path.display()
                ),
            ));
        }
        let names_len = len(&names)?;
        Ok(Self {
            path,
            entries,
            names,
            names_len,
        })
    }

    /// Returns the origin of the record at `index`.
    ///
    /// # Errors
    /// Returns an error if `index` is out of range, or a file cannot be read or is corrupt.
    pub(super) fn read(&self, index: usize) -> Result<RecordOrigin, StageError> {
        let mut entry = [0; ENTRY_BYTES];
        let read = read_at(&self.entries, &mut entry, (index * ENTRY_BYTES) as u64);
        read.map_err(StageError::io(&self.path))?;
        let number = |at: usize| {
            let bytes = entry[at..at + 8].iter().rev();
            bytes.fold(0, |value: u64, &byte| value << 8 | u64::from(byte))
        };
        let (start, len, row) = (number(0), number(8), number(16));
        if start
            .checked_add(len)
            .is_none_or(|end| end > self.names_len)
        {
            return Err(StageError::new(
                ErrorCode::DataCorrupt,
                format!(
                    "{}: record {index} is corrupt; delete the folder, and the next call prepares it \
                 again",
                    self.path.display()
                ),
            ));
        }
        let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
        read_at(&self.names, &mut name, start).map_err(StageError::io(&self.path))?;
        Ok(RecordOrigin {
            source: String::from_utf8_lossy(&name).into_owned(),
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn origins_are_read_by_the_index_of_their_record() {
        let folder = tempfile::tempdir().unwrap();
        let origins = [
            ("a.csv", 0),
            ("a.csv", 7),
            ("ö/b.csv", 1),
            ("", 2),
            ("a.csv", 3),
        ];
        let mut writer = OriginWriter::new(folder.path(), Subset::Test).unwrap();
        for (source, row) in origins {
            writer.add(source, row).unwrap();
        }
        writer.finish().unwrap();
        let names = fs::read_to_string(folder.path().join("test.names")).unwrap();
        assert_eq!(
            names, "a.csvö/b.csva.csv",
            "consecutive names are stored once"
        );
        let reader = OriginReader::open(folder.path(), Subset::Test, 5).unwrap();
        for (index, (source, row)) in origins.into_iter().enumerate() {
            let source = source.to_owned();
            assert_eq!(reader.read(index).unwrap(), RecordOrigin { source, row });
        }
        assert!(reader.read(5).is_err());
        assert!(OriginReader::open(folder.path(), Subset::Test, 6).is_err());
        fs::write(folder.path().join("test.names"), "a").unwrap();
        let truncated = OriginReader::open(folder.path(), Subset::Test, 5).unwrap();
        assert!(
            truncated
                .read(1)
                .unwrap_err()
                .to_string()
                .contains("corrupt")
        );
    }
}
