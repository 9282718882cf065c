//! Crash-safe file operations: a file is written under a temporary name, synced and renamed, and
//! its folder is synced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StageError;
use crate::file_descriptors;

/// Prefix of all temporary names, which no other file of this program has. The leading dot hides
/// such files.
const TEMP_PREFIX: &str = ".latentflow-";
/// Suffix of all temporary names: patterns such as `*.parquet` match hidden names in some readers.
const TEMP_SUFFIX: &str = ".tmp";

/// Durably writes `bytes` to `path`: after a crash, the file has its old or its new content, and
/// never a part of either. Missing folders are created.
///
/// # Errors
/// Returns an error if the system does.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let folder = parent(path);
    create_dir_all_synced(folder)?;
    let temporary = temp_path(path);
    let written = create_temp(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        failpoint("atomic-written");
        file.sync_all()
    });
    written.map_err(StageError::io(&temporary))?;
    failpoint("atomic-synced");
    fs::rename(&temporary, path).map_err(StageError::io(path))?;
    failpoint("atomic-renamed");
    fsync_dir(folder)
}

/// A point where tests interrupt a commit: in debug builds, the environment variable
/// `LATENTFLOW_CRASH_AT`, such as `renamed:3`, aborts the process when `step` is passed for the
/// third time. Tests verify with it that no record is lost or duplicated.
pub fn failpoint(step: &str) {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let setting = std::env::var("LATENTFLOW_CRASH_AT").ok();
    let times = setting
        .as_deref()
        .and_then(|setting| setting.split_once(':'))
        .filter(|(name, _)| *name == step)
        .and_then(|(_, times)| times.parse::<u64>().ok());
    let Some(times) = times else {
        return;
    };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == times {
        std::process::abort();
    }
}

/// Syncs a folder, so that created, renamed and removed names in it are durable.
///
/// # Errors
/// Returns an error if the system does.
pub fn fsync_dir(path: &Path) -> Result<(), StageError> {
    // Only Unix opens folders as files; other systems rely on the journal of the file system.
    if cfg!(unix) {
        file_descriptors::open(|| File::open(path))
            .and_then(|folder| folder.sync_all())
            .map_err(StageError::io(path))
    } else {
        Ok(())
    }
}

/// Durably creates a folder and its missing ancestors; an existing folder is left unchanged.
///
/// # Errors
/// Returns an error if the system does, or if a file exists in place of a folder.
pub fn create_dir_all_synced(path: &Path) -> Result<(), StageError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path {
        create_dir_all_synced(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(StageError::io(path)(error))
        }
        _ => fsync_dir(above),
    }
}

/// The temporary name in the same folder, under which `path` is written until it is complete.
pub fn temp_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(TEMP_PREFIX);
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMP_SUFFIX);
    path.with_file_name(name)
}

/// Whether a file name is a result of [`temp_path`].
pub fn is_temp_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMP_PREFIX.as_bytes()) && name.ends_with(TEMP_SUFFIX.as_bytes())
}

/// Durably creates a folder with access for the user only, for originals of records; an existing
/// folder is left unchanged.
///
/// # Errors
/// Returns an error if the system does, or if a file exists in place of a folder.
pub fn create_private_dir(path: &Path) -> Result<(), StageError> {
    if path.is_dir() {
        return Ok(());
    }
    create_dir_all_synced(parent(path))?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(StageError::io(path)(error))
        }
        _ => fsync_dir(parent(path)),
    }
}

/// Options to create a file with access for the user only.
pub fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Options for a file of the program's state that is written in place. A symbolic link with its
/// name is an error, because it would redirect the writes to another file.
pub fn state_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options
}

/// Opens a file of the program's state, which is created if it does not exist, and locks it. The
/// lock is held until the file is closed, also by a crash. Returns `None` if another process, or
/// another part of this one, holds the lock.
///
/// # Errors
/// If the file cannot be opened or locked.
pub fn try_lock_file(path: &Path) -> io::Result<Option<File>> {
    let mut options = state_file();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Options for a file in `folder`. The file has access for the user only if the folder has, so that
/// a copy of it stays private.
fn options_in(folder: &Path) -> OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if folder
            .metadata()
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o077 == 0)
        {
            return private_options();
        }
    }
    #[cfg(not(unix))]
    let _ = folder;
    OpenOptions::new()
}

/// Creates a file under a temporary name, and replaces a file that a crash has left there; links
/// are not followed.
///
/// # Errors
/// Returns an error if the system does.
pub fn create_temp(temporary: &Path) -> std::io::Result<File> {
    let create = || {
        file_descriptors::open(|| {
            options_in(parent(temporary))
                .write(true)
                .create_new(true)
                .open(temporary)
        })
    };
    create().or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => fs::remove_file(temporary).and_then(|()| create()),
        _ => Err(error),
    })
}

/// Removes the temporary files that a crash has left in a folder and, up to `depth` levels, below
/// it; a depth of 1 is the folder alone. Links are not followed. A missing folder is not an error.
///
/// # Errors
/// Returns an error if a file cannot be removed.
pub fn remove_stale_temp_files(folder: &Path, depth: usize) -> Result<(), StageError> {
    let walk = walkdir::WalkDir::new(folder)
        .max_depth(depth)
        .into_iter()
        .filter_map(Result::ok);
    let files = walk.filter(|entry| !entry.file_type().is_dir());
    let left_behind = files.filter(|entry| is_temp_name(entry.file_name()));
    for entry in left_behind.filter(|entry| entry.depth() > 0) {
        fs::remove_file(entry.path()).map_err(StageError::io(entry.path()))?;
    }
    Ok(())
}

/// The folder of a path; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[cfg(unix)]
    #[test]
    fn files_in_a_private_folder_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let place = folder.path().join("a/private");
        create_private_dir(&place).unwrap();
        write_atomically(&place.join("original"), b"x").unwrap();
        write_atomically(&folder.path().join("a/data"), b"x").unwrap();
        assert_eq!(
            (mode(&place), mode(&place.join("original"))),
            (0o700, 0o600)
        );
        assert_eq!(
            mode(&folder.path().join("a/data")) & 0o066,
            mode(&folder.path().join("a")) & 0o066,
            "the umask decides"
        );
    }

    #[test]
    fn file_is_replaced_and_no_temporary_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn only_temporary_files_of_a_crash_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::create_dir(folder.path().join(".latentflow-folder")).unwrap();
        for name in [
            ".latentflow-a.png.tmp",
            "sub/.latentflow-b.png.tmp",
            "sub/c.png",
            ".hidden",
            "_latentflow",
        ] {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let left = |name: &str| folder.path().join(name).exists();
        remove_stale_temp_files(folder.path(), 1).unwrap();
        assert!(!left(".latentflow-a.png.tmp") && left("sub/.latentflow-b.png.tmp"));
        remove_stale_temp_files(folder.path(), usize::MAX).unwrap();
        remove_stale_temp_files(&folder.path().join("absent"), usize::MAX).unwrap();
        assert!(!left(".latentflow-a.png.tmp") && !left("sub/.latentflow-b.png.tmp"));
        assert!(
            left("sub/c.png")
                && left(".hidden")
                && left("_latentflow")
                && left(".latentflow-folder")
        );
    }

    #[cfg(unix)]
    #[test]
    fn link_under_the_temporary_name_is_replaced_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        let path = folder.path().join("file");
        std::os::unix::fs::symlink(&victim, temp_path(&path)).unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn file_in_place_of_a_folder_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = write_atomically(&file.join("below"), b"x").unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("{}: ", file.display()))
                && text.ends_with("move the file away, or use another path"),
            "{text}"
        );
    }
}
