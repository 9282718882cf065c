//! A reference to a file that could not be read: what a reject holds instead of the record, and how
//! it is read later.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::UnavailableInput;
use crate::image::probe;
use crate::source::content_digest::ContentDigest;
use crate::source::listed_file::ListedFile;
use crate::source::stat_cache::{self, size_and_time};
use crate::storage::Location;

/// The file, as it was found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileReference {
    path: PathBuf,
    /// Length in bytes.
    size: u64,
    /// Modification time in nanoseconds since 1970.
    mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<ContentDigest>,
}

/// Bytes of a file that its header is looked for in.
const HEADER_BYTES: u64 = 1 << 18;

/// Why a file that is referred to is not read.
pub(super) enum ReferenceReadError {
    /// It is gone, or another; a clause.
    Refused(String),
    /// It cannot be read now.
    Unavailable(UnavailableInput),
}

impl FileReference {
    /// A reference to a file of this machine; `None` for an object, or a path that is not UTF-8.
    pub(super) fn new(file: &ListedFile, root: &Location) -> Option<Self> {
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

    /// As a reject holds it.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // A path that is UTF-8, numbers and text are always JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From a reject; `None` if it is not a reference.
    pub(super) fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The bytes of the file, and the pixels that it decodes to by its header; zeros where it
    /// cannot be read.
    pub(super) fn weight(&self) -> (u64, u64) {
        let mut beginning = Vec::new();
        let read = stat_cache::open(&self.path)
            .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut beginning));
        let pixels = read
            .ok()
            .and_then(|_| probe(&beginning).ok())
            .map_or(0, |header| header.charged_pixels());
        (self.size, pixels)
    }

    /// The content, if the file is the one that was found, of at most `limit` bytes.
    ///
    /// # Errors
    /// Why it is not read.
    pub(super) fn read(&self, limit: u64) -> Result<Vec<u8>, ReferenceReadError> {
        let path = self.path.display();
        if self.size > limit {
            let size = self.size;
            return Err(ReferenceReadError::Refused(format!(
                "{path}: {size} bytes, more than the limit of {limit} bytes (limits.record_bytes)"
            )));
        }
        let (bytes, time) =
            read_whole(&self.path, self.size).map_err(|error| {
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

/// Up to one byte more than `size`, and the modification time.
fn read_whole(path: &Path, size: u64) -> std::io::Result<(Vec<u8>, i64)> {
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
    fn reference_leads_to_the_file_until_it_changes() {
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
            Err(ReferenceReadError::Refused(why)) => why,
            _ => panic!("it cannot be read"),
        };
        assert!(refused(12).contains("more than the limit"));
        fs::write(&path, "P5 2 1 255\n123").unwrap();
        assert!(refused(13).contains("was changed"));
        fs::remove_file(&path).unwrap();
        assert!(refused(13).contains("No such file"));
    }
}
