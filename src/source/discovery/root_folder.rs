//! The record of the folder that a source reads, by which a disk that is not mounted is detected.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::json::to_json;
use crate::storage::Location;
use crate::storage::mounts::{FolderId, is_mount_point, is_unmounted, mount_of};

/// The stored record of a source's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootRecord {
    /// The canonical path of the folder.
    root: PathBuf,
    /// The mount point of its file system; `None` for the file system of `/`.
    #[serde(default)]
    mount: Option<PathBuf>,
    /// Mount points of other file systems below the folder, relative to it, at which files were
    /// found.
    #[serde(default)]
    mounts_below: BTreeSet<String>,
}

/// The folder as it exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceRoot {
    /// The canonical path.
    pub(crate) path: PathBuf,
    /// The device and inode of the folder.
    pub(crate) id: FolderId,
}

impl SourceRoot {
    /// Resolves the folder `path`.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub(in crate::source) fn probe(path: &Path) -> Result<Self, String> {
        let probe = || {
            let path = path.canonicalize()?;
            let id = FolderId::from_path(&path)?;
            if !path.is_dir() {
                return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory));
            }
            Ok(Self { path, id })
        };
        probe()
            .map_err(|error: std::io::Error| format!("cannot read `{}`: {error}", path.display()))
    }
}

fn record_file(stage: &str, state: &Location) -> Location {
    state.join("roots").join(&format!("{stage}.json"))
}

impl RootRecord {
    /// Loads the record of earlier runs; an empty one if there is none.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub(crate) fn load(stage: &str, state: Option<&Location>) -> Result<Self, StageError> {
        let Some(file) = state.map(|state| record_file(stage, state)) else {
            return Ok(Self::default());
        };
        let Some(text) = file.read()? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&text).map_err(|error| {
            StageError::new(
                ErrorCode::StateCorrupt,
                format!(
                    "{file}: invalid record of the folder of a source: {error}; remove the file"
                ),
            )
        })
    }

    /// Removes the record, so that the next run accepts the folder in its current state.
    ///
    /// # Errors
    /// If the record cannot be removed.
    pub(crate) fn remove_record(stage: &str, state: &Location) -> Result<(), StageError> {
        let file = record_file(stage, state);
        if file.read()?.is_some() {
            file.remove()
        } else {
            Ok(())
        }
    }

    /// Whether an earlier run has read the folder.
    pub(crate) fn is_known(&self) -> bool {
        !self.root.as_os_str().is_empty()
    }

    /// A message that names the file system that is not mounted at or above `root`, if one is
    /// missing.
    pub(crate) fn missing(&self, root: &SourceRoot) -> Option<String> {
        let mount = self.mount.as_ref().filter(|_| self.root == root.path)?;
        is_unmounted(mount, &root.path).then(|| {
            let (root, mount) = (root.path.display(), mount.display());
            format!("`{root}` was on the file system at `{mount}`, which is not mounted now")
        })
    }

    /// The recorded mount points below the root, relative to it, whose file systems are not
    /// mounted.
    pub(crate) fn missing_below(&self, root: &SourceRoot) -> BTreeSet<String> {
        let same = self.root == root.path;
        let missing = |name: &&String| same && !is_mount_point(&root.path.join(name));
        self.mounts_below.iter().filter(missing).cloned().collect()
    }

    /// Records the folder and the current mount points below it. Writes the record durably if it
    /// has changed.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(crate) fn record(
        &mut self,
        root: &SourceRoot,
        mounts_below: impl Iterator<Item = String>,
        stage: &str,
        state: Option<&Location>,
    ) -> Result<(), StageError> {
        let mut now = Self {
            root: root.path.clone(),
            mount: mount_of(&root.path),
            ..Self::default()
        };
        if self.root == now.root {
            now.mounts_below.clone_from(&self.mounts_below);
        }
        now.mounts_below.extend(mounts_below);
        if *self == now {
            return Ok(());
        }
        if let Some(state) = state {
            record_file(stage, state).put(&to_json(&now)?)?;
        }
        *self = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn record_is_loaded_again_and_detects_missing_mounts() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path().join("state").as_path());
        let root = SourceRoot::probe(folder.path()).unwrap();
        let mut record = RootRecord::load("in", Some(&state)).unwrap();
        assert!(!record.is_known() && record.missing(&root).is_none());
        record
            .record(&root, ["cam".to_owned()].into_iter(), "in", Some(&state))
            .unwrap();
        let mut loaded = RootRecord::load("in", Some(&state)).unwrap();
        assert_eq!(loaded, record);
        assert!(loaded.is_known() && loaded.missing(&root).is_none());
        assert_eq!(
            loaded.missing_below(&root).into_iter().collect::<Vec<_>>(),
            ["cam"],
            "the folder is not a mount point"
        );
        loaded.mount = Some(root.path.clone());
        let path = root.path.display();
        assert_eq!(
            loaded.missing(&root).unwrap(),
            format!("`{path}` was on the file system at `{path}`, which is not mounted now")
        );
        let other = SourceRoot {
            path: root.path.join("other"),
            ..root
        };
        assert!(
            loaded.missing(&other).is_none(),
            "the record belongs to another folder"
        );
        RootRecord::remove_record("in", &state).unwrap();
        RootRecord::remove_record("in", &state).unwrap();
        assert!(!RootRecord::load("in", Some(&state)).unwrap().is_known());
    }

    #[test]
    fn error_of_missing_folder_has_its_path() {
        let error = SourceRoot::probe(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(
            error.starts_with("cannot read `/nowhere/at/all`: "),
            "{error}"
        );
    }
}
