//! A file that is open for reading, wherever it lies.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

#[cfg(not(feature = "object-store"))]
use super::absent::Blocks;
#[cfg(feature = "object-store")]
use super::blocks::Blocks;

/// A file that is read from any place in it.
#[derive(Debug)]
pub enum Input {
    /// A file of this machine.
    File(File),
    /// An object, read by blocks.
    Object(Blocks),
}

impl Input {
    /// Its length in bytes.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Object(blocks) => Ok(blocks.len()),
        }
    }

    /// Another handle to the same file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::File(file) => file.try_clone().map(Self::File),
            Self::Object(blocks) => Ok(Self::Object(blocks.clone())),
        }
    }

    /// Why the store could not be asked any more, where that is what made a read fail. Then nothing is wrong with the
    /// file: what could not be read of it is no reject, and another run will read it.
    pub fn lost(&self) -> Option<io::Error> {
        match self {
            Self::File(_) => None,
            Self::Object(blocks) => blocks.lost(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(into),
            Self::Object(blocks) => blocks.read(into),
        }
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Object(blocks) => blocks.seek(to),
        }
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            Self::Object(blocks) => blocks.len(),
        }
    }
}

impl ChunkReader for Input {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self {
            Self::File(file) => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(start))?;
                Ok(BufReader::new(Self::File(file)))
            }
            Self::Object(blocks) => Ok(BufReader::new(Self::Object(blocks.at(start)))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Object(blocks) => Ok(blocks.bytes(start, length)?),
        }
    }
}
