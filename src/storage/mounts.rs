//! The file systems that are mounted along a path, by which an unmounted disk is distinguished from
//! an empty folder.

use std::io;
use std::path::{Path, PathBuf};

/// The identity of a folder. If it differs, the folder at the path was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderId {
    /// `st_dev`, the device of its file system.
    pub device: u64,
    /// `st_ino`, the inode number.
    pub inode: u64,
}

impl FolderId {
    /// The identity of the folder at `path`, with symbolic links followed.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub(crate) fn from_path(path: &Path) -> io::Result<Self> {
        path.metadata()
            .map(|metadata| Self::from_metadata(&metadata))
    }

    /// The identity in `metadata`; zeros on systems other than Unix.
    #[must_use]
    pub fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Self {
                device: metadata.dev(),
                inode: metadata.ino(),
            }
        }
        #[cfg(not(unix))]
        {
            let _ = metadata;
            Self {
                device: 0,
                inode: 0,
            }
        }
    }
}

/// The absolute path with the symbolic links of its existing part resolved.
#[must_use]
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let existing = absolute
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    match existing {
        // Joining the empty remainder would append a slash.
        Some((above, real)) if above == absolute => real,
        Some((above, real)) => absolute
            .strip_prefix(above)
            .map_or(real.clone(), |rest| real.join(rest)),
        None => absolute,
    }
}

/// Whether `path` lies on another file system than its parent folder.
#[must_use]
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Some(above) = path.parent() else {
        return false;
    };
    let device = |folder: &Path| FolderId::from_path(folder).ok().map(|id| id.device);
    device(path).is_some_and(|own| device(above).is_some_and(|above| above != own))
}

/// The deepest mount point at or above `path`, which must be free of symbolic links; `None` if
/// `path` lies on the file system of `/` or does not exist.
#[must_use]
pub(crate) fn mount_of(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|folder| is_mount_point(folder))
        .map(Path::to_path_buf)
}

/// Whether the file system that was mounted at `mount`, a folder at or above `path`, is missing.
/// `path` then lies on a file system whose mount point is above `mount`.
#[must_use]
pub(crate) fn is_unmounted(mount: &Path, path: &Path) -> bool {
    path.starts_with(mount) && mount_of(path).is_none_or(|now| !now.starts_with(mount))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn mount_of_folder_is_at_or_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let mount = mount_of(&path);
        assert!(mount.iter().all(|mount| path.starts_with(mount)));
        assert!(!is_mount_point(&path) && !is_mount_point(Path::new("/")));
        assert!(mount.iter().all(|mount| !is_unmounted(mount, &path)));
        assert!(is_unmounted(&path, &path), "nothing is mounted there");
        assert!(
            !is_unmounted(&path.join("other"), &path),
            "the path does not lie below"
        );
    }

    #[cfg(unix)]
    #[test]
    fn folder_id_of_replaced_folder_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        std::fs::create_dir(&new).unwrap();
        let before = FolderId::from_path(&old).unwrap();
        assert_eq!(before, FolderId::from_path(&old).unwrap());
        std::fs::remove_dir(&old).unwrap();
        std::fs::rename(&new, &old).unwrap();
        assert_ne!(before, FolderId::from_path(&old).unwrap());
    }

    #[test]
    fn real_path_of_missing_folder_is_below_existing_one() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        assert_eq!(real_path(&folder.path().join("a/b")), base.join("a/b"));
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        assert_eq!(
            text(&real_path(&folder.path().join("a/b"))),
            text(&base.join("a/b")),
            "the path is the same after the folder exists"
        );
    }
}
