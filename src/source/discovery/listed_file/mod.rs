//! A listed file: its name, size and time, and reads of its content that detect changes.

use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::error::unavailable::UnavailableInput;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::stat_cache::{self, size_and_time};
use crate::storage::listing::StoreEntry;
use crate::storage::{FileReader, Location};

/// A file of a listing, as it is stored between runs. [`file_identity`] defines when two listed
/// files are the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedFile {
    /// Path relative to the root of the file set, with `/` between folders; bytes that are not
    /// UTF-8 are percent-encoded.
    #[serde(rename = "path")]
    pub(crate) name: String,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// The etag of an object. The time identifies the content only if there is no etag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    /// The digest of its content, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<ContentDigest>,
    /// The relative path in the encoding of the system, if it is not UTF-8.
    #[serde(skip)]
    pub(crate) raw: Option<Box<Path>>,
}

/// Reject reason of a file that changed while it was read.
pub(crate) const CHANGED_MEANWHILE: &str =
    "was changed while it was read; the next run reads it again";

/// Reject reason of a file that changed between the listing and the read.
pub(crate) const CHANGED: &str = "was changed since it was listed; the next run reads it again";

/// Why a record is rejected.
#[derive(Debug)]
pub(crate) struct RecordError {
    /// The reject code, which is a label of the metrics.
    pub(crate) code: RejectCode,
    /// The reason as text, which begins with the name of the file.
    pub(crate) reason: String,
    /// A reference to the file that could not be read, as JSON, if one can be made.
    pub(crate) reference: Option<Vec<u8>>,
}

/// Why a file is not read.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The record of the file is rejected.
    Rejected(RecordError),
    /// The file is left for a later attempt.
    Unavailable(UnavailableInput),
}

impl From<RecordError> for ReadFailure {
    fn from(refusal: RecordError) -> Self {
        Self::Rejected(refusal)
    }
}

impl ListedFile {
    /// A file at `relative`, a path below the root of its listing, with its size in bytes and its
    /// time in nanoseconds.
    pub(crate) fn new(relative: &Path, (size, mtime_ns): (u64, i64)) -> Self {
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

    /// `<name>:<size>:<etag, or modification time in ns>`. A file that is written again has another
    /// identity.
    pub(crate) fn identity(&self) -> String {
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

    /// The path relative to the root of the listing.
    pub(crate) fn relative_path(&self) -> PathBuf {
        self.raw
            .as_deref()
            .unwrap_or(Path::new(&self.name))
            .to_path_buf()
    }

    /// The location of the file.
    pub(crate) fn location(&self, root: &Location) -> Location {
        match root {
            Location::Local(root) => Location::Local(root.join(self.relative_path())),
            Location::Remote(root) => Location::Remote(root.join(&self.name)),
        }
    }

    /// Opens the file if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if the file is missing or changed, else the
    /// error of the environment that makes it unavailable.
    pub(crate) fn open(&self, root: &Location) -> Result<FileReader, ReadFailure> {
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

    /// The digest of the file's content; `None` if the file is not the listed one any more.
    ///
    /// # Errors
    /// The error of the environment that makes it unavailable.
    pub(crate) fn digest_of_content(
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

    /// Classifies an I/O error of this file, whose location is `location`.
    pub(crate) fn failure(&self, location: &Location, error: io::Error) -> ReadFailure {
        match location.unavailable(error) {
            Ok(unavailable) => ReadFailure::Unavailable(unavailable),
            Err(error) => ReadFailure::Rejected(self.unreadable(&error.to_string())),
        }
    }

    /// The reject of a file that cannot be read.
    pub(crate) fn unreadable(&self, reason: &str) -> RecordError {
        RecordError::new(RejectCode::Unreadable, format!("{}: {reason}", self.name))
    }

    /// Reads the file if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection: `too_large` above `limit` bytes, without reading the file; `unreadable`, with
    /// the reason, if the file is missing or changed. Else the error of the environment that makes
    /// it unavailable.
    pub(crate) fn read(&self, root: &Location, limit: u64) -> Result<Vec<u8>, ReadFailure> {
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
    pub(crate) fn new(code: RejectCode, reason: String) -> Self {
        Self {
            code,
            reason,
            reference: None,
        }
    }

    pub(crate) fn too_large(name: &str, size: u64, limit: u64) -> Self {
        let reason = format!(
            "{name}: {size} bytes, more than the limit of {limit} bytes (limits.record_bytes)"
        );
        Self::new(RejectCode::TooLarge, reason)
    }
}

/// Converts a relative path to a name: `/` between folders, and bytes that are not UTF-8
/// percent-encoded.
pub(crate) fn name_of(relative: &Path) -> String {
    let mut name = String::with_capacity(relative.as_os_str().len());
    for part in relative {
        if !name.is_empty() {
            name.push('/');
        }
        push_encoded(&mut name, part.as_encoded_bytes());
    }
    name
}

/// Converts a name to text: UTF-8 is kept, and other bytes become `%` and two hexadecimal digits.
pub(crate) fn encode_name(name: &[u8]) -> String {
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
mod tests;
