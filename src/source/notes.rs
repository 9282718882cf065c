//! What was learned of listed files beside their rows: digests of contents, and since when files are away.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::durable::{create_folders, write_atomically};
use crate::error::StageError;
use crate::source::content_digest::ContentDigest;
use crate::source::listing::ListedFile;
use crate::store::Location;

/// A line: the content of a file of this name, size and time has this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The name of the file.
    pub(super) path: String,
    /// Length in bytes.
    pub(super) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(super) mtime_ns: i64,
    /// The digest of its content, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<ContentDigest>,
    /// Since when its folder lacks it, in seconds since 1970; `None`: it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) away: Option<u64>,
}

impl Note {
    /// The note of a file that is there.
    pub(super) fn of(file: &ListedFile) -> Self {
        let ListedFile { name, size, mtime_ns, digest, .. } = file;
        Self { path: name.clone(), size: *size, mtime_ns: *mtime_ns, digest: *digest, away: None }
    }
}

/// The notes of a stage: lines of a file that is appended to. They are a memory of what was read: where the file is lost, size
/// and time identify files again.
pub(super) struct Notes {
    /// `None` where notes are not kept: without a state, or with one in a bucket, where nothing can be appended.
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Notes {
    /// The notes of `stage` below `state`. Nothing is opened yet.
    pub(super) fn new(stage: &str, state: Option<&Location>) -> Self {
        let folder = state.and_then(Location::local);
        Self { path: folder.map(|state| state.join("digests").join(format!("{stage}.ndjson"))), file: None }
    }

    /// The notes of files whose names are wanted, in the order in which they were written. Lines that a crash cut short are left
    /// out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&self, mut wanted: impl FnMut(&str) -> bool) -> Result<Vec<Note>, StageError> {
        let Some(path) = &self.path else { return Ok(Vec::new()) };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(StageError::io(path))?,
        };
        let notes = text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Note>(line).ok());
        Ok(notes.filter(|note| wanted(&note.path)).collect())
    }

    /// Adds notes. They survive the process, and usually the machine: they are not synced.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn append(&mut self, notes: &[Note]) -> Result<(), StageError> {
        let Some(path) = self.path.clone().filter(|_| !notes.is_empty()) else { return Ok(()) };
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                path.parent().map_or(Ok(()), create_folders)?;
                let file = OpenOptions::new().create(true).append(true).open(&path);
                let mut file = file.map_err(StageError::io(&path))?;
                // A line that a crash cut short ends here.
                file.write_all(b"\n").map_err(StageError::io(&path))?;
                file
            }
        };
        (&file).write_all(&lines(notes)?).map_err(StageError::io(&path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Replaces all notes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn rewrite(&mut self, notes: &[Note]) -> Result<(), StageError> {
        self.file = None;
        self.path.as_ref().map_or(Ok(()), |path| write_atomically(path, &lines(notes)?))
    }

    /// Removes all notes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn forget(self) -> Result<(), StageError> {
        let Some(path) = self.path else { return Ok(()) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(&path)(error)),
            _ => Ok(()),
        }
    }
}

fn lines(notes: &[Note]) -> Result<Vec<u8>, StageError> {
    let mut text = Vec::new();
    for note in notes {
        let written = serde_json::to_writer(&mut text, note);
        written.map_err(|error| StageError::Other(format!("cannot write JSON: {error}")))?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn note(path: &str, away: Option<u64>) -> Note {
        Note { path: path.to_owned(), size: 1, mtime_ns: -2, digest: Some(ContentDigest::of(b"x")), away }
    }

    #[test]
    fn notes_are_read_back_without_a_line_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let open = || Notes::new("in", Some(&state));
        assert_eq!(open().read(|_| true).unwrap(), []);
        open().append(&[note("a", None), note("b", Some(7))]).unwrap();
        let path = folder.path().join("digests/in.ndjson");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"path\":\"c").unwrap();
        open().append(&[note("d", None)]).unwrap();
        let all = open().read(|_| true).unwrap();
        assert_eq!(all, [note("a", None), note("b", Some(7)), note("d", None)]);
        assert_eq!(open().read(|name| name == "b").unwrap(), [note("b", Some(7))]);
        open().rewrite(&all[2..]).unwrap();
        assert_eq!(open().read(|_| true).unwrap(), [note("d", None)]);
        open().forget().unwrap();
        open().forget().unwrap();
        assert_eq!(open().read(|_| true).unwrap(), []);
    }

    #[test]
    fn notes_without_state_are_not_kept() {
        let mut notes = Notes::new("in", None);
        notes.append(&[note("a", None)]).unwrap();
        assert_eq!(notes.read(|_| true).unwrap(), []);
    }
}
