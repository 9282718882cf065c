//! Temporary folders of this program: private, under a name that cannot be guessed, removed in the
//! end.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// A folder that is removed when it goes out of scope.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes a folder for the user alone, in the system's folder for temporary files. Whatever lies
    /// there under its name, a link too, is never used.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(purpose: &str) -> io::Result<Self> {
        // The keys of a new hasher are random and known to this process alone.
        let number = RandomState::new().hash_one(purpose);
        let path = std::env::temp_dir().join(format!("latentflow-{purpose}-{number:016x}"));
        create(&path)?;
        Ok(Self(path))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed stays; there is nothing else to do about it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_is_private_and_removed() {
        let (one, other) = (TempDir::new("test").unwrap(), TempDir::new("test").unwrap());
        assert_ne!(one.path(), other.path());
        assert_eq!(
            one.path().metadata().unwrap().permissions().mode() & 0o777,
            0o700
        );
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists() && other.path().is_dir());
    }

    #[test]
    fn link_under_its_name_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert_eq!(
            create(&link).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
