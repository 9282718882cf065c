//! Crash-safe file operations: a file is written under a temporary name, synced and renamed, and
//! its folder is synced.

pub(crate) mod bounded_read;
pub(crate) mod log_segments;

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
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
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
pub(crate) fn failpoint(step: &str) {
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
pub(crate) fn fsync_dir(path: &Path) -> Result<(), StageError> {
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
pub(crate) fn create_dir_all_synced(path: &Path) -> Result<(), StageError> {
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
pub(crate) fn temp_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(TEMP_PREFIX);
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMP_SUFFIX);
    path.with_file_name(name)
}

/// Whether a file name is a result of [`temp_path`].
pub(crate) fn is_temp_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMP_PREFIX.as_bytes()) && name.ends_with(TEMP_SUFFIX.as_bytes())
}

/// Durably creates a folder with access for the user only, for originals of records; an existing
/// folder is left unchanged.
///
/// # Errors
/// Returns an error if the system does, or if a file exists in place of a folder.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), StageError> {
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
pub(crate) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Options for a file of the program's state that is written in place. A symbolic link with its
/// name is an error, because it would redirect the writes to another file.
pub(crate) fn state_file() -> OpenOptions {
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
pub(crate) fn try_lock_file(path: &Path) -> io::Result<Option<File>> {
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

/// Reads a file; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, StageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StageError::io(path)(error)),
    }
}

/// Removes a file; a missing file is not an error.
///
/// # Errors
/// Returns an error if the file cannot be removed.
pub(crate) fn remove_file_if_exists(path: &Path) -> Result<(), StageError> {
    ignore_missing(fs::remove_file(path)).map_err(StageError::io(path))
}

/// Removes a folder with its content; a missing folder is not an error.
///
/// # Errors
/// Returns an error if a file or folder cannot be removed.
pub(crate) fn remove_dir_all_if_exists(path: &Path) -> Result<(), StageError> {
    ignore_missing(fs::remove_dir_all(path)).map_err(StageError::io(path))
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Creates a file under a temporary name, and replaces a file that a crash has left there; links
/// are not followed.
///
/// # Errors
/// Returns an error if the system does.
pub(crate) fn create_temp(temporary: &Path) -> std::io::Result<File> {
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
pub(crate) fn remove_stale_temp_files(folder: &Path, depth: usize) -> Result<(), StageError> {
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
mod tests;
