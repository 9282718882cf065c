//! Reads at a position of a file.

use std::fs::File;
use std::io;

/// Reads bytes at a position, without a cursor.
#[cfg(unix)]
pub(in crate::data) fn read_at(file: &File, into: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, start)
}

/// Reads bytes at a position, without a cursor.
#[cfg(windows)]
pub(in crate::data) fn read_at(file: &File, mut into: &mut [u8], mut start: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                let rest = into;
                (into, start) = (&mut rest[read..], start + read as u64);
            }
        }
    }
    Ok(())
}
