//! Where bytes lie: in a folder of this machine, or under a prefix of a bucket. Nothing outside
//! knows which it is.

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

/// A folder or file of this machine, or a prefix or object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path.
    Local(PathBuf),
    /// `s3://bucket/key`.
    Remote(S3Path),
}

/// An object, as a listing knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// Its key below the prefix that was listed, `/` between parts.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// What the store calls this content, without quotes, where it says so.
    pub etag: Option<String>,
}

/// The objects below a prefix.
#[derive(Debug, Default)]
pub struct ObjectListing {
    /// Those that can be read, in any order.
    pub entries: Vec<StoreEntry>,
    /// Those that cannot, because of their keys.
    pub unusable: UnusableKeys,
}

/// Objects with keys that no file could have: an empty part, a part `.` or `..`, a control
/// character, white space or a slash at an end, or bytes that are not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnusableKeys {
    /// How many there are.
    pub count: u64,
    /// One of them.
    pub example: Option<String>,
}

impl UnusableKeys {
    /// Adds those of another page.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.example = self.example.take().or(other.example);
    }
}

/// Objects that are asked for together: while one is read, those after it are on their way.
pub const MAX_CONCURRENT_REQUESTS: usize = 16;
/// What reading objects takes at most: the blocks of one and the ends of those after it, or small
/// ones that are read together.
const READING_BYTES: u64 = 68 << 20;
/// What an object that is being written takes: the part that is filled, and the one that is on its
/// way.
const WRITING_BYTES: u64 = 16 << 20;

/// Bytes that it takes to read from `path`, beside what was read.
pub fn reading_bytes(path: &str) -> u64 {
    if is_url(path) { READING_BYTES } else { 0 }
}

/// A path, glob or URL in one form, as far as its letters say: without `.`, doubled slashes and a
/// slash at the end. What `..` leads to is for the file system to say.
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

/// What stands before the path of a location that is none of this machine.
const SCHEME: &str = "://";

impl Location {
    /// Understands `s3://bucket/prefix`, and takes all else for a path.
    ///
    /// # Errors
    /// What is wrong, where it is a URL of another kind, without a bucket, or one that this build
    /// cannot reach.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_url(text) {
            S3Path::parse(text).map(Self::Remote)
        } else {
            Ok(Self::Local(PathBuf::from(text)))
        }
    }

    /// As [`Location::parse`], of what was written where a path is expected.
    ///
    /// # Errors
    /// As there.
    pub fn from_path(path: &Path) -> Result<Self, String> {
        path.to_str()
            .map_or_else(|| Ok(Self::from(path)), Self::parse)
    }

    /// What is called `name` below this; `/` stands between folders.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::Remote(remote) => Self::Remote(remote.join(name)),
        }
    }

    /// Bytes that it takes to write a file here, beside those of who writes it.
    pub fn writing_bytes(&self) -> u64 {
        if self.local().is_some() {
            0
        } else {
            WRITING_BYTES
        }
    }

    /// The path, if it is one.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Opens the file. An object is read as it was when its `size` and `etag` were listed, or not
    /// at all.
    ///
    /// # Errors
    /// When the system refuses; what is wrong with an object shows when it is read.
    pub fn open(&self, size: u64, etag: Option<&str>) -> io::Result<FileReader> {
        match self {
            Self::Local(path) => file_descriptors::open(|| fs::File::open(path))
                .map(|file| FileReader::of_size(file, size)),
            Self::Remote(remote) => Ok(FileReader::Object(remote.block_reader(size, etag))),
        }
    }

    /// All bytes of a small file; `None` where there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
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

    /// Puts a small file in place of what is there, durably and at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<(), StageError> {
        match self {
            Self::Local(path) => write_atomically(path, bytes),
            Self::Remote(remote) => remote.put(bytes).map_err(|error| self.io_error(error)),
        }
    }

    /// Puts a small file where there is none. A folder of this machine is guarded by its lock; in a
    /// bucket the store decides who was first.
    ///
    /// # Errors
    /// When it cannot be written, or another writer has written it.
    pub fn put_if_absent(&self, bytes: &[u8]) -> Result<(), StageError> {
        match self {
            Self::Local(path) => write_atomically(path, bytes),
            Self::Remote(remote) => match remote.put_if_absent(bytes) {
                Ok(true) => Ok(()),
                Ok(false) => Err(StageError::Other(format!(
                    "{self}: another run has just written this; wait for it to end, and run again"
                ))),
                Err(error) => Err(self.io_error(error)),
            },
        }
    }

    /// Begins a file that is there once it is finished. In a bucket `note` says, until then, what
    /// it takes to give it up.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create_writer(&self, note: Option<S3Path>) -> Result<AtomicWriter, StageError> {
        AtomicWriter::begin(self, note)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
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

    /// Whether the folder is there: a prefix is where an object lies below it.
    ///
    /// # Errors
    /// When a store cannot be asked.
    pub fn is_folder(&self) -> Result<bool, StageError> {
        match self {
            Self::Local(path) => Ok(path.is_dir()),
            Self::Remote(remote) => remote.has_objects().map_err(|error| self.io_error(error)),
        }
    }

    /// What is known of a file; `None` where there is no such file, or it is a folder.
    ///
    /// # Errors
    /// When the system cannot be asked.
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

    /// The files directly in a folder, by name; none where there is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files(&self) -> Result<Vec<StoreEntry>, StageError> {
        match self {
            Self::Local(path) => local_files(path),
            Self::Remote(remote) => remote.children().map_err(|error| self.io_error(error)),
        }
    }

    /// As it would be written where a path is expected: what [`Location::from_path`] understands.
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote(remote) => PathBuf::from(remote.to_string()),
        }
    }

    /// What `error`, returned by the system or the store for this file, says something about.
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
    /// `error` itself if it is a verdict on the file.
    pub fn unavailable(&self, error: io::Error) -> Result<UnavailableInput, io::Error> {
        UnavailableInput::from_error(self.to_path(), self.class_of(&error), error)
    }

    /// An I/O error of this file.
    pub fn io_error(&self, error: io::Error) -> StageError {
        StageError::Io {
            path: self.to_path(),
            source: error,
        }
    }
}

/// The time of a file's last change, in nanoseconds since 1970; 0 where the system does not keep
/// it.
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
        let metadata = fs::metadata(entry.path()).map_err(StageError::io(entry.path()))?;
        // A name that is no UTF-8 is none of ours, nor one that could be joined to the folder
        // again.
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

/// Whether `text` names something that is no path of this machine.
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
    fn what_is_no_url_is_a_path() {
        for path in ["photos", "/a//b", "a:b", "://x", "C:\\x", "my folder://x"] {
            assert_eq!(
                Location::parse(path).unwrap(),
                Location::Local(PathBuf::from(path))
            );
        }
    }

    #[test]
    fn a_tidy_path_leads_where_it_led() {
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
    fn a_url_of_another_kind_is_refused() {
        let refused = Location::parse("ftp://host/x").unwrap_err();
        assert!(
            refused.contains("s3://bucket/prefix") || refused.contains("--features object-store"),
            "{refused}"
        );
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn a_build_without_object_stores_says_so() {
        let refused = Location::parse("s3://bucket/x").unwrap_err();
        assert_eq!(
            refused,
            "this build has no object stores; build with `--features object-store`, or name a path"
        );
    }

    #[test]
    fn small_files_are_read_back_and_missing_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = Location::from(folder.path()).join("a/b.json");
        assert_eq!(file.read().unwrap(), None);
        file.put_if_absent(b"one").unwrap();
        file.put(b"two").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"two");
    }
}
