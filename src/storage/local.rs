//! Files of the local disk.

use std::io::ErrorKind;
use std::path::Path;
use std::time::UNIX_EPOCH;
use std::{fs, io};

use crate::error::StageError;
use crate::file_descriptors;
use crate::storage::Location;
use crate::storage::listing::StoreEntry;
use crate::storage::reader::FileReader;

/// The modification time of a file in nanoseconds since 1970; 0 if the system does not record it.
pub(crate) fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata
        .modified()
        .map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)
            }
        })
}

pub(super) fn local_files(folder: &Path) -> Result<Vec<StoreEntry>, StageError> {
    let entries = match file_descriptors::open(|| fs::read_dir(folder)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StageError::io(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StageError::io(folder))?;
        let metadata = match fs::metadata(entry.path()) {
            // Another process has removed the file since the folder was read. The target of a link
            // must exist.
            Err(error) if error.kind() == ErrorKind::NotFound && is_gone(&entry.path()) => continue,
            metadata => metadata.map_err(StageError::io(entry.path()))?,
        };
        // latentflow writes only names in UTF-8, and an entry cannot represent another name.
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            files.push(StoreEntry {
                name,
                size: metadata.len(),
                mtime_ns: mtime_ns(&metadata),
                etag: None,
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

impl Location {
    /// The path, if the location is local.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Opens the file. Reading an object fails if it differs from its listed `size` and `etag`.
    ///
    /// # Errors
    /// If a local file cannot be opened. Errors of an object are returned when it is read.
    pub fn open(&self, size: u64, etag: Option<&str>) -> io::Result<FileReader> {
        match self {
            Self::Local(path) => file_descriptors::open(|| fs::File::open(path))
                .map(|file| FileReader::of_size(file, size)),
            Self::Remote(remote) => Ok(FileReader::Object(remote.block_reader(size, etag))),
        }
    }

    /// The content of a small file; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StageError> {
        let bytes = match self {
            Self::Local(path) => file_descriptors::open(|| fs::read(path)),
            Self::Remote(remote) => remote.read(None),
        };
        match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io_error(error)),
        }
    }
}
