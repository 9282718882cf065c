//! References to files that could not be read, which rejects hold instead of the record.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::unavailable::UnavailableInput;
use crate::image::probe;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::listed_file::ListedFile;
use crate::source::discovery::stat_cache::{self, size_and_time};
use crate::storage::Location;

/// A reference to a file, with its size and time when it was found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileReference {
    path: PathBuf,
    /// Length in bytes.
    size: u64,
    /// Modification time in nanoseconds since 1970.
    mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<ContentDigest>,
}

/// Bytes of a file in which its image header is expected.
const HEADER_BYTES: u64 = 1 << 18;

/// Why a referenced file is not read.
pub(crate) enum ReferenceReadError {
    /// The file is missing, changed or too large; the reason.
    Refused(String),
    /// The file cannot be read now.
    Unavailable(UnavailableInput),
}

impl FileReference {
    /// A reference to a local file; `None` for an object, or a path that is not UTF-8.
    pub(crate) fn new(file: &ListedFile, root: &Location) -> Option<Self> {
        let location = file.location(root);
        let path = std::path::absolute(location.local()?).ok()?;
        path.to_str()?;
        Some(Self {
            path,
            size: file.size,
            mtime_ns: file.mtime_ns,
            digest: file.digest,
        })
    }

    /// Serializes the reference for a reject.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // A UTF-8 path, numbers and text can always be written as JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Parses the reference of a reject; `None` if `text` is not a reference.
    pub(crate) fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The size of the file in bytes, and its pixels according to its header; 0 pixels if that
    /// cannot be read.
    pub(crate) fn weight(&self) -> (u64, u64) {
        let mut beginning = Vec::new();
        let read = stat_cache::open(&self.path)
            .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut beginning));
        let pixels = read
            .ok()
            .and_then(|_| probe(&beginning).ok())
            .map_or(0, |header| header.charged_pixels());
        (self.size, pixels)
    }

    /// Reads at most `limit` bytes of content, if the file is the referenced one.
    ///
    /// # Errors
    /// Why the file is not read.
    pub(crate) fn read(&self, limit: u64) -> Result<Vec<u8>, ReferenceReadError> {
        let path = self.path.display();
        if self.size > limit {
            let size = self.size;
            return Err(ReferenceReadError::Refused(format!(
                "{path}: {size} bytes, more than the limit of {limit} bytes (limits.record_bytes)"
            )));
        }
        let (bytes, time) = read_content(&self.path, self.size).map_err(|error| {
            match Location::from(self.path.as_path()).unavailable(error) {
                Ok(unavailable) => ReferenceReadError::Unavailable(unavailable),
                Err(error) => ReferenceReadError::Refused(format!("{path}: {error}")),
            }
        })?;
        let is_same = match self.digest {
            Some(digest) => ContentDigest::of(&bytes) == digest,
            None => time == self.mtime_ns,
        };
        if bytes.len() as u64 == self.size && is_same {
            Ok(bytes)
        } else {
            Err(ReferenceReadError::Refused(format!(
                "{path}: was changed since it was rejected"
            )))
        }
    }
}

/// Reads up to `size` + 1 bytes and the modification time.
fn read_content(path: &Path, size: u64) -> std::io::Result<(Vec<u8>, i64)> {
    let file = stat_cache::open(path)?;
    let (_, time) = size_and_time(&file.metadata()?);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.take(size + 1).read_to_end(&mut bytes)?;
    Ok((bytes, time))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn referenced_file_is_read_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::from(folder.path());
        let path = folder.path().join("a");
        fs::write(&path, "P5 2 1 255\n12").unwrap();
        let time = size_and_time(&path.metadata().unwrap()).1;
        let file = serde_json::json!({"path": "a", "size": 13, "mtime_ns": time});
        let reference = FileReference::new(&serde_json::from_value(file).unwrap(), &root).unwrap();
        let reference = FileReference::from_json(&reference.to_json()).unwrap();
        assert_eq!(reference.weight(), (13, 2));
        assert_eq!(reference.read(13).ok().unwrap(), b"P5 2 1 255\n12");
        let refused = |limit| match reference.read(limit) {
            Err(ReferenceReadError::Refused(reason)) => reason,
            _ => panic!("the read must be refused"),
        };
        assert!(
            refused(12)
                .ends_with("a: 13 bytes, more than the limit of 12 bytes (limits.record_bytes)")
        );
        fs::write(&path, "P5 2 1 255\n123").unwrap();
        assert!(refused(13).ends_with("a: was changed since it was rejected"));
        fs::remove_file(&path).unwrap();
        assert!(refused(13).contains("a: No such file"));
    }
}
