//! Errors that cross module borders: faults of a pipeline file, and failures of a running stage.

pub mod code;
pub mod config_error;
pub mod failure;
pub mod unavailable;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::error::code::ErrorCode;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::error::unavailable::{UnavailableInput, UnreadInputs};

impl RecordFaults for Vec<ConfigError> {
    fn record<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        self.record_all(result.map_err(|fault| vec![fault]))
    }

    fn record_all<T>(&mut self, result: Result<T, Vec<ConfigError>>) -> Option<T> {
        self.record_all_within("", result)
    }

    fn record_all_within<T>(
        &mut self,
        prefix: &str,
        result: Result<T, Vec<ConfigError>>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(faults) => {
                self.extend(faults.into_iter().map(|fault| fault.within(prefix)));
                None
            }
        }
    }
}

/// The object that an I/O error concerns. The class decides between a reject, a later attempt, and
/// the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The entire process: file descriptors or memory are exhausted, or a store is unreachable.
    Process,
    /// The location of one file: permissions, a device, a file server. The error is not a verdict
    /// on the file, which may be readable later.
    Environment,
    /// The file no longer exists.
    Gone,
    /// The content of the file.
    Record,
}

impl ErrorClass {
    /// The class of an error that the operating system returned for a local file.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
        let is = |code: i32, errno: Errno| cfg!(unix) && errno.raw_os_error() == code;
        match error.raw_os_error() {
            _ if error.kind() == ErrorKind::OutOfMemory => Self::Process,
            // Libraries construct such errors from the content that they read.
            None => Self::Record,
            Some(code) if exhausted.iter().any(|&errno| is(code, errno)) => Self::Process,
            // A symbolic link that refers to itself does not refer to a file.
            Some(code) if is(code, Errno::LOOP) => Self::Gone,
            Some(_) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                    Self::Gone
                }
                // Offsets and names that the content specifies.
                ErrorKind::InvalidInput | ErrorKind::InvalidFilename => Self::Record,
                _ => Self::Environment,
            },
        }
    }

    /// The class of an error that an object store returned: a refusal concerns one object, a
    /// missing response concerns all of them.
    #[must_use]
    pub(crate) fn of_store(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Gone,
            ErrorKind::StaleNetworkFileHandle | ErrorKind::UnexpectedEof => Self::Record,
            ErrorKind::PermissionDenied => Self::Environment,
            _ => Self::Process,
        }
    }

    /// Whether the error is a verdict on the file, which is then rejected.
    #[must_use]
    pub(crate) fn concerns_file(self) -> bool {
        matches!(self, Self::Gone | Self::Record)
    }
}

impl From<UnavailableInput> for StageError {
    fn from(UnavailableInput { path, error, .. }: UnavailableInput) -> Self {
        Self::Io {
            path,
            source: error,
        }
    }
}

/// The reason why a stage cannot continue. The topology adds the name of the stage.
///
/// A record that a stage cannot process is not an error: it is rejected with a reason, and the
/// remaining records continue.
#[derive(Debug, Error)]
pub enum StageError {
    /// The operating system returned an error.
    #[error("{}: {source}{}", path.display(), hint(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Arrow failed on an operation that the plan had checked.
    #[error("{0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A Parquet file could not be read or written.
    #[error("{0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// ONNX Runtime failed to load or run a model.
    #[error("{0}")]
    Model(String),
    /// Memory is exhausted; the text states the requested size and how to reduce it.
    #[error("{0}")]
    Memory(String),
    /// The reader of standard output, such as `head`, has closed it.
    #[error("standard output was closed")]
    OutputClosed,
    /// Some inputs could not be read; all others were.
    #[error("{0}")]
    Unread(UnreadInputs),
    /// Any other error: its code, and a sentence that names the cause, the place and the remedy.
    #[error("{message}")]
    Coded {
        /// The stable code.
        code: ErrorCode,
        /// The sentence.
        message: String,
    },
}

impl ErrorCode {
    /// The code of an error of the operating system or of a store.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                ErrorCode::DiskFull
            }
            ErrorKind::NotFound => ErrorCode::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                ErrorCode::PermissionDenied
            }
            ErrorKind::OutOfMemory => ErrorCode::MemoryExhausted,
            // The kind that `storage` gives to requests without a response.
            ErrorKind::NotConnected => ErrorCode::StoreUnreachable,
            _ => match error.raw_os_error().filter(|_| cfg!(unix)) {
                Some(code)
                    if [Errno::MFILE, Errno::NFILE]
                        .map(Errno::raw_os_error)
                        .contains(&code) =>
                {
                    ErrorCode::TooManyFiles
                }
                _ => ErrorCode::Io,
            },
        }
    }
}

/// The remedy for an I/O error; empty if none is known.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free disk space or write to another path, then run again; committed records are kept"
        }
        ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (ulimit -f) or lower `file.bytes`, then run \
             again; committed records are kept"
        }
        ErrorKind::NotFound => {
            "; the path or a folder above it was moved or removed: restore it, then run again"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; a file exists in place of a folder: move the file away, or use another path"
        }
        ErrorKind::PermissionDenied => {
            "; grant access to the user that latentflow runs as, or use another path"
        }
        ErrorKind::ReadOnlyFilesystem => "; use a path on a writable file system",
        ErrorKind::OutOfMemory => "; free memory, or lower `limits.memory`, then run again",
        _ => match error
            .raw_os_error()
            .filter(|_| cfg!(unix))
            .map(Errno::from_raw_os_error)
        {
            Some(Errno::MFILE | Errno::NFILE) => {
                "; raise the limit on open files (ulimit -n), then run again"
            }
            Some(
                Errno::IO
                | Errno::STALE
                | Errno::TIMEDOUT
                | Errno::HOSTDOWN
                | Errno::NODEV
                | Errno::NXIO,
            ) => "; check the device or the file server of this path, then run again",
            _ => "",
        },
    }
}

impl StageError {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Coded {
            code,
            message: message.into(),
        }
    }

    /// For `map_err`: makes an error with this code from a message.
    pub(crate) fn with_code(code: ErrorCode) -> impl Fn(String) -> Self {
        move |message| Self::Coded { code, message }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => ErrorCode::of_io(source),
            Self::Arrow(_) => ErrorCode::Arrow,
            Self::Parquet(_) => ErrorCode::Parquet,
            Self::Model(_) => ErrorCode::Model,
            Self::Memory(_) => ErrorCode::MemoryExhausted,
            Self::OutputClosed => ErrorCode::OutputClosed,
            Self::Unread(_) => ErrorCode::InputUnreadable,
            Self::Coded { code, .. } => *code,
        }
    }

    /// Whether the environment caused the error, and not the records that a stage processes.
    #[must_use]
    pub(crate) fn is_of_environment(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Memory(_) | Self::OutputClosed | Self::Unread(_)
        )
    }

    /// For `map_err`: adds the path of the file or folder that an I/O error concerns.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}
