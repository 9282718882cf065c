//! Locations of files: a local path, or a prefix or object of a bucket, behind one interface.

#[cfg(not(feature = "object-store"))]
mod s3_disabled;
#[cfg(feature = "object-store")]
mod prefetch;
#[cfg(feature = "object-store")]
mod block_reader;
#[cfg(feature = "object-store")]
mod s3;
#[cfg(feature = "object-store")]
mod client;
#[cfg(feature = "object-store")]
mod http;
mod reader;
#[cfg(feature = "object-store")]
mod listed_keys;
pub mod mounts;
pub mod outage;
mod writer;
#[cfg(feature = "object-store")]
mod error;
#[cfg(feature = "object-store")]
mod blocking;
#[cfg(feature = "object-store")]
mod multipart_upload;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::{ErrorClass, StageError, UnavailableInput};
use crate::file_descriptors;
use crate::fs_durable::write_atomically;

#[cfg(feature = "object-store")]
pub use multipart_upload::MultipartUpload;
#[cfg(feature = "object-store")]
pub use prefetch::PrefetchedObject;
pub use reader::FileReader;
#[cfg(feature = "object-store")]
pub use s3::S3Path;
#[cfg(not(feature = "object-store"))]
pub use s3_disabled::{MultipartUpload, PrefetchedObject, S3Path};
pub use writer::AtomicWriter;

/// A local folder or file, or a prefix or object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path on this machine.
    Local(PathBuf),
    /// `s3://bucket/key`.
    Remote(S3Path),
}

/// A file or object, as a listing describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// The key relative to the listed prefix, with `/` between its parts.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The entity tag of the content without its quotes, if the store provides one.
    pub etag: Option<String>,
}

/// The objects below a prefix.
#[derive(Debug, Default)]
pub struct ObjectListing {
    /// The objects that can be read, in any order.
    pub entries: Vec<StoreEntry>,
    /// The objects that cannot be read because of their keys.
    pub unusable: UnusableKeys,
}

/// Objects whose keys are not valid file names: an empty part, a part `.` or `..`, a control
/// character, white space or a slash at either end, or bytes that are not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnusableKeys {
    /// The number of objects.
    pub count: u64,
    /// The key of one of them.
    pub example: Option<String>,
}

impl UnusableKeys {
    /// Adds the unusable keys of another page.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.example = self.example.take().or(other.example);
    }
}

/// Number of objects that are requested together: the next ones arrive while one is read.
pub const MAX_CONCURRENT_REQUESTS: usize = 16;
/// Maximum memory for reading objects, in bytes: the blocks of one object and the ends of the
/// objects after it, or small objects that are read together.
const READING_BYTES: u64 = 68 << 20;
/// Memory for writing an object, in bytes: the part that is filled and the part that is in flight.
const WRITING_BYTES: u64 = 16 << 20;

/// Memory for reading from `path` in bytes, without the memory of the records.
pub fn reading_bytes(path: &str) -> u64 {
    if is_url(path) { READING_BYTES } else { 0 }
}

/// The path, glob or URL in its lexical normal form: without `.`, doubled slashes and a slash at
/// the end. `..` is kept, since only the file system can resolve it.
pub fn tidy(path: &str) -> String {
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
    /// Parses `s3://bucket/prefix`. Text that is not a URL is a path.
    ///
    /// # Errors
    /// A message, if the URL has another scheme, has an invalid bucket, or requires a feature that
    /// this build does not have.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_url(text) {
            S3Path::parse(text).map(Self::Remote)
        } else {
            Ok(Self::Local(PathBuf::from(text)))
        }
    }

    /// Parses the value of an option that takes a path: see [`Location::parse`].
    ///
    /// # Errors
    /// Those of [`Location::parse`].
    pub fn from_path(path: &Path) -> Result<Self, String> {
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

    /// Memory for writing a file here in bytes, without the memory of the caller.
    pub fn writing_bytes(&self) -> u64 {
        if self.local().is_some() {
            0
        } else {
            WRITING_BYTES
        }
    }

    /// The path, if the location is local.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Opens the file. Reading an object fails if it differs from its listed `size` and `etag`.
    ///
    /// # Errors
    /// If a local file cannot be opened. Errors of an object are returned when it is read.
    pub fn open(&self, size: u64, etag: Option<&str>) -> io::Result<FileReader> {
        match self {
            Self::Local(path) => file_descriptors::open(|| fs::File::open(path))
                .map(|file| FileReader::of_size(file, size)),
            Self::Remote(remote) => Ok(FileReader::Object(remote.block_reader(size, etag))),
        }
    }

    /// The content of a small file; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StageError> {
        let bytes = match self {
            Self::Local(path) => file_descriptors::open(|| fs::read(path)),
            Self::Remote(remote) => remote.read(None),
        };
        match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io_error(error)),
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
    pub fn put_if_absent(&self, bytes: &[u8]) -> Result<(), StageError> {
        match self {
            Self::Local(path) => write_atomically(path, bytes),
            Self::Remote(remote) => match remote.put_if_absent(bytes) {
                Ok(true) => Ok(()),
                Ok(false) => Err(StageError::Other(format!(
                    "{self}: another run has just written this object; wait until that run ends, \
                     and run again"
                ))),
                Err(error) => Err(self.io_error(error)),
            },
        }
    }

    /// Starts a file that becomes visible when it is finished. In a bucket, `upload_record` holds
    /// the upload identifier until then, with which the upload can be aborted.
    ///
    /// # Errors
    /// If the file cannot be created or the upload cannot be started.
    pub fn create_writer(&self, upload_record: Option<S3Path>) -> Result<AtomicWriter, StageError> {
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
    pub fn is_folder(&self) -> Result<bool, StageError> {
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
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote(remote) => PathBuf::from(remote.to_string()),
        }
    }

    /// The class of `error`, which the system or the store returned for this file.
    #[must_use]
    pub fn class_of(&self, error: &io::Error) -> ErrorClass {
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
    pub fn io_error(&self, error: io::Error) -> StageError {
        StageError::Io {
            path: self.to_path(),
            source: error,
        }
    }
}

/// The modification time of a file in nanoseconds since 1970; 0 if the system does not record it.
pub fn mtime_ns(metadata: &fs::Metadata) -> i64 {
    metadata
        .modified()
        .map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)
            }
        })
}

fn local_files(folder: &Path) -> Result<Vec<StoreEntry>, StageError> {
    let entries = match file_descriptors::open(|| fs::read_dir(folder)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StageError::io(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StageError::io(folder))?;
        let metadata = match fs::metadata(entry.path()) {
            // Another process has removed the file since the folder was read. The target of a link
            // must exist.
            Err(error) if error.kind() == ErrorKind::NotFound && is_gone(&entry.path()) => continue,
            metadata => metadata.map_err(StageError::io(entry.path()))?,
        };
        // latentflow writes only names in UTF-8, and an entry cannot represent another name.
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            files.push(StoreEntry {
                name,
                size: metadata.len(),
                mtime_ns: mtime_ns(&metadata),
                etag: None,
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether `text` begins with a scheme and `://`, and is thus not a local path.
pub fn is_url(text: &str) -> bool {
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_without_valid_scheme_is_a_path() {
        for path in ["photos", "/a//b", "a:b", "://x", "C:\\x", "my folder://x"] {
            assert_eq!(
                Location::parse(path).unwrap(),
                Location::Local(PathBuf::from(path))
            );
        }
    }

    #[test]
    fn tidy_path_keeps_its_target() {
        let cases = [
            ("in.csv", "in.csv"),
            ("./in//a/./b/", "in/a/b"),
            ("/", "/"),
            ("//data/.", "/data"),
            (".", "."),
            ("./", "."),
            ("../in/../b", "../in/../b"),
            ("in/**/*.{a,b}", "in/**/*.{a,b}"),
            ("s3://bucket//a/b/", "s3://bucket/a/b"),
            ("my folder://x", "my folder:/x"),
        ];
        for (path, expected) in cases {
            assert_eq!(tidy(path), expected);
        }
    }

    #[test]
    fn url_with_another_scheme_is_refused() {
        let refused = Location::parse("ftp://host/x").unwrap_err();
        let expected = if cfg!(feature = "object-store") {
            "unsupported scheme `ftp://`; expected `s3://bucket/prefix` or a local path"
        } else {
            "this build does not support object stores; build with `--features object-store`, or \
             use a local path"
        };
        assert_eq!(refused, expected);
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn build_without_object_stores_refuses_bucket_urls() {
        let refused = Location::parse("s3://bucket/x").unwrap_err();
        assert_eq!(
            refused,
            "this build does not support object stores; build with `--features object-store`, or \
             use a local path"
        );
    }

    #[test]
    fn small_file_is_read_back_and_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = Location::from(folder.path()).join("a/b.json");
        assert_eq!(file.read().unwrap(), None);
        file.put_if_absent(b"one").unwrap();
        file.put(b"two").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"two");
    }
}
