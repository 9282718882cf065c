//! A file that is being written, wherever it will lie: nobody sees it before it is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Location, MultipartUpload, S3Path};
use crate::error::StageError;
use crate::fs_durable::{create_temp, failpoint, fsync_dir, temp_path};

/// Dropped before it is finished, it is as if it had never been; after a crash, too.
#[derive(Debug)]
pub struct AtomicWriter {
    location: Location,
    place: WriterTarget,
    bytes: u64,
}

#[derive(Debug)]
enum WriterTarget {
    /// A file under a temporary name, and the name that it will bear.
    File(File, PathBuf),
    Object(Box<MultipartUpload>),
}

impl AtomicWriter {
    pub(super) fn begin(location: &Location, note: Option<S3Path>) -> Result<Self, StageError> {
        let place = match location {
            Location::Local(path) => {
                let unfinished = temp_path(path);
                WriterTarget::File(
                    create_temp(&unfinished).map_err(StageError::io(&unfinished))?,
                    path.clone(),
                )
            }
            Location::Remote(remote) => WriterTarget::Object(Box::new(
                remote
                    .upload(note)
                    .map_err(|error| location.io_error(error))?,
            )),
        };
        Ok(Self {
            location: location.clone(),
            place,
            bytes: 0,
        })
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the file its name, durably. Nothing may be written to it then.
    ///
    /// # Errors
    /// When it cannot be made durable; then it may bear its name or not.
    pub fn finish(&mut self) -> Result<(), StageError> {
        match &mut self.place {
            WriterTarget::File(file, path) => {
                file.sync_all().map_err(StageError::io(&*path))?;
                failpoint("synced");
                fs::rename(temp_path(path), &*path).map_err(StageError::io(&*path))?;
                failpoint("renamed");
                fsync_dir(path.parent().unwrap_or(Path::new(".")))?;
            }
            WriterTarget::Object(upload) => upload
                .finish()
                .map_err(|error| self.location.io_error(error))?,
        }
        failpoint("durable");
        Ok(())
    }
}

impl Write for AtomicWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.place {
            WriterTarget::File(file, _) => file.write(bytes)?,
            WriterTarget::Object(upload) => upload.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.place {
            WriterTarget::File(file, _) => file.flush(),
            WriterTarget::Object(upload) => upload.flush(),
        }
    }
}
