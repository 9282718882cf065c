//! A folder that is kept open while its files are looked at and read: from there, the system need not find its way anew for
//! each of them, which takes as long as the look.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

/// The folder of the file that was asked for last.
#[derive(Default)]
pub(super) struct Folder(Option<(PathBuf, OwnedFd)>);

impl Folder {
    /// What the system knows of a file; of the file that it leads to, where `follow` says so.
    pub(super) fn look(&mut self, file: &Path, follow: bool) -> io::Result<Stat> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let (folder, name) = self.of(file)?;
        Ok(statat(folder, name, flags)?)
    }

    /// As [`open`].
    pub(super) fn open(&mut self, file: &Path) -> io::Result<File> {
        let (folder, name) = self.of(file)?;
        open_at(folder, name)
    }

    /// The folder of a file, and its name in there.
    fn of<'a>(&mut self, file: &'a Path) -> io::Result<(&OwnedFd, &'a Path)> {
        let name = file.file_name().map(Path::new).ok_or(io::ErrorKind::InvalidInput)?;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let known = match self.0.take().filter(|(path, _)| path.as_os_str() == parent.as_os_str()) {
            Some(known) => known,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                (parent.to_path_buf(), openat(CWD, parent, flags, Mode::empty())?)
            }
        };
        Ok((&self.0.insert(known).1, name))
    }
}

/// Opens a file to read. That a pipe has been put in its place must be seen rather than waited for: its writer may never
/// come.
pub(super) fn open(file: &Path) -> io::Result<File> {
    open_at(CWD, file)
}

fn open_at(folder: impl AsFd, file: &Path) -> io::Result<File> {
    match openat(&folder, file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(opened) => Ok(opened.into()),
        // Somebody has a lease on the file, and is asked to give it back: that is waited for. It cannot be a pipe.
        Err(Errno::WOULDBLOCK) => Ok(openat(&folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Read;

    use super::*;

    #[test]
    fn files_are_found_in_one_folder_after_the_other() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::default();
        for (name, text) in [("a/1", "one"), ("a/2", "other"), ("b/1", "third"), ("a/1", "one")] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let mut read = String::new();
            folder.open(&path).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!((read.as_str(), folder.look(&path, false).unwrap().st_size), (text, text.len() as i64));
        }
        let missing = folder.open(&root.path().join("b/2")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(folder.look(&root.path().join("c/1"), true).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
