//! A file that is being written, wherever it will lie: nobody sees it before it is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Location, Remote, Upload};
use crate::durable::{crash_point, create, sync_folder, temporary};
use crate::error::StageError;

/// Dropped before it is finished, it is as if it had never been; after a crash, too.
#[derive(Debug)]
pub struct Output {
    location: Location,
    place: Place,
    bytes: u64,
}

#[derive(Debug)]
enum Place {
    /// A file under a temporary name, and the name that it will bear.
    File(File, PathBuf),
    Object(Box<Upload>),
}

impl Output {
    pub(super) fn begin(location: &Location, note: Option<Remote>) -> Result<Self, StageError> {
        let place = match location {
            Location::Local(path) => {
                let unfinished = temporary(path);
                Place::File(create(&unfinished).map_err(StageError::io(&unfinished))?, path.clone())
            }
            Location::Remote(remote) => {
                Place::Object(Box::new(remote.upload(note).map_err(|error| location.failed(error))?))
            }
        };
        Ok(Self { location: location.clone(), place, bytes: 0 })
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
            Place::File(file, path) => {
                file.sync_all().map_err(StageError::io(&*path))?;
                crash_point("synced");
                fs::rename(temporary(path), &*path).map_err(StageError::io(&*path))?;
                crash_point("renamed");
                sync_folder(path.parent().unwrap_or(Path::new(".")))?;
            }
            Place::Object(upload) => upload.finish().map_err(|error| self.location.failed(error))?,
        }
        crash_point("durable");
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.place {
            Place::File(file, _) => file.write(bytes)?,
            Place::Object(upload) => upload.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::File(file, _) => file.flush(),
            Place::Object(upload) => upload.flush(),
        }
    }
}
