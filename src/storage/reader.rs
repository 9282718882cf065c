//! The reader of a local file or an object.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use rustix::io::Errno;

use super::block_reader::BlockReader;
use crate::error::ErrorClass;

/// A local file. All its handles share the first error of the environment, since libraries report
/// such an error as if the content were damaged.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    /// An error code of the operating system; 0 before the first error.
    failure: Arc<AtomicI32>,
    /// The size in bytes when the file was listed; 0 if unknown.
    size: u64,
}

impl LocalFile {
    fn record<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != ErrorKind::Interrupted
            && !ErrorClass::of(error).concerns_file()
        {
            let code = error.raw_os_error().unwrap_or(Errno::NOMEM.raw_os_error());
            // Later errors may be consequences of the first one.
            let _ = self.failure.compare_exchange(0, code, Relaxed, Relaxed);
        }
        result
    }

    fn try_clone(&self) -> io::Result<Self> {
        let file = self.record(self.file.try_clone())?;
        Ok(Self {
            file,
            failure: Arc::clone(&self.failure),
            size: self.size,
        })
    }

    /// Fails if the file ends before its listed size, since the truncation could cut a value.
    fn check_end(&self) -> io::Result<()> {
        let end = self.record((&self.file).stream_position())?;
        if end >= self.size {
            return Ok(());
        }
        let text = format!("was cut to {end} of {} bytes while it was read", self.size);
        Err(io::Error::new(ErrorKind::UnexpectedEof, text))
    }
}

/// A file with random access.
#[derive(Debug)]
pub enum FileReader {
    /// A local file.
    File(LocalFile),
    /// An object, read by blocks.
    Object(BlockReader),
}

impl FileReader {
    /// The size in bytes.
    ///
    /// # Errors
    /// If the metadata of a local file cannot be read.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(local) => Ok(local.record(local.file.metadata())?.len()),
            Self::Object(blocks) => Ok(blocks.len()),
        }
    }

    /// Another handle to the same file.
    ///
    /// # Errors
    /// If the system cannot duplicate the file descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::File(local) => local.try_clone().map(Self::File),
            Self::Object(blocks) => Ok(Self::Object(blocks.clone())),
        }
    }

    /// The error of the environment that made a read fail, with its class. It is not a verdict on
    /// the file: the unread rows are not rejected, and a later run reads them.
    #[must_use]
    pub fn failure(&self) -> Option<(ErrorClass, io::Error)> {
        match self {
            Self::File(local) => {
                let code = Some(local.failure.load(Relaxed)).filter(|&code| code != 0)?;
                let error = io::Error::from_raw_os_error(code);
                Some((ErrorClass::of(&error), error))
            }
            Self::Object(blocks) => blocks
                .storage_error()
                .map(|error| (ErrorClass::of_store(&error), error)),
        }
    }
}

impl FileReader {
    /// A local file of `size` bytes. A read that reaches the end of the file before `size` fails.
    pub(crate) fn of_size(file: File, size: u64) -> Self {
        Self::File(LocalFile {
            file,
            failure: Arc::default(),
            size,
        })
    }
}

impl From<File> for FileReader {
    fn from(file: File) -> Self {
        Self::of_size(file, 0)
    }
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(local) => {
                let read = local.file.read(into);
                let read = local.record(read)?;
                if read == 0 && !into.is_empty() {
                    local.check_end()?;
                }
                Ok(read)
            }
            Self::Object(blocks) => blocks.read(into),
        }
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(local) => {
                let offset = local.file.seek(to);
                local.record(offset)
            }
            Self::Object(blocks) => blocks.seek(to),
        }
    }
}

impl Length for FileReader {
    fn len(&self) -> u64 {
        match self {
            // The trait cannot return an error, so it is only recorded for `failure`.
            Self::File(local) => local
                .record(local.file.metadata())
                .map_or(0, |metadata| metadata.len()),
            Self::Object(blocks) => blocks.len(),
        }
    }
}

impl ChunkReader for FileReader {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self {
            Self::File(local) => {
                let mut file = Self::File(local.try_clone()?);
                file.seek(SeekFrom::Start(start))?;
                Ok(BufReader::new(file))
            }
            Self::Object(blocks) => Ok(BufReader::new(Self::Object(blocks.at(start)))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Self::File(local) => {
                let mut file = Self::File(local.try_clone()?);
                file.seek(SeekFrom::Start(start))?;
                let mut bytes = Vec::with_capacity(length);
                let read = file.take(length as u64).read_to_end(&mut bytes)?;
                if read != length {
                    return Err(ParquetError::EOF(format!(
                        "expected {length} bytes from offset {start}, read only {read}"
                    )));
                }
                Ok(bytes.into())
            }
            Self::Object(blocks) => Ok(blocks.bytes(start, length)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn file_that_ends_before_its_listed_size_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "a,b\n1,2345").unwrap();
        let read = |size| {
            let mut text = String::new();
            let mut input = FileReader::of_size(File::open(&path).unwrap(), size);
            let result = input
                .read_to_string(&mut text)
                .map_err(|error| error.to_string());
            assert!(input.failure().is_none(), "it is a verdict on the file");
            result
        };
        assert_eq!((read(10), read(4)), (Ok(10), Ok(10)));
        assert_eq!(
            read(1000),
            Err("was cut to 10 of 1000 bytes while it was read".to_owned())
        );
    }
}
