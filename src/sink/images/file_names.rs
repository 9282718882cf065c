//! File names in the file system: refused and unused names, and the folders of a name.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::sink::STATE_DIR;

/// Whether a folder has entries other than the state of the sink.
pub(super) fn holds_files(root: &Path) -> Result<bool, StageError> {
    for entry in fs::read_dir(root).map_err(StageError::io(root))? {
        if entry.map_err(StageError::io(root))?.file_name() != STATE_DIR {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the error concerns the name `path` rather than the output. A folder below `root` may
/// belong to another user, so that a denied permission concerns only the names in it.
pub(super) fn is_about_name(error: &io::Error, root: &Path, path: &Path) -> bool {
    use ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, PermissionDenied,
    };
    match error.kind() {
        AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory => true,
        PermissionDenied => path.parent() != Some(root),
        _ => false,
    }
}

/// Creates the folders between `root` and `file`. Returns `false` if one of them cannot be a
/// folder: a file has its path, its name is too long, or it is a symbolic link, which may lead out
/// of `root`.
pub(super) fn make_folders(
    root: &Path,
    file: &Path,
    known: &mut BTreeSet<PathBuf>,
) -> Result<bool, StageError> {
    let Some(folder) = file.parent().filter(|folder| !known.contains(*folder)) else {
        return Ok(true);
    };
    if folder != root {
        if !make_folders(root, folder, known)? {
            return Ok(false);
        }
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if is_about_name(&error, root, folder) => return Ok(false),
            Err(error) => return Err(StageError::io(folder)(error)),
        }
        match fs::symlink_metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if is_about_name(&error, root, folder) => return Ok(false),
            Err(error) => return Err(StageError::io(folder)(error)),
        }
        // The folder is opened to make names in it durable, so it must be readable.
        match fs::File::open(folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(false),
            opened => drop(opened.map_err(StageError::io(folder))?),
        }
    }
    known.insert(folder.to_path_buf());
    Ok(true)
}

/// Renames a file without replacing an existing one.
pub(super) fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems do not support `RENAME_NOREPLACE`.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return done.map_err(io::Error::from),
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_permission_is_about_name_only_in_subfolders() {
        let root = Path::new("/out");
        let refused =
            |path: &str, kind: ErrorKind| is_about_name(&kind.into(), root, Path::new(path));
        assert!(refused("/out/a/b.png", ErrorKind::PermissionDenied));
        assert!(!refused("/out/b.png", ErrorKind::PermissionDenied));
        assert!(
            refused("/out/b.png", ErrorKind::InvalidFilename)
                && refused("/out/a/b", ErrorKind::NotADirectory)
        );
        assert!(!refused("/out/a/b.png", ErrorKind::StorageFull));
    }
}
