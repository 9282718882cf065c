//! Errors that cross module borders: faults of a pipeline file, and failures of a running stage.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// One thing wrong with a pipeline, found before anything starts.
///
/// `key` is a dotted path, relative to the table that the finder was given (`""` for the table itself);
/// callers put their own prefix before it with [`Fault::within`], so that it ends as the full path
/// from the top of the file, where its line is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path of the key that is wrong.
    pub key: String,
    /// What was met, what was expected, what to do; lower-case, no full stop.
    pub message: String,
}

impl Fault {
    /// A fault at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// The same fault, seen from the table that holds `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        if self.key.is_empty() {
            self.key = prefix.to_owned();
        } else if !prefix.is_empty() {
            self.key = format!("{prefix}.{}", self.key);
        }
        self
    }
}

/// Why a stage cannot go on. The stage's name is added once, by the topology.
///
/// A record that a stage cannot use is no error: it is rejected with its reason and the rest goes on.
#[derive(Debug, Error)]
pub enum StageError {
    /// The operating system refused something.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Arrow could not do what the plan promised it could.
    #[error("{0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A Parquet file could not be read or written.
    #[error("{0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// ONNX Runtime failed to load or run a model.
    #[error("{0}")]
    Model(String),
    /// Nobody reads what is printed any more: an end that the reader chose, such as `head`.
    #[error("standard output was closed")]
    OutputClosed,
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

/// What to do about an I/O error, where that is known.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room or write to another path, then run again: what was committed stays"
        }
        ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (ulimit -f) or lower `file.bytes`, then run again: \
             what was committed stays"
        }
        ErrorKind::NotFound => "; it, or a folder above it, was moved or removed: put it back, then run again",
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; a file is in the way of a folder: move it away, or name another path"
        }
        ErrorKind::PermissionDenied => "; allow it to the user that latentflow runs as, or name another path",
        ErrorKind::ReadOnlyFilesystem => "; name a path on a file system that can be written",
        _ => "",
    }
}

impl StageError {
    /// For `map_err`: names the file or folder that an I/O error is about.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_path_buf(), source }
    }
}
