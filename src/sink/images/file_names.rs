//! Names as the file system has them: which it refuses, which are free, and the folders that they
//! need.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::sink::STATE_DIR;

/// Whether a folder holds anything but the sink's own notes.
pub(super) fn holds_files(root: &Path) -> Result<bool, StageError> {
    for entry in fs::read_dir(root).map_err(StageError::io(root))? {
        if entry.map_err(StageError::io(root))?.file_name() != STATE_DIR {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the system refuses `path`, rather than to write at all: below `root`, a folder that
/// others own refuses names as well.
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

/// Makes the folders between `root` and `file`. `false` where one cannot be a folder: a file is in
/// the way, its name is too long, or it is a link, which may lead anywhere.
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
            Ok(met) if met.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if is_about_name(&error, root, folder) => return Ok(false),
            Err(error) => return Err(StageError::io(folder)(error)),
        }
        // Names are made durable through the folder, which must be readable for that.
        match fs::File::open(folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(false),
            opened => drop(opened.map_err(StageError::io(folder))?),
        }
    }
    known.insert(folder.to_path_buf());
    Ok(true)
}

/// Renames a file, and replaces none.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
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
    fn refusal_below_the_folder_is_about_the_name_and_in_it_is_not() {
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
