//! The work folder inside a model folder: the lock of the training, its checkpoint and its prepared
//! data. It is removed when the training is complete.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::TrainError;
use super::checkpoint::TrainingCheckpoint;
use crate::error::StageError;
use crate::fs_durable::{
    create_dir_all_synced, fsync_dir, remove_dir_all_if_exists, try_lock_file,
};
use crate::model::card::CARD;

/// The work folder of a training, locked until it is dropped.
pub(crate) struct WorkFolder {
    path: PathBuf,
    model: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";
/// Maximum number of attempts to lock a folder that other trainings remove.
const MAX_ATTEMPTS: u32 = 100;

impl WorkFolder {
    /// Returns the path of the work folder of a model folder.
    pub(crate) fn path_in(model: &Path) -> PathBuf {
        model.join(".training")
    }

    /// Creates the work folder of a model folder, or opens the one of an earlier run. With
    /// `restart`, its contents are removed.
    ///
    /// # Errors
    /// When another training has locked the folder, or the folder cannot be written.
    pub fn acquire(model: &Path, restart: bool) -> Result<Self, TrainError> {
        let path = Self::path_in(model);
        let lock_path = path.join(LOCK);
        let mut attempts = 0;
        let lock = loop {
            attempts += 1;
            create_dir_all_synced(&path)?;
            match try_lock_file(&lock_path) {
                Ok(Some(file)) if attempts > MAX_ATTEMPTS || is_at(&file, &lock_path) => {
                    break file;
                }
                // Another training has removed its folder since the file was opened.
                Ok(Some(_)) => {}
                Ok(None) => return Err(TrainError::Locked(model.display().to_string())),
                // Another training has removed the folder since it was created.
                Err(error) if error.kind() == ErrorKind::NotFound && attempts <= MAX_ATTEMPTS => {}
                Err(error) => return Err(StageError::io(&lock_path)(error).into()),
            }
        };
        let work = Self {
            path,
            model: model.to_path_buf(),
            _lock: lock,
        };
        if restart {
            work.clear()?;
        }
        Ok(work)
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder in which a model is written and measured before it is moved to the model
    /// folder.
    ///
    /// # Errors
    /// When the folder cannot be created, or the files of an earlier run cannot be removed.
    pub(crate) fn staging(&self) -> Result<PathBuf, StageError> {
        let staging = self.path.join("model");
        remove_dir_all_if_exists(&staging)?;
        create_dir_all_synced(&staging)?;
        Ok(staging)
    }

    /// Moves the files of a complete model to the model folder, the card last: until then, its
    /// digests do not match the files, so the folder is refused.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub(crate) fn publish(&self, staging: &Path) -> Result<(), StageError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(staging).map_err(StageError::io(staging))? {
            names.push(entry.map_err(StageError::io(staging))?.file_name());
        }
        names.sort_by_key(|name| name == CARD);
        for name in names {
            let from = staging.join(&name);
            fs::rename(&from, self.model.join(&name)).map_err(StageError::io(&from))?;
        }
        fsync_dir(&self.model)?;
        remove_dir_all_if_exists(staging)
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(self) -> Result<(), StageError> {
        remove_dir_all_if_exists(&self.path)
    }

    /// Removes the folder after a training that has ended without a checkpoint, and the model
    /// folder if it is empty. Prepared data is kept if `keep_data` is true, as the next run uses it
    /// again.
    pub fn discard(self, keep_data: bool) {
        let has_checkpoint = TrainingCheckpoint::path(&self.path).exists();
        let has_data = self.path.join("data/manifest.json").exists();
        if has_checkpoint || (keep_data && has_data) {
            return;
        }
        // The training has ended for another reason, which is reported.
        if remove_dir_all_if_exists(&self.path).is_ok() {
            let _ = fs::remove_dir(&self.model);
        }
    }

    /// Removes everything except the lock.
    fn clear(&self) -> Result<(), StageError> {
        for entry in fs::read_dir(&self.path).map_err(StageError::io(&self.path))? {
            let entry = entry.map_err(StageError::io(&self.path))?;
            let path = entry.path();
            if path.is_dir() {
                remove_dir_all_if_exists(&path)?;
            } else if entry.file_name() != LOCK {
                fs::remove_file(&path).map_err(StageError::io(&path))?;
            }
        }
        Ok(())
    }
}

/// Whether `path` still leads to the open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => id(own) == id(there),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn second_training_into_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m");
        let first = WorkFolder::acquire(&model, false).unwrap();
        fs::write(first.path().join("a"), "x").unwrap();
        for restart in [false, true] {
            let refused = WorkFolder::acquire(&model, restart).err().unwrap();
            assert!(
                matches!(refused, TrainError::Locked(_)),
                "{refused} with restart {restart}"
            );
        }
        assert!(first.path().join("a").exists());
        drop(first);
        let next = WorkFolder::acquire(&model, true).unwrap();
        assert!(!next.path().join("a").exists());
        next.discard(true);
        assert!(!model.exists(), "an empty model folder is removed");
    }

    #[test]
    fn discard_keeps_checkpoint_model_and_complete_data() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m");
        let work = || WorkFolder::acquire(&model, false).unwrap();
        let path = WorkFolder::path_in(&model);
        fs::create_dir_all(path.join("data")).unwrap();
        fs::write(path.join("data/manifest.json"), "{}").unwrap();
        work().discard(true);
        assert!(path.join("data/manifest.json").exists());
        fs::write(TrainingCheckpoint::path(&path), "x").unwrap();
        work().discard(false);
        assert!(TrainingCheckpoint::path(&path).exists());
        fs::remove_file(TrainingCheckpoint::path(&path)).unwrap();
        fs::write(model.join(CARD), "").unwrap();
        work().discard(false);
        assert!(!path.exists() && model.join(CARD).exists());
    }
}
