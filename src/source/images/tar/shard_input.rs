//! The bytes of a shard: a plain file, or a compressed one, which is only read forward.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use crate::source::discovery::compression::DecompressingReader;
use crate::storage::FileReader;

/// The opened content of a shard.
pub(crate) enum ShardInput {
    Plain(BufReader<FileReader>),
    Compressed(BufReader<ForwardReader>),
}

/// Decompressed content with its position.
pub(crate) struct ForwardReader {
    pub(super) content: DecompressingReader<'static>,
    pub(super) position: u64,
}

impl Read for ForwardReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Read for ShardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Compressed(content) => content.read(buffer),
        }
    }
}

impl Seek for ShardInput {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match (self, to) {
            // Keeps the buffer, unlike `seek`: most steps skip the padding of a member.
            (Self::Plain(file), SeekFrom::Current(by)) => {
                file.seek_relative(by).and_then(|()| file.stream_position())
            }
            (Self::Plain(file), to) => file.seek(to),
            (Self::Compressed(content), SeekFrom::Current(by)) => {
                let missing = u64::try_from(by).map_err(io::Error::other)?;
                io::copy(&mut content.by_ref().take(missing), &mut io::sink())?;
                Ok(content.get_ref().position - content.buffer().len() as u64)
            }
            (Self::Compressed(_), _) => Err(io::Error::other("compressed content has no index")),
        }
    }
}

impl ShardInput {
    /// Whether the rest has other bytes than zeros.
    pub(super) fn has_rest(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(false),
                read if buffer[..read].iter().any(|&byte| byte != 0) => return Ok(true),
                _ => {}
            }
        }
    }

    /// The first bytes of the content.
    pub(super) fn start(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(file) => file.fill_buf(),
            Self::Compressed(content) => content.fill_buf(),
        }
    }

    /// Whether the content has this length, as far as that is known.
    pub(super) fn ends_before(&self, end: u64, file_size: u64) -> bool {
        matches!(self, Self::Plain(_)) && end > file_size
    }
}
