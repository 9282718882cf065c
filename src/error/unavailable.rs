//! Inputs that cannot be read at present, and the inputs that a run left unread.

use std::path::PathBuf;
use std::{fmt, io};

use crate::error::{ErrorClass, StageError, hint};

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
    pub(crate) fn to_stage_error(&self) -> StageError {
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
    pub(crate) fn leave(&mut self, unavailable: UnavailableInput) -> Result<(), StageError> {
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
    pub(crate) fn into_result(self) -> Result<(), StageError> {
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
