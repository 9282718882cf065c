//! Temporary folders that do not outlive the program, not even if it is killed.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::{Builder, TempDir};

use crate::fs_durable::try_lock_file;

/// The file in a folder that is locked as long as the folder is in use.
const LOCK: &str = "lock";

/// A temporary folder with access for the user only, which is removed on drop. The folder of a
/// program that was killed is removed when the next one with the same prefix is created.
#[derive(Debug)]
pub struct TemporaryFolder {
    // The folder is removed before its lock is released.
    folder: TempDir,
    /// `None` on a file system without locks.
    _lock: Option<File>,
}

impl TemporaryFolder {
    /// Creates a folder whose name begins with `prefix`, in the folder of the system for temporary
    /// files. An existing entry with its name, such as a symbolic link, is never used.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn new(prefix: &str) -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir(), prefix)
    }

    fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        remove_abandoned(parent, prefix);
        let folder = private_folder(prefix, 16).tempdir_in(parent)?;
        // Under its final name the file is locked from the beginning.
        let new = folder.path().join("new-lock");
        let lock = try_lock_file(&new).unwrap_or_default();
        if lock.is_some() {
            std::fs::rename(&new, folder.path().join(LOCK))?;
        }
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The builder of folders whose names have `characters` random characters after `prefix`.
fn private_folder(prefix: &str, characters: usize) -> Builder<'_, '_> {
    let mut builder = Builder::new();
    builder.prefix(prefix).rand_bytes(characters);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder
}

/// Removes the folders of programs that were killed. What cannot be removed, such as a folder of
/// another user, stays.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_ours && is_abandoned(&entry.path().join(LOCK)) {
            // Another program may remove it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the lock file exists and no program holds its lock. If that cannot be determined, the
/// folder may be in use.
fn is_abandoned(lock: &Path) -> bool {
    let is_file = std::fs::symlink_metadata(lock).is_ok_and(|metadata| metadata.is_file());
    let opened = is_file.then(|| File::open(lock));
    let Some(Ok(file)) = opened else { return false };
    file.try_lock().is_ok()
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_is_private_and_removed() {
        let parent = tempfile::tempdir().unwrap();
        let create = || TemporaryFolder::new_in(parent.path(), "records-").unwrap();
        let (one, other) = (create(), create());
        assert_ne!(one.path(), other.path());
        let mode = one.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = one.path().to_path_buf();
        std::fs::write(path.join("records"), "x").unwrap();
        drop(one);
        assert!(!path.exists() && other.path().is_dir());
    }

    #[test]
    fn folder_of_a_killed_program_is_removed_by_the_next_one() {
        let parent = tempfile::tempdir().unwrap();
        let killed = parent.path().join("records-killed");
        let unknown = parent.path().join("records-without-lock");
        let other = parent.path().join("others-killed");
        for folder in [&killed, &unknown, &other] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("records"), "x").unwrap();
        }
        for folder in [&killed, &other] {
            std::fs::write(folder.join(LOCK), "").unwrap();
        }
        std::os::unix::fs::symlink(&other, parent.path().join("records-link")).unwrap();
        let used = TemporaryFolder::new_in(parent.path(), "records-").unwrap();
        assert!(!killed.exists());
        assert!(unknown.exists() && other.join("records").exists());
        let next = TemporaryFolder::new_in(parent.path(), "records-").unwrap();
        assert!(used.path().exists() && next.path().exists());
    }

    #[test]
    fn link_under_its_name_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let created = private_folder("link", 0).tempdir_in(folder.path());
        assert_eq!(created.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
