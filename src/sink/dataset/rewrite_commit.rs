//! The replacement of files of a dataset by one file with the same rows, which is journaled so that
//! a later process can complete or revert it after a crash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{
    create_dir_all_synced, failpoint, fsync_dir, read_if_exists, remove_file_if_exists, state_file,
    write_atomically,
};
use crate::json::to_json;
use crate::sink::STATE_DIR;
use crate::sink::ownership::writer_lease::part_number;
use crate::storage::Location;

/// The folder next to the data files in which new files are written. It is not below [`STATE_DIR`],
/// since a run that starts removes temporary files there. Its underscore hides it from readers.
pub(crate) const STAGING_DIR: &str = "_latentflow-compact";
const INTENT: &str = "exchange.json";
const LOCK: &str = "exchange-lock";

/// Takes the lock that prevents the replacement of files while a caller reads all files of a
/// folder. A compaction waits until the lock is dropped. Returns `None` if no file was ever
/// replaced, or if the lock cannot be taken.
pub(crate) fn shared_read_lock(location: &Location) -> Option<File> {
    let lock = File::open(location.local()?.join(STATE_DIR).join(LOCK)).ok()?;
    lock.lock_shared().ok()?;
    Some(lock)
}

/// The exclusive lock that is held while files are replaced, or while they are read by a caller
/// that must not see an incomplete replacement.
pub(crate) struct RewriteCommit {
    folder: PathBuf,
    _lock: File,
}

/// The journal entry of a replacement, which is written before the first file is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RewriteIntent {
    /// The name of the new file, which is that of the last of `inputs`.
    pub(crate) merged: String,
    /// The size of the new file in bytes.
    pub(crate) bytes: u64,
    /// The files whose rows the new file has.
    pub(crate) inputs: Vec<String>,
}

impl RewriteCommit {
    /// Waits for the lock of `folder`, and completes or reverts an interrupted replacement.
    ///
    /// # Errors
    /// If a file cannot be read, written or removed, or if the files do not match the journal
    /// entry.
    pub(crate) fn begin(folder: &Path) -> Result<Self, StageError> {
        let state = folder.join(STATE_DIR);
        create_dir_all_synced(&state)?;
        let path = state.join(LOCK);
        let lock = state_file()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = lock
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(StageError::io(&path))?;
        let commit = Self {
            folder: folder.to_path_buf(),
            _lock: lock,
        };
        commit.recover()?;
        Ok(commit)
    }

    fn staging_dir(&self) -> PathBuf {
        self.folder.join(STAGING_DIR)
    }

    /// Replaces the inputs of `intent` by the new file in [`STAGING_DIR`].
    ///
    /// # Errors
    /// If a file cannot be written, renamed or removed. The next [`RewriteCommit::begin`] completes
    /// or reverts the replacement.
    pub(crate) fn replace(&self, intent: &RewriteIntent) -> Result<(), StageError> {
        let path = self.staging_dir().join(INTENT);
        write_atomically(&path, &to_json(intent)?)?;
        failpoint("exchange-noted");
        let (from, to) = (
            self.staging_dir().join(&intent.merged),
            self.folder.join(&intent.merged),
        );
        fs::rename(&from, &to).map_err(StageError::io(&to))?;
        failpoint("exchange-renamed");
        fsync_dir(&self.folder)?;
        self.complete(intent)
    }

    /// Removes the inputs of the new file, which is durable, and then the journal entry.
    fn complete(&self, intent: &RewriteIntent) -> Result<(), StageError> {
        for input in intent
            .inputs
            .iter()
            .filter(|input| **input != intent.merged)
        {
            remove_file_if_exists(&self.folder.join(input))?;
            failpoint("exchange-removed");
        }
        fsync_dir(&self.folder)?;
        failpoint("exchange-cleared");
        self.remove_intent()
    }

    fn remove_intent(&self) -> Result<(), StageError> {
        remove_file_if_exists(&self.staging_dir().join(INTENT))?;
        fsync_dir(&self.staging_dir())
    }

    fn recover(&self) -> Result<(), StageError> {
        let path = self.staging_dir().join(INTENT);
        let Some(text) = read_if_exists(&path)? else {
            return Ok(());
        };
        let damaged = |what: &str| {
            StageError::new(
                ErrorCode::StateCorrupt,
                format!(
                    "{}: {what}; a compaction was interrupted here: check which of the files listed in \
                 this file exist, keep either the file `merged` or all other files, then remove \
                 this file",
                    path.display()
                ),
            )
        };
        let intent: RewriteIntent = serde_json::from_slice(&text)
            .map_err(|error| damaged(&format!("is invalid: {error}")))?;
        // All names must be those of data files directly in the folder, even in a forged entry.
        if intent
            .inputs
            .iter()
            .chain([&intent.merged])
            .any(|name| part_number(name).is_none())
        {
            return Err(damaged("lists a name that is not the name of a data file"));
        }
        let staged = self.staging_dir().join(&intent.merged);
        if staged.try_exists().map_err(StageError::io(&staged))? {
            // The new file was not renamed, so no input was changed.
            remove_file_if_exists(&staged)?;
            return self.remove_intent();
        }
        let merged = self.folder.join(&intent.merged);
        match fs::metadata(&merged) {
            Ok(metadata) if metadata.len() == intent.bytes => {
                fsync_dir(&self.folder)?;
                self.complete(&intent)
            }
            _ => Err(damaged(
                "lists a file `merged` that is missing or has another size",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Three files, and the one that is to replace them.
    fn staged_rewrite() -> (tempfile::TempDir, RewriteIntent) {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [0, 1, 2].map(|number| format!("part-{number:05}.parquet"));
        inputs
            .iter()
            .for_each(|name| fs::write(folder.path().join(name), b"old").unwrap());
        fs::create_dir(folder.path().join(STAGING_DIR)).unwrap();
        fs::write(folder.path().join(STAGING_DIR).join(&inputs[2]), b"merged").unwrap();
        (
            folder,
            RewriteIntent {
                merged: inputs[2].clone(),
                bytes: 6,
                inputs: inputs.to_vec(),
            },
        )
    }

    fn names(folder: &Path) -> Vec<String> {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn write_intent(folder: &Path, intent: &RewriteIntent) {
        fs::write(
            folder.join(STAGING_DIR).join(INTENT),
            serde_json::to_vec(intent).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn files_are_replaced_by_the_merged_one() {
        let (folder, intent) = staged_rewrite();
        RewriteCommit::begin(folder.path())
            .unwrap()
            .replace(&intent)
            .unwrap();
        assert_eq!(names(folder.path()), ["part-00002.parquet"]);
        assert_eq!(
            fs::read(folder.path().join("part-00002.parquet")).unwrap(),
            b"merged"
        );
        assert_eq!(
            names(&folder.path().join(STAGING_DIR)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn interrupted_replacement_is_reverted_or_completed() {
        let (folder, intent) = staged_rewrite();
        write_intent(folder.path(), &intent);
        RewriteCommit::begin(folder.path()).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        assert_eq!(
            names(&folder.path().join(STAGING_DIR)),
            Vec::<String>::new()
        );

        write_intent(folder.path(), &intent);
        fs::write(folder.path().join("part-00002.parquet"), b"merged").unwrap();
        fs::remove_file(folder.path().join("part-00000.parquet")).unwrap();
        RewriteCommit::begin(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["part-00002.parquet"]);
    }

    #[test]
    fn intent_that_does_not_match_the_files_is_refused() {
        let (folder, intent) = staged_rewrite();
        fs::remove_dir_all(folder.path().join(STAGING_DIR)).unwrap();
        fs::create_dir(folder.path().join(STAGING_DIR)).unwrap();
        write_intent(folder.path(), &intent);
        let error = RewriteCommit::begin(folder.path())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("exchange.json: lists a file `merged` that is missing"),
            "{error}"
        );
        write_intent(
            folder.path(),
            &RewriteIntent {
                inputs: vec!["../precious".into()],
                ..intent
            },
        );
        let name_error = RewriteCommit::begin(folder.path())
            .err()
            .unwrap()
            .to_string();
        assert!(
            name_error.contains("lists a name that is not the name of a data file"),
            "{name_error}"
        );
        assert_eq!(names(folder.path()).len(), 3);
    }
}
