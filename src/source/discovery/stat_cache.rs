//! Calls of `stat` relative to an open folder, and opening of files without blocking on pipes.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use walkdir::DirEntry;

use crate::storage::local::mtime_ns;

/// The open folder of the last file. A `stat` relative to it does not resolve the path again for
/// each file, which takes as long as the `stat` itself.
#[derive(Default)]
pub(crate) struct DirHandle {
    #[cfg(unix)]
    open: Option<(std::path::PathBuf, std::os::fd::OwnedFd)>,
}

impl DirHandle {
    /// Length and modification time of a file, as [`size_and_time`]. Links are followed, because a
    /// walk reports them as files only if it follows links.
    #[cfg(unix)]
    pub(crate) fn stat(&mut self, file: &DirEntry) -> io::Result<(u64, i64)> {
        use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
        let parent = file
            .path()
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let folder = match self
            .open
            .take()
            .filter(|(path, _)| path.as_os_str() == parent.as_os_str())
        {
            Some(folder) => folder,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                (
                    parent.to_path_buf(),
                    openat(CWD, parent, flags, Mode::empty())?,
                )
            }
        };
        let flags = if file.path_is_symlink() {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        let found = statat(&self.open.insert(folder).1, file.file_name(), flags)?;
        let time = i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec);
        let limit = if time < 0 { i64::MIN } else { i64::MAX };
        Ok((
            u64::try_from(found.st_size).unwrap_or(0),
            i64::try_from(time).unwrap_or(limit),
        ))
    }

    /// Length and modification time of a file, as [`size_and_time`].
    #[cfg(not(unix))]
    pub(crate) fn stat(&mut self, file: &DirEntry) -> io::Result<(u64, i64)> {
        Ok(size_and_time(&file.metadata()?))
    }
}

/// Length in bytes, and modification time in nanoseconds since 1970 (0 if the system does not store
/// one).
pub(crate) fn size_and_time(metadata: &Metadata) -> (u64, i64) {
    (metadata.len(), mtime_ns(metadata))
}

/// Opens a file to read. The open does not block if the file was replaced by a pipe, which may
/// never get a writer.
pub(crate) fn open(file: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        match File::options().read(true).custom_flags(flags).open(file) {
            // Another process holds a lease on the file. The blocking open below waits for its
            // release. The file cannot be a pipe.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    File::open(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use walkdir::WalkDir;

    use super::*;

    #[test]
    fn stat_relative_to_folder_equals_stat_by_path() {
        let root = tempfile::tempdir().unwrap();
        let long_ago = UNIX_EPOCH - Duration::new(1000, 5);
        for (name, time) in [
            ("a/1", SystemTime::now()),
            ("a/22", long_ago),
            ("b/333", UNIX_EPOCH),
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let mut folder = DirHandle::default();
        let files = WalkDir::new(root.path())
            .into_iter()
            .map(Result::unwrap)
            .filter(|e| e.file_type().is_file());
        let results: Vec<_> = files
            .map(|file| {
                (
                    folder.stat(&file).unwrap(),
                    fs::metadata(file.path()).unwrap(),
                )
            })
            .collect();
        assert_eq!(results.len(), 3);
        for (found, metadata) in results {
            assert_eq!(found, size_and_time(&metadata));
        }
    }
}
