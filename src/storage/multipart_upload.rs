//! An object that is being written, in parts; there once it is finished.

use std::io::{self, ErrorKind, Write};

use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::{Error, PutPayload};

use super::S3Path;
use super::blocking::{PendingRequest, block_on, spawn};
use super::error::to_io_error;
use super::outage::persist;

/// Bytes of a part. Stores want 5 MiB at least, all parts but the last of one size, and 10,000
/// parts at most.
const PART: usize = 8 << 20;
const MAX_PARTS: usize = 10_000;

/// A part that is on its way.
type PartUpload = PendingRequest<Result<PartId, Error>>;

/// Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct MultipartUpload {
    remote: S3Path,
    note: Option<S3Path>,
    id: String,
    part: BytesMut,
    /// The part that is on its way, while the next is filled.
    in_flight_part: Option<(PartUpload, Bytes)>,
    /// Those that have arrived.
    sent: Vec<PartId>,
    /// Bytes of all parts.
    bytes: u64,
    /// Whether it was asked to be finished: from then on it may be there, whatever was answered.
    completing: bool,
}

impl MultipartUpload {
    /// The note is there before the first byte is sent.
    pub(super) fn begin(remote: S3Path, note: Option<S3Path>) -> io::Result<Self> {
        let path = remote.path()?;
        let id = persist(&remote, || {
            let (store, path) = (remote.store(), path.clone());
            block_on(async move { store.create_multipart(&path).await })?
                .map_err(|error| to_io_error(&error))
        })?;
        let text = remote.read_upload_record(&id)?;
        let (part, in_flight_part, sent) = (BytesMut::new(), None, Vec::new());
        let upload = Self {
            remote,
            note,
            id,
            part,
            in_flight_part,
            sent,
            bytes: 0,
            completing: false,
        };
        upload
            .note
            .as_ref()
            .map_or(Ok(()), |note| note.put(&text))?;
        Ok(upload)
    }

    /// Makes the object visible, whole.
    ///
    /// # Errors
    /// When another run has given it up, the store refuses, or cannot be asked: then it may be
    /// there or not.
    pub fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.part).freeze();
        if !last.is_empty() || self.in_flight_part.is_none() {
            self.send(last)?;
        }
        self.await_part()?;
        self.completing = true;
        let (path, parts) = (self.remote.path()?, std::mem::take(&mut self.sent));
        let finished = persist(&self.remote, || {
            let (store, path, id, parts) = (
                self.remote.store(),
                path.clone(),
                self.id.clone(),
                parts.clone(),
            );
            block_on(async move { store.complete_multipart(&path, &id, parts).await })?
                .map(drop)
                .map_err(|error| to_io_error(&error))
        });
        match finished {
            // An attempt whose answer was lost has ended the upload.
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_there()? => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::other(
                    "another run, which has begun to write here, has given it up",
                ));
            }
            finished => finished?,
        }
        if let Some(note) = &self.note
            && let Err(error) = note.remove()
        {
            tracing::debug!("{note}: could not be removed: {error}");
        }
        Ok(())
    }

    /// Whether the object is there as it was sent. No other writer uses its name, which holds the
    /// epoch.
    fn is_there(&self) -> io::Result<bool> {
        let there = persist(&self.remote, || self.remote.head())?;
        Ok(there.is_some_and(|entry| entry.size == self.bytes))
    }

    /// Sends a part, once the one before has arrived.
    fn send(&mut self, part: Bytes) -> io::Result<()> {
        self.await_part()?;
        if self.sent.len() == MAX_PARTS {
            let most = crate::units::ByteSize(MAX_PARTS as u64 * PART as u64);
            return Err(io::Error::other(format!(
                "an object holds at most {most}; make files smaller"
            )));
        }
        self.bytes += part.len() as u64;
        self.in_flight_part = Some((self.begin_part(part.clone())?, part));
        Ok(())
    }

    fn begin_part(&self, part: Bytes) -> io::Result<PartUpload> {
        let (store, path, id) = (self.remote.store(), self.remote.path()?, self.id.clone());
        let number = self.sent.len();
        spawn(async move {
            store
                .put_part(&path, &id, number, PutPayload::from(part))
                .await
        })
    }

    /// Waits for the part that is on its way.
    fn await_part(&mut self) -> io::Result<()> {
        let Some((sending, part)) = self.in_flight_part.take() else {
            return Ok(());
        };
        let mut sending = Some(sending);
        let arrived = persist(&self.remote, || {
            let sending = sending
                .take()
                .map_or_else(|| self.begin_part(part.clone()), Ok)?;
            sending.wait()?.map_err(|error| to_io_error(&error))
        })?;
        self.sent.push(arrived);
        Ok(())
    }
}

impl Write for MultipartUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == PART {
            let full = std::mem::take(&mut self.part).freeze();
            self.send(full)?;
        }
        let taken = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for MultipartUpload {
    fn drop(&mut self) {
        if self.completing {
            return;
        }
        // A part that is still on its way could arrive after the end, and be kept for ever.
        let _ = self
            .in_flight_part
            .take()
            .map(|(sending, _)| sending.wait());
        let ended = self.remote.abort(self.id.clone());
        let ended = ended.and_then(|()| self.note.as_ref().map_or(Ok(()), S3Path::remove));
        if let Err(error) = ended {
            tracing::warn!(
                "{}: what was sent of it could not be removed: {error}",
                self.remote
            );
        }
    }
}
