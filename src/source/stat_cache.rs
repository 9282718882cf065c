//! Files as they are looked at and opened: from their folder, which is kept open, and without
//! waiting for anybody.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use walkdir::DirEntry;

use crate::storage::mtime_ns;

/// The folder of the file that was looked at last: from there, the system need not find its way
/// anew for each file, which takes as long as the look.
#[derive(Default)]
pub(super) struct DirHandle {
    #[cfg(unix)]
    open: Option<(std::path::PathBuf, std::os::fd::OwnedFd)>,
}

impl DirHandle {
    /// Length and modification time of a file, as [`size_and_time`]; of the file that a link leads
    /// to, since only who follows links is told of that one.
    #[cfg(unix)]
    pub(super) fn stat(&mut self, file: &DirEntry) -> io::Result<(u64, i64)> {
        use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
        let parent = file
            .path()
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let known = match self
            .open
            .take()
            .filter(|(path, _)| path.as_os_str() == parent.as_os_str())
        {
            Some(known) => known,
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
        let found = statat(&self.open.insert(known).1, file.file_name(), flags)?;
        let time = i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec);
        let least_or_most = if time < 0 { i64::MIN } else { i64::MAX };
        Ok((
            u64::try_from(found.st_size).unwrap_or(0),
            i64::try_from(time).unwrap_or(least_or_most),
        ))
    }

    /// Length and modification time of a file, as [`size_and_time`].
    #[cfg(not(unix))]
    pub(super) fn stat(&mut self, file: &DirEntry) -> io::Result<(u64, i64)> {
        Ok(size_and_time(&file.metadata()?))
    }
}

/// Length, and modification time in nanoseconds since 1970 (0 where the system keeps none).
pub(super) fn size_and_time(metadata: &Metadata) -> (u64, i64) {
    (metadata.len(), mtime_ns(metadata))
}

/// Opens a file to read. That a pipe has been put in its place must be seen rather than waited for:
/// its writer may never come.
pub(super) fn open(file: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        match File::options().read(true).custom_flags(flags).open(file) {
            // Somebody has a lease on the file, and is asked to give it back: that is waited for.
            // It cannot be a pipe.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            opened => return opened,
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
    fn a_look_from_the_folder_tells_what_one_by_the_path_does() {
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
        let looked: Vec<_> = files
            .map(|file| {
                (
                    folder.stat(&file).unwrap(),
                    fs::metadata(file.path()).unwrap(),
                )
            })
            .collect();
        assert_eq!(looked.len(), 3);
        for (found, metadata) in looked {
            assert_eq!(found, size_and_time(&metadata));
        }
    }
}
