//! The log of content digests of listed files, and of the times since which files are missing.

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::source::discovery::append_log::AppendLog;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::listed_file::ListedFile;
use crate::storage::Location;

/// A line of the log: the digest of the content of a file with this name, size and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DigestEntry {
    /// The name of the file.
    pub(crate) path: String,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// The digest of its content, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<ContentDigest>,
    /// The time since which its folder lacks the file, in seconds since 1970; `None` if the file is
    /// present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<u64>,
}

impl DigestEntry {
    /// The entry of a present file.
    pub(crate) fn from_file(file: &ListedFile) -> Self {
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

/// The digest log of a stage. If it is lost, files are identified by size and time alone.
pub(crate) struct DigestLog(AppendLog);

impl DigestLog {
    /// The log of `stage` below `state`. The file is not opened yet.
    pub(crate) fn new(stage: &str, state: Option<&Location>) -> Self {
        let file = state.map(|state| state.join("digests").join(&format!("{stage}.ndjson")));
        Self(AppendLog::new(file.as_ref()))
    }

    /// Reads the entries whose file names `matches` accepts, in the order in which they were
    /// written.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) fn read(
        &self,
        mut matches: impl FnMut(&str) -> bool,
    ) -> Result<Vec<DigestEntry>, StageError> {
        Ok(self
            .0
            .read::<DigestEntry>()?
            .into_iter()
            .filter(|entry| matches(&entry.path))
            .collect())
    }

    /// Appends entries.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn append(&mut self, entries: &[DigestEntry]) -> Result<(), StageError> {
        self.0.append(entries)
    }

    /// Replaces all entries.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn rewrite(&mut self, entries: &[DigestEntry]) -> Result<(), StageError> {
        self.0.rewrite(entries)
    }

    /// Removes the log.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn remove(self) -> Result<(), StageError> {
        self.0.remove()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn entry(path: &str, away: Option<u64>) -> DigestEntry {
        DigestEntry {
            path: path.to_owned(),
            size: 1,
            mtime_ns: -2,
            digest: Some(ContentDigest::of(b"x")),
            away,
        }
    }

    #[test]
    fn entries_are_read_back_without_a_truncated_line() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let open = || DigestLog::new("in", Some(&state));
        assert_eq!(open().read(|_| true).unwrap(), []);
        open()
            .append(&[entry("a", None), entry("b", Some(7))])
            .unwrap();
        let path = folder.path().join("digests/in.ndjson");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"path\":\"c")
            .unwrap();
        open().append(&[entry("d", None)]).unwrap();
        let all = open().read(|_| true).unwrap();
        assert_eq!(
            all,
            [entry("a", None), entry("b", Some(7)), entry("d", None)]
        );
        assert_eq!(
            open().read(|name| name == "b").unwrap(),
            [entry("b", Some(7))]
        );
        open().rewrite(&all[2..]).unwrap();
        assert_eq!(open().read(|_| true).unwrap(), [entry("d", None)]);
        open().remove().unwrap();
        open().remove().unwrap();
        assert_eq!(open().read(|_| true).unwrap(), []);
    }

    #[test]
    fn log_without_state_stores_nothing() {
        let mut log = DigestLog::new("in", None);
        log.append(&[entry("a", None)]).unwrap();
        assert_eq!(log.read(|_| true).unwrap(), []);
    }
}
