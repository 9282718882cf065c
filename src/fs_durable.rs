//! Files that survive a crash: written under a temporary name, synced, renamed, their folder
//! synced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StageError;
use crate::file_descriptors;

/// What every temporary name begins with; nothing else that we write does. The leading dot hides
/// such files.
const TEMP_PREFIX: &str = ".latentflow-";
/// What it ends with: patterns such as `*.parquet` match hidden names too in some readers.
const TEMP_SUFFIX: &str = ".tmp";

/// Puts `bytes` under `path`, durably: after a crash the file is the old one or the new one, whole.
/// Folders that are missing are made.
///
/// # Errors
/// When the system refuses.
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

/// Where a commit may be cut short: in debug builds, the variable `LATENTFLOW_CRASH_AT`, such as
/// `renamed:3`, ends the process as a crash does when `step` is passed for the third time. Tests
/// show by it that nothing is lost or twice.
pub fn failpoint(step: &str) {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let wanted = std::env::var("LATENTFLOW_CRASH_AT").ok();
    let wanted = wanted
        .as_deref()
        .and_then(|wanted| wanted.split_once(':'))
        .filter(|(name, _)| *name == step);
    let Some(times) = wanted.and_then(|(_, times)| times.parse::<u64>().ok()) else {
        return;
    };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == times {
        std::process::abort();
    }
}

/// Makes the names in a folder durable: what was created, renamed and removed there.
///
/// # Errors
/// When the system refuses.
pub fn fsync_dir(path: &Path) -> Result<(), StageError> {
    // Only Unix opens folders as files; elsewhere the file system's own journal has to do.
    if cfg!(unix) {
        file_descriptors::open(|| File::open(path))
            .and_then(|folder| folder.sync_all())
            .map_err(StageError::io(path))
    } else {
        Ok(())
    }
}

/// Makes a folder and those above it, durably; one that is there already is left as it is.
///
/// # Errors
/// When the system refuses, or a file is in the way.
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

/// The temporary name beside `path` under which it is written until it is whole.
pub fn temp_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(TEMP_PREFIX);
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMP_SUFFIX);
    path.with_file_name(name)
}

/// Whether a file name is one that [`temp_path`] gives.
pub fn is_temp_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMP_PREFIX.as_bytes()) && name.ends_with(TEMP_SUFFIX.as_bytes())
}

/// Makes a folder that the user alone may enter, for originals of records; one that is there
/// already is left as it is.
///
/// # Errors
/// When the system refuses, or a file is in the way.
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

/// Options by which a file that is created is for the user alone.
pub fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Options for a file of the program's own state, which is written in place: a symbolic link under
/// its name is an error, since whoever put it there has another file written to.
pub fn state_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options
}

/// Options for a file in `folder`: it is for the user alone where the folder is, so that a copy of
/// it stays private.
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

/// Creates a file under a temporary name, in place of what a crash may have left there; follows no
/// link.
///
/// # Errors
/// When the system refuses.
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

/// Removes the temporary files that a crash left in a folder and, `depth` folders deep, below it; 1
/// is the folder alone. Links are not followed. A folder that does not exist has none.
///
/// # Errors
/// When a file cannot be removed.
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

/// The folder that a path lies in; `.` for a bare name.
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
    fn a_file_is_replaced_whole_and_no_temporary_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_behind_is_removed_and_nothing_else() {
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
    fn a_link_under_the_temporary_name_is_replaced_and_not_followed() {
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
    fn a_file_in_the_way_of_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = write_atomically(&file.join("below"), b"x").unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
