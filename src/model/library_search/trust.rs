//! The refusal of libraries that other users can replace.

use std::path::{Path, PathBuf};

/// Returns the real path of a file that a pipeline sets, if only the user and root can have written
/// it. A pipeline may come from an untrusted source, and a loaded library has all rights of the
/// user.
///
/// # Errors
/// The reason and what to do, as the continuation of a sentence that begins with the path.
pub(in crate::model) fn trusted(file: &Path) -> Result<PathBuf, String> {
    if !file.is_absolute() {
        return Err("is a relative path; use an absolute path".to_owned());
    }
    let file = file
        .canonicalize()
        .map_err(|error| format!("cannot be loaded: {error}"))?;
    for (depth, path) in file.ancestors().enumerate() {
        if let Some(reason) = distrust(path, depth)? {
            return Err(format!("is not loaded: {} {reason}", path.display()));
        }
    }
    Ok(file)
}

/// Returns the reason if users other than the present user and root can replace the library through
/// `path`, which is the library itself (`depth` 0), its folder (`depth` 1), or a folder above.
#[cfg(unix)]
fn distrust(path: &Path, depth: usize) -> Result<Option<String>, String> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY: u32 = 0o1000;
    let metadata = path
        .metadata()
        .map_err(|error| format!("cannot be loaded: {}: {error}", path.display()))?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && Some(owner) != user() {
        return Ok(Some(format!(
            "is owned by user {owner}; only files owned by the present user or by root are loaded"
        )));
    }
    // In a folder with the sticky bit, users cannot rename the files of other users.
    let is_open = if depth < 2 {
        mode & 0o022 != 0
    } else {
        mode & 0o002 != 0 && mode & STICKY == 0
    };
    let hint = "run `chmod go-w` on it, or set ORT_DYLIB_PATH to the library";
    Ok(is_open.then(|| {
        let mode = mode & 0o7777;
        format!("has the mode {mode:04o}, so that other users can write to it; {hint}")
    }))
}

#[cfg(not(unix))]
fn distrust(_: &Path, _: usize) -> Result<Option<String>, String> {
    Ok(None)
}

#[cfg(unix)]
pub(super) fn owner(path: &Path) -> Option<u32> {
    std::os::unix::fs::MetadataExt::uid(&path.metadata().ok()?).into()
}

#[cfg(unix)]
pub(super) fn user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
pub(super) fn owner(_: &Path) -> Option<u32> {
    None
}

#[cfg(not(unix))]
pub(super) fn user() -> Option<u32> {
    None
}
