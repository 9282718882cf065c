//! What was learned of listed files beside their rows: digests of contents, and since when files
//! are away.

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::source::append_log::AppendLog;
use crate::source::content_digest::ContentDigest;
use crate::source::listed_file::ListedFile;
use crate::storage::Location;

/// A line: the content of a file of this name, size and time has this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DigestEntry {
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

impl DigestEntry {
    /// The note of a file that is there.
    pub(super) fn of(file: &ListedFile) -> Self {
        let ListedFile {
            name,
            size,
            mtime_ns,
            digest,
            ..
        } = file;
        Self {
            path: name.clone(),
            size: *size,
            mtime_ns: *mtime_ns,
            digest: *digest,
            away: None,
        }
    }
}

/// The notes of a stage. They are a memory of what was read: where they are lost, size and time
/// identify files again.
pub(super) struct DigestLog(AppendLog);

impl DigestLog {
    /// The notes of `stage` below `state`. Nothing is opened yet.
    pub(super) fn new(stage: &str, state: Option<&Location>) -> Self {
        let place = state.map(|state| state.join("digests").join(&format!("{stage}.ndjson")));
        Self(AppendLog::new(place.as_ref()))
    }

    /// The notes of files whose names are wanted, in the order in which they were written.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(
        &self,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<DigestEntry>, StageError> {
        Ok(self
            .0
            .read::<DigestEntry>()?
            .into_iter()
            .filter(|note| wanted(&note.path))
            .collect())
    }

    /// Adds notes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn append(&mut self, notes: &[DigestEntry]) -> Result<(), StageError> {
        self.0.append(notes)
    }

    /// Replaces all notes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn rewrite(&mut self, notes: &[DigestEntry]) -> Result<(), StageError> {
        self.0.rewrite(notes)
    }

    /// Removes all notes.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn forget(self) -> Result<(), StageError> {
        self.0.remove()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn note(path: &str, away: Option<u64>) -> DigestEntry {
        DigestEntry {
            path: path.to_owned(),
            size: 1,
            mtime_ns: -2,
            digest: Some(ContentDigest::of(b"x")),
            away,
        }
    }

    #[test]
    fn notes_are_read_back_without_a_line_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let open = || DigestLog::new("in", Some(&state));
        assert_eq!(open().read(|_| true).unwrap(), []);
        open()
            .append(&[note("a", None), note("b", Some(7))])
            .unwrap();
        let path = folder.path().join("digests/in.ndjson");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"path\":\"c")
            .unwrap();
        open().append(&[note("d", None)]).unwrap();
        let all = open().read(|_| true).unwrap();
        assert_eq!(all, [note("a", None), note("b", Some(7)), note("d", None)]);
        assert_eq!(
            open().read(|name| name == "b").unwrap(),
            [note("b", Some(7))]
        );
        open().rewrite(&all[2..]).unwrap();
        assert_eq!(open().read(|_| true).unwrap(), [note("d", None)]);
        open().forget().unwrap();
        open().forget().unwrap();
        assert_eq!(open().read(|_| true).unwrap(), []);
    }

    #[test]
    fn notes_without_state_are_not_kept() {
        let mut notes = DigestLog::new("in", None);
        notes.append(&[note("a", None)]).unwrap();
        assert_eq!(notes.read(|_| true).unwrap(), []);
    }
}
