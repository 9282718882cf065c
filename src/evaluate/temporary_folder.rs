//! The temporary folder of the prepared records of an evaluation.

use std::io;

use tempfile::{Builder, TempDir};

/// Creates a temporary folder with access for the user only, which is removed on drop. An existing
/// entry with its name, such as a symbolic link, is never used.
///
/// # Errors
/// If the folder cannot be created.
pub fn temporary_folder() -> io::Result<TempDir> {
    private_folder("latentflow-evaluate-", 16).tempdir()
}

/// The builder of folders whose names have `characters` random characters after `prefix`.
fn private_folder(prefix: &str, characters: usize) -> Builder<'_, '_> {
    let mut builder = Builder::new();
    builder.prefix(prefix).rand_bytes(characters);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_is_private_and_removed() {
        let (one, other) = (temporary_folder().unwrap(), temporary_folder().unwrap());
        assert_ne!(one.path(), other.path());
        let mode = one.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = one.path().to_path_buf();
        std::fs::write(path.join("records"), "x").unwrap();
        drop(one);
        assert!(!path.exists() && other.path().is_dir());
    }

    #[test]
    fn link_under_its_name_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let created = private_folder("link", 0).tempdir_in(folder.path());
        assert_eq!(created.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
