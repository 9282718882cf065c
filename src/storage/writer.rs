//! The writer of a local file or an object that becomes visible only when it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Location, MultipartUpload, ObjectPath};
use crate::error::StageError;
use crate::fs_durable::{create_temp, failpoint, fsync_dir, temp_path};

/// A writer. A file that is not finished, because the writer was dropped or the process crashed,
/// does not become visible.
#[derive(Debug)]
pub(crate) struct AtomicWriter {
    location: Location,
    target: WriterTarget,
    bytes: u64,
}

#[derive(Debug)]
enum WriterTarget {
    /// A file with a temporary name, and its final path.
    File(File, PathBuf),
    Object(Box<MultipartUpload>),
}

impl AtomicWriter {
    pub(super) fn begin(
        location: &Location,
        upload_record: Option<ObjectPath>,
    ) -> Result<Self, StageError> {
        let target = match location {
            Location::Local(path) => {
                let temporary = temp_path(path);
                WriterTarget::File(
                    create_temp(&temporary).map_err(StageError::io(&temporary))?,
                    path.clone(),
                )
            }
            Location::Remote(remote) => WriterTarget::Object(Box::new(
                remote
                    .upload(upload_record)
                    .map_err(|error| location.io_error(error))?,
            )),
        };
        Ok(Self {
            location: location.clone(),
            target,
            bytes: 0,
        })
    }

    /// Number of bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the file durable and visible. The caller must not write to it afterwards.
    ///
    /// # Errors
    /// If it cannot be made durable. The file may be visible after an error.
    pub fn finish(&mut self) -> Result<(), StageError> {
        match &mut self.target {
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
        let written = match &mut self.target {
            WriterTarget::File(file, _) => file.write(bytes)?,
            WriterTarget::Object(upload) => upload.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            WriterTarget::File(file, _) => file.flush(),
            WriterTarget::Object(upload) => upload.flush(),
        }
    }
}
