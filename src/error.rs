//! Errors that cross module borders: faults of a pipeline file, and failures of a running stage.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

/// One thing wrong with a pipeline, found before anything starts.
///
/// `key` is a dotted path, relative to the table that the finder was given (`""` for the table
/// itself); callers put their own prefix before it with [`ConfigError::within`], so that it ends as
/// the full path from the top of the file, where its line is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the key that is wrong.
    pub key: String,
    /// What was met, what was expected, what to do; lower-case, no full stop.
    pub message: String,
    /// Whether the environment is at fault rather than the pipeline: the same pipeline may be
    /// planned later.
    pub is_of_environment: bool,
}

impl ConfigError {
    /// A fault at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            is_of_environment: false,
        }
    }

    /// An error that planning met, as a fault at `key`.
    pub fn from_error(key: impl Into<String>, error: &StageError) -> Self {
        // An answer of a store can concern the pipeline as well: a bucket may not exist.
        let is_of_environment = match error {
            StageError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    ErrorKind::NotConnected | ErrorKind::PermissionDenied
                ) || !ErrorClass::of(source).concerns_file()
            }
            error => error.is_of_environment(),
        };
        Self {
            is_of_environment,
            ..Self::new(key, error.to_string())
        }
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

/// What an I/O error says something about. The class decides between a reject, a later attempt, and
/// the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The process as a whole: file descriptors or memory are exhausted, or a store is out of
    /// reach.
    Process,
    /// The place of one file: permissions, a device, a file server. It is not a verdict on the
    /// file, which may be readable later.
    Environment,
    /// The file does not exist any more.
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
            // Libraries construct such errors from what they read.
            None => Self::Record,
            Some(code) if exhausted.iter().any(|&errno| is(code, errno)) => Self::Process,
            // A link that leads to itself leads to no file.
            Some(code) if is(code, Errno::LOOP) => Self::Gone,
            Some(_) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                    Self::Gone
                }
                // Offsets and names that the content demands.
                ErrorKind::InvalidInput | ErrorKind::InvalidFilename => Self::Record,
                _ => Self::Environment,
            },
        }
    }

    /// The class of an error that an object store returned: a refusal concerns one object, silence
    /// concerns all.
    #[must_use]
    pub fn of_store(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Gone,
            ErrorKind::StaleNetworkFileHandle | ErrorKind::UnexpectedEof => Self::Record,
            ErrorKind::PermissionDenied => Self::Environment,
            _ => Self::Process,
        }
    }

    /// Whether the error is a verdict on the file, which is rejected for it.
    #[must_use]
    pub fn concerns_file(self) -> bool {
        matches!(self, Self::Gone | Self::Record)
    }
}

/// An input that cannot be read now, for a reason that is not a verdict on it.
#[derive(Debug)]
pub struct UnavailableInput {
    /// The location that was read.
    pub path: PathBuf,
    /// [`ErrorClass::Process`] or [`ErrorClass::Environment`].
    pub class: ErrorClass,
    /// The error of the system or the store.
    pub error: io::Error,
}

impl UnavailableInput {
    /// Separates errors of the environment from verdicts on the file.
    ///
    /// # Errors
    /// Returns `error` itself if it is a verdict on the file.
    pub fn from_error(
        path: PathBuf,
        class: ErrorClass,
        error: io::Error,
    ) -> Result<Self, io::Error> {
        if class.concerns_file() {
            Err(error)
        } else {
            Ok(Self { path, class, error })
        }
    }
}

impl fmt::Display for UnavailableInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}{}",
            self.path.display(),
            self.error,
            hint(&self.error)
        )
    }
}

impl UnavailableInput {
    /// The error of a source that has nothing else to read.
    #[must_use]
    pub fn to_stage_error(&self) -> StageError {
        let error = match self.error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.error.kind(), self.error.to_string()),
        };
        StageError::Io {
            path: self.path.clone(),
            source: error,
        }
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

/// Inputs that a source left undone because they could not be read. They are neither rejected nor
/// committed, so the next run reads them.
#[derive(Debug, Default)]
pub struct UnreadInputs {
    count: u64,
    examples: Vec<String>,
}

/// Unread inputs that a message names.
const NAMED: usize = 5;

impl UnreadInputs {
    /// Leaves an input to the next run, and logs a warning.
    ///
    /// # Errors
    /// What concerns the whole process: then no other input is read either.
    pub fn leave(&mut self, unavailable: UnavailableInput) -> Result<(), StageError> {
        if unavailable.class == ErrorClass::Process {
            return Err(unavailable.into());
        }
        tracing::warn!("{unavailable}; the next run reads what is missing");
        self.add(&unavailable);
        Ok(())
    }

    fn add(&mut self, unavailable: &UnavailableInput) {
        self.count += 1;
        if self.examples.len() < NAMED {
            self.examples.push(unavailable.to_string());
        }
    }

    /// Adds the inputs of another source.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(NAMED);
    }

    /// The number of inputs.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The result of a source that read everything else.
    ///
    /// # Errors
    /// [`StageError::Unread`] if there is at least one input.
    pub fn into_result(self) -> Result<(), StageError> {
        if self.count == 0 {
            Ok(())
        } else {
            Err(StageError::Unread(self))
        }
    }
}

impl fmt::Display for UnreadInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs = if self.count == 1 { "input" } else { "inputs" };
        write!(
            f,
            "{} {inputs} could not be read; the next run reads what is missing: {}",
            self.count,
            self.examples.join("; ")
        )?;
        match self.count - self.examples.len() as u64 {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Why a stage cannot go on. The stage's name is added once, by the topology.
///
/// A record that a stage cannot use is no error: it is rejected with its reason and the rest goes
/// on.
#[derive(Debug, Error)]
pub enum StageError {
    /// The operating system refused something.
    #[error("{}: {source}{}", path.display(), hint(source))]
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
    /// Memory is exhausted: how much was asked for, and how to need less.
    #[error("{0}")]
    Memory(String),
    /// Nobody reads what is printed any more: an end that the reader chose, such as `head`.
    #[error("standard output was closed")]
    OutputClosed,
    /// Inputs could not be read; everything else was.
    #[error("{0}")]
    Unread(UnreadInputs),
    /// The user refuses what the source would read; nothing was started.
    #[error("{0}")]
    Refused(String),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

/// What to do about an I/O error, where that is known.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room or write to another path, then run again: what was committed stays"
        }
        ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (ulimit -f) or lower `file.bytes`, then run again: \
             what was committed stays"
        }
        ErrorKind::NotFound => {
            "; it, or a folder above it, was moved or removed: put it back, then run again"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; a file is in the way of a folder: move it away, or name another path"
        }
        ErrorKind::PermissionDenied => {
            "; allow it to the user that latentflow runs as, or name another path"
        }
        ErrorKind::ReadOnlyFilesystem => "; name a path on a file system that can be written",
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
            ) => "; check the device or the file server that holds it, then run again",
            _ => "",
        },
    }
}

impl StageError {
    /// Whether the error is caused by the environment and not by the records that a stage works on.
    #[must_use]
    pub fn is_of_environment(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Memory(_) | Self::OutputClosed | Self::Unread(_)
        )
    }

    /// For `map_err`: names the file or folder that an I/O error is about.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}
