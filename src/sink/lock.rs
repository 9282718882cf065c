//! The lock of an output folder: one writer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::durable::create_folders;
use crate::error::StageError;
use crate::sink::STATE;

/// Held as long as it lives; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a sink's folder, which is made where it is missing.
    ///
    /// # Errors
    /// When another writer holds it, or the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self, StageError> {
        let state = folder.join(STATE);
        create_folders(&state)?;
        let path = state.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(StageError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StageError::Other(format!(
                "{}: another sink is writing here, of this pipeline or of one that runs at this moment; \
                 wait for it to end, or write to another path",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(StageError::io(&path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_writer_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a/b");
        let first = Lock::take(&output).unwrap();
        let error = Lock::take(&output).unwrap_err().to_string();
        assert!(error.contains("another sink is writing here") && error.contains("a/b"), "{error}");
        drop(first);
        Lock::take(&output).unwrap();
    }
}
