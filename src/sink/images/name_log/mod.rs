//! The log of the file names of an image output, which identifies the files of the sink for `reset`
//! and after an interrupted commit.
//!
//! Names are appended and synced before files are renamed to them. The snapshot holds the length of
//! the committed part of the log. Files with names after that part are not committed, and are
//! removed.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};

use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{
    create_dir_all_synced, fsync_dir, remove_file_if_exists, state_file, temp_path,
};
use crate::sink::{CommitStats, STATE_DIR};

/// The log with one name per line, relative to the folder, with `/` between parts.
pub(crate) struct NameLog {
    path: PathBuf,
    /// Length in bytes of the part whose names are in use.
    bytes: u64,
}

/// The name of the log in the folder of the state.
pub(in crate::sink) const NAMES: &str = "names";

fn log_path(root: &Path) -> PathBuf {
    root.join(STATE_DIR).join(NAMES)
}

impl NameLog {
    /// Opens the log of the folder `root`, and removes the files of an interrupted commit, whose
    /// names follow the first `bytes` of the log. The caller must not have removed temporary files
    /// before.
    ///
    /// # Errors
    /// If the log or a file cannot be read, changed or removed.
    pub(crate) fn open(root: &Path, bytes: u64) -> Result<Self, StageError> {
        let path = log_path(root);
        let bytes = match fs::metadata(&path) {
            Ok(found) => bytes.min(found.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { path, bytes: 0 });
            }
            Err(error) => return Err(StageError::io(&path)(error)),
        };
        remove_files(root, &path, bytes)?;
        let cut = state_file().write(true).open(&path).and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        });
        cut.map_err(StageError::io(&path))?;
        Ok(Self { path, bytes })
    }

    /// Opens an empty log, and removes an existing one.
    ///
    /// # Errors
    /// If the existing log cannot be removed.
    pub(crate) fn start_over(root: &Path) -> Result<Self, StageError> {
        let path = log_path(root);
        remove_file_if_exists(&path)?;
        Ok(Self { path, bytes: 0 })
    }

    /// Length of the log in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Durably appends names, before files are renamed to them.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub(crate) fn append<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), StageError> {
        let mut text = String::new();
        for name in names {
            text.push_str(name);
            text.push('\n');
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        create_dir_all_synced(folder)?;
        let opened =
            file_descriptors::open(|| state_file().create(true).append(true).open(&self.path));
        let written = opened.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(StageError::io(&self.path))?;
        if self.bytes == 0 {
            fsync_dir(folder)?;
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Whether the log has this name.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) fn contains(&self, name: &str) -> Result<bool, StageError> {
        let mut contains = false;
        each(&self.path, 0, |logged| {
            contains |= logged == name;
            Ok(())
        })?;
        Ok(contains)
    }

    /// Counts the files of the log, and removes them and the log if `remove` is set.
    ///
    /// # Errors
    /// If the log or a file cannot be read or removed.
    pub(crate) fn reset(root: &Path, remove: bool) -> Result<CommitStats, StageError> {
        let (path, mut found) = (log_path(root), CommitStats::default());
        each(&path, 0, |name| {
            if let Some(file) = own_file(root, name)? {
                let bytes = file.metadata().map_err(StageError::io(&file))?.len();
                found.files += 1;
                found.records += 1;
                found.bytes += bytes;
            }
            Ok(())
        })?;
        if remove {
            remove_files(root, &path, 0)?;
            remove_file_if_exists(&path)?;
        }
        Ok(found)
    }
}

/// Calls `with` for each name after the first `from` bytes of the log. An incomplete last line,
/// which a crash has left, is ignored, since no file has its name.
fn each(
    path: &Path,
    from: u64,
    mut with: impl FnMut(&str) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let opened =
        File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(from)).map(|_| file));
    let mut lines = match opened {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StageError::io(path)(error)),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        lines
            .read_until(b'\n', &mut line)
            .map_err(StageError::io(path))?;
        let Some(name) = line.strip_suffix(b"\n") else {
            return Ok(());
        };
        if let Ok(name) = std::str::from_utf8(name) {
            with(name)?;
        }
    }
}

/// Removes the files with names after the first `from` bytes of the log. If the temporary file of a
/// name still exists, it was not renamed, and a file with that name belongs to another program.
fn remove_files(root: &Path, path: &Path, from: u64) -> Result<(), StageError> {
    let mut changed: Option<PathBuf> = None;
    each(path, from, |name| {
        let Some(file) = own_file(root, name)?.filter(|file| !exists(&temp_path(file))) else {
            return Ok(());
        };
        let folder = file.parent().map(Path::to_path_buf);
        if changed != folder {
            changed
                .take()
                .map_or(Ok(()), |previous| fsync_dir(&previous))?;
        }
        fs::remove_file(&file).map_err(StageError::io(&file))?;
        changed = folder;
        Ok(())
    })?;
    changed.map_or(Ok(()), |last| fsync_dir(&last))
}

/// The path of a name, if it is a regular file and its folders are not symbolic links.
fn own_file(root: &Path, name: &str) -> Result<Option<PathBuf>, StageError> {
    let mut path = root.to_path_buf();
    let mut parts = Path::new(name).components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Ok(None);
        };
        path.push(part);
        let is_last = parts.peek().is_none();
        match fs::symlink_metadata(&path) {
            Ok(found) if is_last && found.is_file() => return Ok(Some(path)),
            Ok(found) if !is_last && found.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(StageError::io(&path)(error)),
        }
    }
    Ok(None)
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether no file has the name. A line that a power failure has damaged may contain a zero byte, or
/// be longer than a name can be.
fn is_absent(error: &io::Error) -> bool {
    use ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidInput | InvalidFilename
    )
}

#[cfg(test)]
mod tests;
