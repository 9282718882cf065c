//! Locations of files: a local path, or a prefix or object of a bucket, behind one interface.

mod block_reader;
#[cfg(feature = "_cloud")]
mod cloud;
pub mod listing;
pub mod local;
pub(crate) mod location_error;
pub mod mounts;
mod multipart_upload;
mod object;
mod object_client;
pub mod outage;
mod prefetch;
mod reader;
pub(crate) mod transfer_limits;
mod writer;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use crate::error::code::ErrorCode;
use crate::error::unavailable::UnavailableInput;
use crate::error::{ErrorClass, StageError};
use crate::fs_durable::write_atomically;
use crate::storage::listing::StoreEntry;
use crate::storage::local::{local_files, mtime_ns};
#[cfg(not(feature = "_cloud"))]
use crate::storage::object::StoreScheme;
use crate::storage::object_client::UploadFence;

pub use location_error::LocationError;
pub(crate) use multipart_upload::MultipartUpload;
pub use object::ObjectPath;
pub(crate) use prefetch::PrefetchedObject;
pub use reader::FileReader;
pub(crate) use writer::AtomicWriter;

/// A local folder or file, or a prefix or object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path on this machine.
    Local(PathBuf),
    /// `s3://bucket/key`, or a key of another store.
    Remote(ObjectPath),
}

/// The path, glob or URL in its lexical normal form: without `.`, doubled slashes and a slash at
/// the end. `..` is kept, since only the file system can resolve it.
pub(crate) fn tidy(path: &str) -> String {
    let parts = |text: &str| {
        text.split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect::<Vec<_>>()
            .join("/")
    };
    match path.split_once(SCHEME) {
        Some((scheme, rest)) if is_url(path) => format!("{scheme}{SCHEME}{}", parts(rest)),
        _ if path.starts_with('/') => format!("/{}", parts(path)),
        _ => Some(parts(path))
            .filter(|tidy| !tidy.is_empty())
            .unwrap_or_else(|| ".".to_owned()),
    }
}

/// Separator between the scheme and the rest of a URL.
const SCHEME: &str = "://";

impl Location {
    /// Parses `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Text that is
    /// not a URL is a path.
    ///
    /// # Errors
    /// If the URL has another scheme, has an invalid bucket, or requires a feature that this build
    /// does not have.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if is_url(text) {
            ObjectPath::parse(text).map(Self::Remote)
        } else {
            Ok(Self::Local(PathBuf::from(text)))
        }
    }

    /// Parses the value of an option that takes a path: see [`Location::parse`].
    ///
    /// # Errors
    /// Those of [`Location::parse`].
    pub(crate) fn from_path(path: &Path) -> Result<Self, LocationError> {
        path.to_str()
            .map_or_else(|| Ok(Self::from(path)), Self::parse)
    }

    /// The location `name` below this one, with `/` between folders.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::Remote(remote) => Self::Remote(remote.join(name)),
        }
    }

    /// Writes or replaces a small file atomically and durably.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<(), StageError> {
        match self {
            Self::Local(path) => write_atomically(path, bytes),
            Self::Remote(remote) => remote.put(bytes).map_err(|error| self.io_error(error)),
        }
    }

    /// Writes a small file that does not exist yet. The lock of the folder protects a local file;
    /// in a bucket the store lets the first writer succeed.
    ///
    /// # Errors
    /// If it cannot be written, or if another writer has written it.
    pub(crate) fn put_if_absent(&self, bytes: &[u8]) -> Result<(), StageError> {
        match self {
            Self::Local(path) => write_atomically(path, bytes),
            Self::Remote(remote) => match remote.put_if_absent(bytes) {
                Ok(true) => Ok(()),
                Ok(false) => Err(StageError::new(
                    ErrorCode::OutputLocked,
                    format!(
                        "{self}: another run has just written this object; wait until that run ends, \
                     and run again"
                    ),
                )),
                Err(error) => Err(self.io_error(error)),
            },
        }
    }

    /// Starts a file that becomes visible when it is finished. In a bucket, `upload_record` holds
    /// the upload identifier until then, with which the upload can be aborted.
    ///
    /// # Errors
    /// If the file cannot be created or the upload cannot be started.
    pub(crate) fn create_writer(
        &self,
        upload_record: Option<ObjectPath>,
    ) -> Result<AtomicWriter, StageError> {
        AtomicWriter::begin(self, upload_record)
    }

    /// Removes a file. A missing file is not an error.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self) -> Result<(), StageError> {
        let removed = match self {
            Self::Local(path) => fs::remove_file(path),
            Self::Remote(remote) => remote.remove(),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.io_error(error)),
            _ => Ok(()),
        }
    }

    /// Whether the folder exists. A prefix exists if an object has a key below it.
    ///
    /// # Errors
    /// If the store cannot be queried.
    pub(crate) fn is_folder(&self) -> Result<bool, StageError> {
        match self {
            Self::Local(path) => Ok(path.is_dir()),
            Self::Remote(remote) => remote.has_objects().map_err(|error| self.io_error(error)),
        }
    }

    /// The entry of a file; `None` for a folder or a missing object.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub fn file(&self) -> Result<Option<StoreEntry>, StageError> {
        match self {
            Self::Local(path) if path.is_dir() => Ok(None),
            Self::Local(path) => {
                let metadata = fs::metadata(path).map_err(StageError::io(path))?;
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Ok(Some(StoreEntry {
                    name,
                    size: metadata.len(),
                    mtime_ns: mtime_ns(&metadata),
                    etag: None,
                }))
            }
            Self::Remote(remote) => remote.head().map_err(|error| self.io_error(error)),
        }
    }

    /// Whether an empty object here may be the rest of an upload whose abort was interrupted. The
    /// next abort removes it.
    pub(crate) fn may_hold_aborted_objects(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Remote(remote) => remote.upload_fence() == UploadFence::FirstPart,
        }
    }

    /// The files directly in a folder, sorted by name; empty if the folder does not exist.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn files(&self) -> Result<Vec<StoreEntry>, StageError> {
        match self {
            Self::Local(path) => local_files(path),
            Self::Remote(remote) => remote.children().map_err(|error| self.io_error(error)),
        }
    }

    /// The location as the value of an option that takes a path: see [`Location::from_path`].
    pub(crate) fn to_path(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote(remote) => PathBuf::from(remote.to_string()),
        }
    }

    /// The class of `error`, which the system or the store returned for this file.
    #[must_use]
    pub(crate) fn class_of(&self, error: &io::Error) -> ErrorClass {
        match self {
            Self::Local(_) => ErrorClass::of(error),
            Self::Remote(_) => ErrorClass::of_store(error),
        }
    }

    /// Separates errors of the environment, returned by the system or the store for this file, from
    /// verdicts on it.
    ///
    /// # Errors
    /// `error` itself, if it is a verdict on the file.
    pub fn unavailable(&self, error: io::Error) -> Result<UnavailableInput, io::Error> {
        UnavailableInput::from_error(self.to_path(), self.class_of(&error), error)
    }

    /// An I/O error with the path of this file.
    pub(crate) fn io_error(&self, error: io::Error) -> StageError {
        StageError::Io {
            path: self.to_path(),
            source: error,
        }
    }
}

/// The client of a bucket. All callers share one client and its open connections.
#[cfg(feature = "_cloud")]
use cloud::client_of;

/// The filter for the keys of a listing, for its fuzz target.
#[cfg(all(fuzzing, feature = "_cloud"))]
pub(crate) use cloud::separate_listed_keys;

/// The client of a bucket, which this build does not have.
#[cfg(not(feature = "_cloud"))]
fn client_of(
    scheme: StoreScheme,
    _: &str,
) -> Result<std::sync::Arc<dyn object_client::ObjectClient>, LocationError> {
    Err(scheme.disabled())
}

/// Whether `text` begins with a scheme and `://`, and is thus not a local path.
pub(crate) fn is_url(text: &str) -> bool {
    let scheme = text.split_once(SCHEME).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        !scheme.is_empty()
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '+')
    })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Local(path.to_path_buf())
    }
}

#[cfg(test)]
mod tests;
