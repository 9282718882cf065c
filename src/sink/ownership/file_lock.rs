//! The lock of an output folder, which admits one writer at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{create_dir_all_synced, try_lock_file};
use crate::sink::STATE_DIR;
use crate::sink::ownership::shard_marker;
use crate::storage::Location;
use crate::storage::mounts::FolderId;

/// The name of the lock in the folder of the state.
pub(crate) const LOCK: &str = "lock";

/// A lock that is held until it is dropped. The system releases it when the process ends or
/// crashes.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
    folder: PathBuf,
    id: FolderId,
}

impl FileLock {
    /// Acquires the lock of a sink's folder, and creates the folder if it does not exist.
    ///
    /// # Errors
    /// If another writer holds the lock, if the folder holds the folders of shards, or if the
    /// folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self, StageError> {
        let state = folder.join(STATE_DIR);
        create_dir_all_synced(&state)?;
        let path = state.join(LOCK);
        let Some(file) = try_lock_file(&path).map_err(StageError::io(&path))? else {
            return Err(StageError::new(
                ErrorCode::OutputLocked,
                format!(
                    "{}: another sink of this pipeline or of another running pipeline is writing to \
                 this folder; wait until it ends, or use another path",
                    folder.display()
                ),
            ));
        };
        shard_marker::check_undivided(&Location::from(folder))?;
        Ok(Self {
            _file: file,
            folder: folder.to_path_buf(),
            id: FolderId::from_path(folder).map_err(StageError::io(folder))?,
        })
    }

    /// Checks that the path still leads to the locked folder. Called before files become visible.
    ///
    /// # Errors
    /// If the folder was moved or replaced, or if another file system was mounted over it.
    pub fn check(&self) -> Result<(), StageError> {
        if FolderId::from_path(&self.folder).map_err(StageError::io(&self.folder))? == self.id {
            return Ok(());
        }
        Err(StageError::new(
            ErrorCode::OutputReplaced,
            format!(
                "{}: the folder is not the one that the run started to write to: it was replaced, or a \
             disk was mounted or unmounted there; the next run reads the uncommitted rows again",
                self.folder.display()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn second_lock_is_refused_until_the_first_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a/b");
        let first = FileLock::acquire(&output).unwrap();
        let error = FileLock::acquire(&output).unwrap_err().to_string();
        assert!(
            error.contains("a/b: another sink of this pipeline or of another running pipeline"),
            "{error}"
        );
        drop(first);
        FileLock::acquire(&output).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn check_of_replaced_folder_fails() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let lock = FileLock::acquire(&output).unwrap();
        lock.check().unwrap();
        std::fs::rename(&output, folder.path().join("moved")).unwrap();
        lock.check().unwrap_err();
        std::fs::create_dir(&output).unwrap();
        let error = lock.check().unwrap_err().to_string();
        assert!(
            error.contains("out: the folder is not the one that the run started to write to"),
            "{error}"
        );
    }
}
