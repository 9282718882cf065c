//! The list of the names that an output of images has given, so that files of a commit that a crash
//! cut short are told from those of others, and `reset` finds its own.
//!
//! Names are appended and synced before files get them; the snapshot says up to where the list is
//! done. Of the names behind that, files that bear them stand for no record yet, and go.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};

use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{create_dir_all_synced, fsync_dir, state_file, temp_path};
use crate::sink::{CommitStats, STATE_DIR};

/// The list at work: one name a line, relative to the folder, with `/`.
pub(super) struct NameLog {
    place: PathBuf,
    /// Bytes of it whose names are given.
    bytes: u64,
}

fn place(root: &Path) -> PathBuf {
    root.join(STATE_DIR).join("names")
}

impl NameLog {
    /// Opens the list of the folder `root`, and removes the files of a commit that a crash cut
    /// short: their names stand behind the first `bytes`. Temporary files must be as the crash left
    /// them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn open(root: &Path, bytes: u64) -> Result<Self, StageError> {
        let place = place(root);
        let bytes = match fs::metadata(&place) {
            Ok(found) => bytes.min(found.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { place, bytes: 0 });
            }
            Err(error) => return Err(StageError::io(&place)(error)),
        };
        take_back(root, &place, bytes)?;
        let cut = state_file().write(true).open(&place).and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        });
        cut.map_err(StageError::io(&place))?;
        Ok(Self { place, bytes })
    }

    /// Opens an empty list in place of one that is there.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn start_over(root: &Path) -> Result<Self, StageError> {
        let place = place(root);
        remove_list(&place)?;
        Ok(Self { place, bytes: 0 })
    }

    /// Bytes of the list.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes durably that files are about to get these names.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn append<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), StageError> {
        let mut text = String::new();
        for name in names {
            text.push_str(name);
            text.push('\n');
        }
        let folder = self.place.parent().unwrap_or(Path::new("."));
        create_dir_all_synced(folder)?;
        let opened =
            file_descriptors::open(|| state_file().create(true).append(true).open(&self.place));
        let written = opened.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(StageError::io(&self.place))?;
        if self.bytes == 0 {
            fsync_dir(folder)?;
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Whether a file of this output has this name.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(super) fn holds(&self, name: &str) -> Result<bool, StageError> {
        let mut holds = false;
        each(&self.place, 0, |listed| {
            holds |= listed == name;
            Ok(())
        })?;
        Ok(holds)
    }

    /// Counts the files that are listed, and removes them and the list where `remove` says so.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn forget(root: &Path, remove: bool) -> Result<CommitStats, StageError> {
        let (place, mut found) = (place(root), CommitStats::default());
        each(&place, 0, |name| {
            if let Some(file) = own_file(root, name)? {
                let bytes = file.metadata().map_err(StageError::io(&file))?.len();
                found.files += 1;
                found.records += 1;
                found.bytes += bytes;
            }
            Ok(())
        })?;
        if remove {
            take_back(root, &place, 0)?;
            remove_list(&place)?;
        }
        Ok(found)
    }
}

fn remove_list(place: &Path) -> Result<(), StageError> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StageError::io(place)(error)),
        _ => Ok(()),
    }
}

/// Calls `with` for each name that is listed behind `from`. A last line that a crash has torn was
/// never given.
fn each(
    place: &Path,
    from: u64,
    mut with: impl FnMut(&str) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let opened =
        File::open(place).and_then(|mut file| file.seek(SeekFrom::Start(from)).map(|_| file));
    let mut lines = match opened {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StageError::io(place)(error)),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        lines
            .read_until(b'\n', &mut line)
            .map_err(StageError::io(place))?;
        let Some(name) = line.strip_suffix(b"\n") else {
            return Ok(());
        };
        if let Ok(name) = std::str::from_utf8(name) {
            with(name)?;
        }
    }
}

/// Removes the files that bear the names behind `from`. A file whose temporary name is still there
/// has not got its own: what bears that is another's.
fn take_back(root: &Path, place: &Path, from: u64) -> Result<(), StageError> {
    let mut changed: Option<PathBuf> = None;
    each(place, from, |name| {
        let Some(file) = own_file(root, name)?.filter(|file| !is_there(&temp_path(file))) else {
            return Ok(());
        };
        let folder = file.parent().map(Path::to_path_buf);
        if changed != folder {
            changed.take().map_or(Ok(()), |before| fsync_dir(&before))?;
        }
        fs::remove_file(&file).map_err(StageError::io(&file))?;
        changed = folder;
        Ok(())
    })?;
    changed.map_or(Ok(()), |last| fsync_dir(&last))
}

/// The file of a name, where it is one, and no link leads out of the folder on the way to it.
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

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn listed(root: &Path, names: &[&str]) -> u64 {
        let mut listed = NameLog::open(root, u64::MAX).unwrap();
        listed.append(names.iter().copied()).unwrap();
        listed.bytes()
    }

    #[test]
    fn files_behind_what_is_done_are_taken_back() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        for name in [
            "a/done.png",
            "a/given.png",
            "a/foreign.png",
            "a/.latentflow-foreign.png.tmp",
        ] {
            fs::write(root.path().join(name), b"x").unwrap();
        }
        let done = listed(root.path(), &["a/done.png"]);
        listed(
            root.path(),
            &[
                "a/given.png",
                "a/foreign.png",
                "a/absent.png",
                "b/absent.png",
            ],
        );
        let open = NameLog::open(root.path(), done).unwrap();
        let there = |name: &str| root.path().join(name).exists();
        assert!(there("a/done.png") && there("a/foreign.png") && !there("a/given.png"));
        assert_eq!(
            (
                open.bytes(),
                fs::read_to_string(place(root.path())).unwrap()
            ),
            (done, "a/done.png\n".to_owned())
        );
        assert!(open.holds("a/done.png").unwrap() && !open.holds("a/given.png").unwrap());
    }

    #[test]
    fn a_list_that_names_other_places_removes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        let mut names = vec![victim.to_str().unwrap(), "../victim", "", "."];
        if cfg!(unix) {
            #[cfg(unix)]
            std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
            names.push("link/victim");
        }
        listed(root.path(), &names);
        // The last line is torn.
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(place(root.path()))
            .unwrap();
        file.write_all(b"victim").unwrap();
        NameLog::open(root.path(), 0).unwrap();
        NameLog::forget(root.path(), true).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn what_is_listed_is_counted_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("own.png"), b"123").unwrap();
        fs::write(root.path().join("other.png"), b"123").unwrap();
        listed(root.path(), &["own.png", "moved-away.png"]);
        for remove in [false, true] {
            let found = NameLog::forget(root.path(), remove).unwrap();
            assert_eq!((found.files, found.records, found.bytes), (1, 1, 3));
        }
        assert_eq!(
            NameLog::forget(root.path(), false).unwrap(),
            CommitStats::default()
        );
        assert!(!root.path().join("own.png").exists() && root.path().join("other.png").exists());
    }
}
