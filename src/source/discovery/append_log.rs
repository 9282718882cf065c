//! An append-only file of JSON lines. It is not synced: it survives a crash of the process, and
//! usually one of the machine.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{create_dir_all_synced, read_if_exists, state_file, write_atomically};
use crate::json::to_json_lines;
use crate::storage::Location;

/// An append-only file, which is opened by the first append.
#[derive(Debug, Default)]
pub(crate) struct AppendLog {
    /// `None` if `state` is not on a local disk. Then nothing is stored.
    path: Option<PathBuf>,
    file: Option<File>,
}

impl AppendLog {
    /// The log at `location`.
    pub(crate) fn new(location: Option<&Location>) -> Self {
        Self {
            path: location.and_then(Location::local).map(PathBuf::from),
            file: None,
        }
    }

    /// Reads all lines in order. Lines that were truncated by a crash are skipped.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, StageError> {
        let Some(path) = &self.path else {
            return Ok(Vec::new());
        };
        let text = read_if_exists(path)?.unwrap_or_default();
        Ok(text
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Appends lines.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<(), StageError> {
        let Some(path) = self.path.as_ref().filter(|_| !lines.is_empty()) else {
            return Ok(());
        };
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                path.parent().map_or(Ok(()), create_dir_all_synced)?;
                let file =
                    file_descriptors::open(|| state_file().create(true).append(true).open(path));
                let mut file = file.map_err(StageError::io(path))?;
                // Terminates a line that was truncated by a crash.
                file.write_all(b"\n").map_err(StageError::io(path))?;
                file
            }
        };
        (&file)
            .write_all(&to_json_lines(lines)?)
            .map_err(StageError::io(path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Replaces all lines.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn rewrite<T: Serialize>(&mut self, lines: &[T]) -> Result<(), StageError> {
        self.file = None;
        self.path.as_ref().map_or(Ok(()), |path| {
            write_atomically(path, &to_json_lines(lines)?)
        })
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn remove(self) -> Result<(), StageError> {
        self.path
            .map_or(Ok(()), |path| Location::Local(path).remove())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn log_is_not_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("log.ndjson")).unwrap();
        let mut log = AppendLog::new(Some(&Location::from(folder.path()).join("log.ndjson")));
        assert!(log.append(&["a"]).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn lines_are_read_back_without_truncated_ones() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::from(folder.path()).join("below/log.ndjson");
        let open = || AppendLog::new(Some(&location));
        assert!(open().read::<String>().unwrap().is_empty());
        open().append(&["a", "b"]).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(location.local().unwrap())
            .unwrap()
            .write_all(b"\"c")
            .unwrap();
        let mut log = open();
        log.append(&["d"]).unwrap();
        log.append(&["e"]).unwrap();
        assert_eq!(log.read::<String>().unwrap(), ["a", "b", "d", "e"]);
        log.rewrite(&["f"]).unwrap();
        log.append(&["g"]).unwrap();
        assert_eq!(open().read::<String>().unwrap(), ["f", "g"]);
        open().remove().unwrap();
        open().remove().unwrap();
        assert!(open().read::<String>().unwrap().is_empty());
    }

    #[test]
    fn log_without_location_stores_nothing() {
        let mut log = AppendLog::new(None);
        log.append(&["a"]).unwrap();
        log.rewrite(&["a"]).unwrap();
        assert!(log.read::<String>().unwrap().is_empty());
        log.remove().unwrap();
    }
}
