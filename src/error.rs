//! Errors that cross module borders: faults of a pipeline file, and failures of a running stage.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

/// A fault of a pipeline, found before the run starts.
///
/// `key` is a dotted path, relative to the table that was checked (`""` for the table itself).
/// Callers add their own prefix with [`ConfigError::within`], so that the path finally starts at
/// the top of the file, where its line is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the faulty key.
    pub key: String,
    /// The value that was met, the expected value and the remedy; lower case, no period at the end.
    pub message: String,
    /// Whether the environment is at fault rather than the pipeline: the same pipeline may be valid
    /// later.
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

    /// An error that occurred during planning, as a fault at `key`.
    pub fn from_error(key: impl Into<String>, error: &StageError) -> Self {
        // A response of a store can concern the pipeline as well: a bucket may not exist.
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

    /// The same fault, with its key relative to the table that holds `prefix`.
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

/// Records the faults of several checks, so that a user sees all of them together.
pub trait RecordFaults {
    /// Returns the value of a check, or records its fault.
    fn record<T>(&mut self, result: Result<T, ConfigError>) -> Option<T>;

    /// Returns the value of a check, or records its faults.
    fn record_all<T>(&mut self, result: Result<T, Vec<ConfigError>>) -> Option<T>;

    /// As [`RecordFaults::record_all`], for a check of the table that `prefix` holds.
    fn record_all_within<T>(
        &mut self,
        prefix: &str,
        result: Result<T, Vec<ConfigError>>,
    ) -> Option<T>;
}

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
    pub fn of_store(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Gone,
            ErrorKind::StaleNetworkFileHandle | ErrorKind::UnexpectedEof => Self::Record,
            ErrorKind::PermissionDenied => Self::Environment,
            _ => Self::Process,
        }
    }

    /// Whether the error is a verdict on the file, which is then rejected.
    #[must_use]
    pub fn concerns_file(self) -> bool {
        matches!(self, Self::Gone | Self::Record)
    }
}

/// An input that cannot be read now, for a reason that is not a verdict on the input.
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

/// Inputs that a source left unread because they could not be read. They are neither rejected nor
/// committed, so the next run reads them.
#[derive(Debug, Default)]
pub struct UnreadInputs {
    count: u64,
    examples: Vec<String>,
}

/// Maximum number of unread inputs that a message lists.
const NAMED: usize = 5;

impl UnreadInputs {
    /// Leaves an input to the next run, and logs a warning.
    ///
    /// # Errors
    /// Returns errors that concern the entire process, after which no other input can be read.
    pub fn leave(&mut self, unavailable: UnavailableInput) -> Result<(), StageError> {
        if unavailable.class == ErrorClass::Process {
            return Err(unavailable.into());
        }
        tracing::warn!(input = %unavailable, "cannot read an input; the next run retries it");
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
        let (inputs, pronoun) = if self.count == 1 {
            ("input", "it")
        } else {
            ("inputs", "them")
        };
        write!(
            f,
            "{} {inputs} could not be read; the next run retries {pronoun}: {}",
            self.count,
            self.examples.join("; ")
        )?;
        match self.count - self.examples.len() as u64 {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
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
    /// The user declined the inputs that the source would read; the run did not start.
    #[error("{0}")]
    Refused(String),
    /// Any other error, as a sentence.
    #[error("{0}")]
    Other(String),
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
    /// Whether the environment caused the error, and not the records that a stage processes.
    #[must_use]
    pub fn is_of_environment(&self) -> bool {
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
