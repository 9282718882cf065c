//! Reads small files that others wrote, in bounded memory and without waiting.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// If it cannot be read, is larger, or is not a regular file.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let opened = open(path)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    opened.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(content)
}

/// Opens a file. If it is a pipe, the call does not wait for a writer.
fn open(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        File::options().read(true).custom_flags(flags).open(path)
    }
    #[cfg(not(unix))]
    File::open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn folder_and_larger_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"1234").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap(), b"1234");
        let refused = |of: &Path, max| read_bounded(of, max).unwrap_err().to_string();
        assert_eq!(refused(&path, 3), "larger than 3 bytes");
        assert_eq!(refused(folder.path(), 3), "not a regular file");
    }
}
