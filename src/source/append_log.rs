//! A file of JSON lines that is appended to. It survives the process, and usually the machine: it
//! is not synced.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{create_dir_all_synced, state_file, write_atomically};
use crate::json::to_json_lines;
use crate::storage::Location;

/// The file at work; it is opened when it is first appended to.
#[derive(Debug, Default)]
pub(super) struct AppendLog {
    /// `None` without a state on a disk of this machine, where nothing can be appended: then
    /// nothing is kept.
    path: Option<PathBuf>,
    file: Option<File>,
}

impl AppendLog {
    /// The file at `place`.
    pub(super) fn new(place: Option<&Location>) -> Self {
        Self {
            path: place.and_then(Location::local).map(PathBuf::from),
            file: None,
        }
    }

    /// The lines that were appended, in their order. Lines that a crash cut short are left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, StageError> {
        let Some(path) = &self.path else {
            return Ok(Vec::new());
        };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(StageError::io(path))?,
        };
        Ok(text
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Appends lines.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<(), StageError> {
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
                // A line that a crash cut short ends here.
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
    /// When the system refuses.
    pub(super) fn rewrite<T: Serialize>(&mut self, lines: &[T]) -> Result<(), StageError> {
        self.file = None;
        self.path.as_ref().map_or(Ok(()), |path| {
            write_atomically(path, &to_json_lines(lines)?)
        })
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn remove(self) -> Result<(), StageError> {
        self.path
            .map_or(Ok(()), |path| Location::Local(path).remove())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[cfg(unix)]
    #[test]
    fn link_in_the_place_of_a_log_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("log.ndjson")).unwrap();
        let mut log = AppendLog::new(Some(&Location::from(folder.path()).join("log.ndjson")));
        assert!(log.append(&["a"]).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn lines_are_read_back_without_one_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::from(folder.path()).join("below/log.ndjson");
        let open = || AppendLog::new(Some(&place));
        assert!(open().read::<String>().unwrap().is_empty());
        open().append(&["a", "b"]).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(place.local().unwrap())
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
    fn log_without_place_keeps_nothing() {
        let mut log = AppendLog::new(None);
        log.append(&["a"]).unwrap();
        log.rewrite(&["a"]).unwrap();
        assert!(log.read::<String>().unwrap().is_empty());
        log.remove().unwrap();
    }
}
