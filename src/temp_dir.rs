//! Private temporary folders with unpredictable names, which are removed on drop.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// A temporary folder that is removed when it goes out of scope.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates a folder with access for the user only, in the system's folder for temporary files.
    /// An existing entry with its name, such as a symbolic link, is never used.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created.
    pub fn new(purpose: &str) -> io::Result<Self> {
        // The keys of a new hasher are random and not visible outside of this process.
        let number = RandomState::new().hash_one(purpose);
        let path = std::env::temp_dir().join(format!("latentflow-{purpose}-{number:016x}"));
        create(&path)?;
        Ok(Self(path))
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A folder that cannot be removed stays in the folder for temporary files.
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
