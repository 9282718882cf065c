//! The lock of an output folder: one writer at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, state_file};
use crate::sink::STATE_DIR;
use crate::storage::mounts::FolderId;

/// Held as long as it lives; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
    folder: PathBuf,
    id: FolderId,
}

impl FileLock {
    /// Takes the lock of a sink's folder, which is made where it is missing.
    ///
    /// # Errors
    /// When another writer holds it, or the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self, StageError> {
        let state = folder.join(STATE_DIR);
        create_dir_all_synced(&state)?;
        let path = state.join("lock");
        let file = state_file()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(StageError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {
                let id = FolderId::of(folder).map_err(StageError::io(folder))?;
                Ok(Self {
                    _file: file,
                    folder: folder.to_path_buf(),
                    id,
                })
            }
            Err(TryLockError::WouldBlock) => Err(StageError::Other(format!(
                "{}: another sink is writing here, of this pipeline or of one that runs at this moment; \
                 wait for it to end, or write to another path",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(StageError::io(&path)(error)),
        }
    }

    /// Checks that the folder is the one that was locked, before anything is made visible in it.
    ///
    /// # Errors
    /// When it was moved or replaced, or another file system was mounted over it.
    pub fn check(&self) -> Result<(), StageError> {
        if FolderId::of(&self.folder).map_err(StageError::io(&self.folder))? == self.id {
            return Ok(());
        }
        Err(StageError::Other(format!(
            "{}: this is another folder than the one that the run began to write to: it was replaced, or a disk was mounted or \
             unmounted there; what is not committed is read again by the next run",
            self.folder.display()
        )))
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
        let first = FileLock::take(&output).unwrap();
        let error = FileLock::take(&output).unwrap_err().to_string();
        assert!(
            error.contains("another sink is writing here") && error.contains("a/b"),
            "{error}"
        );
        drop(first);
        FileLock::take(&output).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn folder_that_was_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let lock = FileLock::take(&output).unwrap();
        lock.check().unwrap();
        std::fs::rename(&output, folder.path().join("moved")).unwrap();
        lock.check().unwrap_err();
        std::fs::create_dir(&output).unwrap();
        let error = lock.check().unwrap_err().to_string();
        assert!(error.contains("another folder than the one"), "{error}");
    }
}
