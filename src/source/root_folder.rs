//! The folder that a source reads, as earlier runs met it: by that a disk that is not mounted is
//! noticed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::json::to_json;
use crate::storage::Location;
use crate::storage::mounts::{FolderId, is_mount_point, is_unmounted, mount_of};

/// What is remembered of a source's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootRecord {
    /// The folder, without links.
    root: PathBuf,
    /// Where the file system is mounted that it lies on; `None`: that of `/`.
    #[serde(default)]
    mount: Option<PathBuf>,
    /// Folders below it, relative to it, that other file systems were mounted at when files were
    /// seen there.
    #[serde(default)]
    mounts_below: BTreeSet<String>,
}

/// The folder as it lies there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceRoot {
    /// Without links.
    pub(super) path: PathBuf,
    /// Which folder that is.
    pub(super) id: FolderId,
}

impl SourceRoot {
    /// Looks at the folder `path`.
    ///
    /// # Errors
    /// A clause that says why it cannot be read.
    pub(super) fn look(path: &Path) -> Result<Self, String> {
        let look = || {
            let path = path.canonicalize()?;
            let id = FolderId::of(&path)?;
            if !path.is_dir() {
                return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory));
            }
            Ok(Self { path, id })
        };
        look().map_err(|error: std::io::Error| {
            format!("`{}` cannot be read: {error}", path.display())
        })
    }
}

fn place(stage: &str, state: &Location) -> Location {
    state.join("roots").join(&format!("{stage}.json"))
}

impl RootRecord {
    /// What earlier runs have recorded; nothing where there was none.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn load(stage: &str, state: Option<&Location>) -> Result<Self, StageError> {
        let Some(place) = state.map(|state| place(stage, state)) else {
            return Ok(Self::default());
        };
        let Some(text) = place.read()? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&text).map_err(|error| {
            StageError::Other(format!(
                "{place}: this is not the record of a folder: {error}; remove it"
            ))
        })
    }

    /// Forgets what was recorded, so that the next run takes the folder as it is.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub(super) fn forget(stage: &str, state: &Location) -> Result<(), StageError> {
        let place = place(stage, state);
        if place.read()?.is_some() {
            place.remove()
        } else {
            Ok(())
        }
    }

    /// Whether an earlier run has met the folder.
    pub(super) fn is_known(&self) -> bool {
        !self.root.as_os_str().is_empty()
    }

    /// A clause that says which file system is missing under `root`, if one is.
    pub(super) fn missing(&self, root: &SourceRoot) -> Option<String> {
        let mount = self.mount.as_ref().filter(|_| self.root == root.path)?;
        is_unmounted(mount, &root.path).then(|| {
            let (root, mount) = (root.path.display(), mount.display());
            format!("`{root}` lay on a file system that was mounted at `{mount}`, where none is mounted now")
        })
    }

    /// Which of the folders below the root, relative to it, lack the file systems that were mounted
    /// there.
    pub(super) fn missing_below(&self, root: &SourceRoot) -> BTreeSet<String> {
        let same = self.root == root.path;
        let missing = |name: &&String| same && !is_mount_point(&root.path.join(name));
        self.mounts_below.iter().filter(missing).cloned().collect()
    }

    /// Records the folder as it is now, with the folders below it that are mount points now;
    /// durably, if that is new.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn record(
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
            place(stage, state).put(&to_json(&now)?)?;
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
    fn record_survives_and_misses_a_mount_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path().join("state").as_path());
        let root = SourceRoot::look(folder.path()).unwrap();
        let mut record = RootRecord::load("in", Some(&state)).unwrap();
        assert!(!record.is_known() && record.missing(&root).is_none());
        record
            .record(&root, ["cam".to_owned()].into_iter(), "in", Some(&state))
            .unwrap();
        let mut again = RootRecord::load("in", Some(&state)).unwrap();
        assert_eq!(again, record);
        assert!(again.is_known() && again.missing(&root).is_none());
        assert_eq!(
            again.missing_below(&root).into_iter().collect::<Vec<_>>(),
            ["cam"],
            "nothing is mounted there"
        );
        again.mount = Some(root.path.clone());
        assert!(
            again
                .missing(&root)
                .unwrap()
                .contains("where none is mounted now")
        );
        let other = SourceRoot {
            path: root.path.join("other"),
            ..root
        };
        assert!(
            again.missing(&other).is_none(),
            "another folder has a record of its own"
        );
        RootRecord::forget("in", &state).unwrap();
        RootRecord::forget("in", &state).unwrap();
        assert!(!RootRecord::load("in", Some(&state)).unwrap().is_known());
    }

    #[test]
    fn missing_folder_is_named() {
        let error = SourceRoot::look(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
