//! A file as a listing finds it: its name, size and time, and its content if it is still the same
//! file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::UnavailableInput;
use crate::source::content_digest::ContentDigest;
use crate::source::file_identity::{self, FileMatch};
use crate::source::stat_cache::{self, size_and_time};
use crate::storage::{FileReader, Location, StoreEntry};

/// A file, as it is known from run to run; [`identity`] defines when two of them are the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedFile {
    /// Path relative to the set's root, `/` between folders; bytes that are no UTF-8 are
    /// percent-encoded.
    #[serde(rename = "path")]
    pub(super) name: String,
    /// Length in bytes.
    pub(super) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(super) mtime_ns: i64,
    /// What a store calls its content; the time counts only where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// The digest of its content, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<ContentDigest>,
    /// The relative path as the system knows it, where that is no UTF-8.
    #[serde(skip)]
    pub(super) raw: Option<Box<Path>>,
}

/// Why a file is refused that became another under its reader.
pub(super) const CHANGED_MEANWHILE: &str =
    "was changed while it was read; the next run takes it anew";

/// Why a file is refused that is no longer what it was.
pub(super) const CHANGED: &str = "was changed since it was listed; the next run takes it anew";

/// Why a record cannot be had.
#[derive(Debug)]
pub(super) struct RecordError {
    /// For metrics.
    pub(super) code: RejectCode,
    /// For people.
    pub(super) reason: String,
    /// A reference to the file that could not be read, as JSON, where there is one.
    pub(super) reference: Option<Vec<u8>>,
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// Its record is rejected.
    Rejected(RecordError),
    /// It is left for a later attempt.
    Unavailable(UnavailableInput),
}

impl From<RecordError> for ReadFailure {
    fn from(refusal: RecordError) -> Self {
        Self::Rejected(refusal)
    }
}

impl ListedFile {
    /// A file at `relative`, a path below the root of its listing, with its size and time.
    pub(super) fn new(relative: &Path, (size, mtime_ns): (u64, i64)) -> Self {
        let raw = relative.to_str().is_none().then(|| relative.into());
        Self {
            name: name_of(relative),
            size,
            mtime_ns,
            etag: None,
            digest: None,
            raw,
        }
    }

    /// Whether both are known to be the same file, without reading its content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        file_identity::compare(self, other) == FileMatch::Same
    }

    /// As [`Self::is_same`], whatever the names.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        file_identity::compare(
            self,
            &Self {
                name: self.name.clone(),
                ..other.clone()
            },
        ) == FileMatch::Same
    }

    /// `<name>:<size>:<etag, or modification time in ns>`: written anew, it is another file.
    pub(super) fn identity(&self) -> String {
        let Self {
            name,
            size,
            mtime_ns,
            etag,
            ..
        } = self;
        match etag {
            Some(etag) => format!("{name}:{size}:{etag}"),
            None => format!("{name}:{size}:{mtime_ns}"),
        }
    }

    /// Its path relative to the root of the listing.
    pub(super) fn relative_path(&self) -> PathBuf {
        self.raw
            .as_deref()
            .unwrap_or(Path::new(&self.name))
            .to_path_buf()
    }

    /// Where it lies.
    pub(super) fn location(&self, root: &Location) -> Location {
        match root {
            Location::Local(root) => Location::Local(root.join(self.relative_path())),
            Location::Remote(root) => Location::Remote(root.join(&self.name)),
        }
    }

    /// Opens the file if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if it is gone or changed; else what makes it
    /// unavailable.
    pub(super) fn open(&self, root: &Location) -> Result<FileReader, ReadFailure> {
        let location = self.location(root);
        let failed = |error: io::Error| self.failure(&location, error);
        let Some(path) = location.local() else {
            return location
                .open(self.size, self.etag.as_deref())
                .map_err(failed);
        };
        let file = stat_cache::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || size_and_time(&metadata) != (self.size, self.mtime_ns) {
            return Err(self.unreadable(CHANGED).into());
        }
        Ok(FileReader::of_size(file, self.size))
    }

    /// The digest of the file's content; `None` if it is not the file that was listed any more.
    ///
    /// # Errors
    /// What makes it unavailable.
    pub(super) fn digest_of_content(
        &self,
        root: &Location,
    ) -> Result<Option<ContentDigest>, UnavailableInput> {
        let file = match self.open(root) {
            Ok(file) => file,
            Err(ReadFailure::Rejected(_)) => return Ok(None),
            Err(ReadFailure::Unavailable(unavailable)) => return Err(unavailable),
        };
        ContentDigest::of_prefix(file, self.size)
            .or_else(|error| self.location(root).unavailable(error).map_or(Ok(None), Err))
    }

    /// The failure that an I/O error of this file, which lies at `location`, amounts to.
    pub(super) fn failure(&self, location: &Location, error: io::Error) -> ReadFailure {
        match location.unavailable(error) {
            Ok(unavailable) => ReadFailure::Unavailable(unavailable),
            Err(error) => ReadFailure::Rejected(self.unreadable(&error.to_string())),
        }
    }

    /// That it cannot be read.
    pub(super) fn unreadable(&self, reason: &str) -> RecordError {
        RecordError::new(RejectCode::Unreadable, format!("{}: {reason}", self.name))
    }

    /// The file's bytes, if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection: `too_large` above `limit` bytes, without reading it; `unreadable`, with the
    /// reason, if it is gone or changed. Else what makes it unavailable.
    pub(super) fn read(&self, root: &Location, limit: u64) -> Result<Vec<u8>, ReadFailure> {
        if self.size > limit {
            return Err(RecordError::too_large(&self.name, self.size, limit).into());
        }
        let file = self.open(root)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        let read = file.take(self.size + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.failure(&self.location(root), error))?;
        if bytes.len() as u64 != self.size {
            return Err(self.unreadable(CHANGED_MEANWHILE).into());
        }
        Ok(bytes)
    }
}

impl From<StoreEntry> for ListedFile {
    fn from(
        StoreEntry {
            name,
            size,
            mtime_ns,
            etag,
        }: StoreEntry,
    ) -> Self {
        Self {
            name,
            size,
            mtime_ns,
            etag,
            digest: None,
            raw: None,
        }
    }
}

impl RecordError {
    pub(super) fn new(code: RejectCode, reason: String) -> Self {
        Self {
            code,
            reason,
            reference: None,
        }
    }

    pub(super) fn too_large(name: &str, size: u64, limit: u64) -> Self {
        let reason = format!(
            "{name}: {size} bytes, more than the limit of {limit} bytes (limits.record_bytes)"
        );
        Self::new(RejectCode::TooLarge, reason)
    }
}

/// A relative path as a name: `/` between folders, bytes that are no UTF-8 percent-encoded.
pub(super) fn name_of(relative: &Path) -> String {
    let mut name = String::with_capacity(relative.as_os_str().len());
    for part in relative {
        if !name.is_empty() {
            name.push('/');
        }
        push_encoded(&mut name, part.as_encoded_bytes());
    }
    name
}

/// A name as text: what is UTF-8 stays, other bytes become `%` and two hexadecimal digits.
pub(super) fn encode_name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    push_encoded(&mut text, name);
    text
}

fn push_encoded(text: &mut String, name: &[u8]) {
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk
            .invalid()
            .iter()
            .for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::source::file_set::FileSet;
    use crate::source::file_set::testing::folder;

    fn set(folder: &Path) -> FileSet {
        FileSet::new(folder.to_str().unwrap().to_owned(), false, &["jpg", "png"]).unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_no_utf8_is_encoded_and_can_be_read() {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder(&[]);
        fs::write(
            folder
                .path()
                .join(std::ffi::OsStr::from_bytes(b"gr\xfcn %41.jpg")),
            b"data",
        )
        .unwrap();
        let listing = set(folder.path()).list().unwrap();
        let file = listing.files.get("gr%FCn %41.jpg").unwrap();
        assert_eq!(file.read(&listing.root, 100).unwrap(), b"data");
    }

    #[test]
    fn a_file_that_was_changed_or_is_too_large_is_refused_with_the_reason() {
        let folder = folder(&["a.jpg", "b.jpg"]);
        let listing = set(folder.path()).list().unwrap();
        fs::write(folder.path().join("a.jpg"), b"longer than before").unwrap();
        let refusal =
            |name: &str, limit| match listing.files[name].read(&listing.root, limit).unwrap_err() {
                ReadFailure::Rejected(refusal) => refusal,
                ReadFailure::Unavailable(unavailable) => panic!("{unavailable:?}"),
            };
        assert_eq!(refusal("a.jpg", 100).code, RejectCode::Unreadable);
        assert!(
            refusal("a.jpg", 100)
                .reason
                .starts_with("a.jpg: was changed")
        );
        assert_eq!(refusal("b.jpg", 4).code, RejectCode::TooLarge);
        fs::remove_file(folder.path().join("b.jpg")).unwrap();
        assert!(refusal("b.jpg", 5).reason.contains("b.jpg: "));
    }
}
