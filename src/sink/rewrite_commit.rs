//! The moment at which files of a dataset are exchanged for one that holds the same rows: noted
//! before, so that whoever comes after a crash can end it or take it back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::fs_durable::{
    create_dir_all_synced, failpoint, fsync_dir, state_file, write_atomically,
};
use crate::json::to_json;
use crate::sink::STATE_DIR;
use crate::sink::writer_lease::part_number;
use crate::storage::Location;

/// The folder beside the data files in which those to come are written. Not below [`STATE_DIR`],
/// from where a run that starts sweeps what looks unfinished; its underscore hides it from readers.
pub(super) const STAGING_DIR: &str = "_latentflow-compact";
const INTENT: &str = "exchange.json";
const LOCK: &str = "exchange-lock";

/// Keeps files from being exchanged while somebody reads all of a folder, as long as what it gives
/// lives; `None` where nothing was ever exchanged, or nobody may say so. A compaction waits
/// meanwhile.
pub fn shared_read_lock(place: &Location) -> Option<File> {
    let lock = File::open(place.local()?.join(STATE_DIR).join(LOCK)).ok()?;
    lock.lock_shared().ok()?;
    Some(lock)
}

/// Held while files are exchanged, or looked at by who must not see that half done: who comes
/// second waits.
pub(super) struct RewriteCommit {
    folder: PathBuf,
    _lock: File,
}

/// What is about to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RewriteIntent {
    /// The name of the new file, which is that of the last of `inputs`.
    pub(super) merged: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// The files whose rows it holds.
    pub(super) inputs: Vec<String>,
}

impl RewriteCommit {
    /// Waits for whoever exchanges files in `folder` at this moment, and brings to an end what one
    /// has left half done.
    ///
    /// # Errors
    /// When the system refuses, or what was left behind is not what was noted.
    pub(super) fn begin(folder: &Path) -> Result<Self, StageError> {
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
        let exchange = Self {
            folder: folder.to_path_buf(),
            _lock: lock,
        };
        exchange.recover()?;
        Ok(exchange)
    }

    fn staging_dir(&self) -> PathBuf {
        self.folder.join(STAGING_DIR)
    }

    /// Puts the file that lies in [`STAGING_DIR`] in the place of those that it was made of.
    ///
    /// # Errors
    /// When the system refuses; who begins the next exchange ends this one, or takes it back.
    pub(super) fn replace(&self, note: &RewriteIntent) -> Result<(), StageError> {
        let path = self.staging_dir().join(INTENT);
        write_atomically(&path, &to_json(note)?)?;
        failpoint("exchange-noted");
        let (from, to) = (
            self.staging_dir().join(&note.merged),
            self.folder.join(&note.merged),
        );
        fs::rename(&from, &to).map_err(StageError::io(&to))?;
        failpoint("exchange-renamed");
        fsync_dir(&self.folder)?;
        self.end(note)
    }

    /// Removes what the new file, which is there durably, was made of; then there is nothing more
    /// to note.
    fn end(&self, note: &RewriteIntent) -> Result<(), StageError> {
        for input in note.inputs.iter().filter(|input| **input != note.merged) {
            remove(&self.folder.join(input))?;
            failpoint("exchange-removed");
        }
        fsync_dir(&self.folder)?;
        failpoint("exchange-cleared");
        self.forget()
    }

    fn forget(&self) -> Result<(), StageError> {
        remove(&self.staging_dir().join(INTENT))?;
        fsync_dir(&self.staging_dir())
    }

    fn recover(&self) -> Result<(), StageError> {
        let path = self.staging_dir().join(INTENT);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.map_err(StageError::io(&path))?,
        };
        let damaged = |what: &str| {
            StageError::Other(format!(
                "{}: {what}; a compaction was cut short here: look at which of the files that it names are there, keep \
                 either `merged` or the others, then remove this note",
                path.display()
            ))
        };
        let note: RewriteIntent = serde_json::from_slice(&text)
            .map_err(|error| damaged(&format!("is damaged: {error}")))?;
        // A name is that of a data file directly in the folder, whoever has written the note.
        if note
            .inputs
            .iter()
            .chain([&note.merged])
            .any(|name| part_number(name).is_none())
        {
            return Err(damaged("names something that is no data file"));
        }
        let waiting = self.staging_dir().join(&note.merged);
        if waiting.try_exists().map_err(StageError::io(&waiting))? {
            // It had not taken its place: all is as before.
            remove(&waiting)?;
            return self.forget();
        }
        let merged = self.folder.join(&note.merged);
        match fs::metadata(&merged) {
            Ok(metadata) if metadata.len() == note.bytes => {
                fsync_dir(&self.folder)?;
                self.end(&note)
            }
            _ => Err(damaged("tells of a file that is not there as it was")),
        }
    }
}

fn remove(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Three files, and the one that is to take their place.
    fn site() -> (tempfile::TempDir, RewriteIntent) {
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

    fn note_down(folder: &Path, note: &RewriteIntent) {
        fs::write(
            folder.join(STAGING_DIR).join(INTENT),
            serde_json::to_vec(note).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn files_are_exchanged_for_one() {
        let (folder, note) = site();
        RewriteCommit::begin(folder.path())
            .unwrap()
            .replace(&note)
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
    fn what_had_not_begun_is_taken_back_and_what_had_is_ended() {
        let (folder, note) = site();
        note_down(folder.path(), &note);
        RewriteCommit::begin(folder.path()).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        assert_eq!(
            names(&folder.path().join(STAGING_DIR)),
            Vec::<String>::new()
        );

        note_down(folder.path(), &note);
        fs::write(folder.path().join("part-00002.parquet"), b"merged").unwrap();
        fs::remove_file(folder.path().join("part-00000.parquet")).unwrap();
        RewriteCommit::begin(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["part-00002.parquet"]);
    }

    #[test]
    fn nothing_is_removed_where_the_new_file_is_not_what_was_noted() {
        let (folder, note) = site();
        fs::remove_dir_all(folder.path().join(STAGING_DIR)).unwrap();
        fs::create_dir(folder.path().join(STAGING_DIR)).unwrap();
        note_down(folder.path(), &note);
        let error = RewriteCommit::begin(folder.path())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("exchange.json") && error.contains("not there as it was"),
            "{error}"
        );
        note_down(
            folder.path(),
            &RewriteIntent {
                inputs: vec!["../precious".into()],
                ..note
            },
        );
        let error = RewriteCommit::begin(folder.path())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("no data file"), "{error}");
        assert_eq!(names(folder.path()).len(), 3);
    }
}
