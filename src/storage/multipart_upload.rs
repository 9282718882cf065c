//! The writer of an object in parts, which becomes visible when the upload is completed.

use std::io::{self, ErrorKind, Write};

use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::{Error, PutPayload};

use super::S3Path;
use super::blocking::{PendingRequest, block_on, spawn};
use super::error::to_io_error;
use super::outage::retry_while_unavailable;

/// Size of a part in bytes. Stores require at least 5 MiB, the same size for all parts but the
/// last, and at most 10,000 parts.
const PART: usize = 8 << 20;
const MAX_PARTS: usize = 10_000;

/// A part that is in flight.
type PartUpload = PendingRequest<Result<PartId, Error>>;

/// An upload. Dropping it before it is finished aborts it and removes its parts.
#[derive(Debug)]
pub struct MultipartUpload {
    remote: S3Path,
    upload_record: Option<S3Path>,
    id: String,
    part: BytesMut,
    /// The part that is in flight while the next one is filled.
    in_flight_part: Option<(PartUpload, Bytes)>,
    /// The parts that have arrived.
    sent: Vec<PartId>,
    /// Size of all parts in bytes.
    bytes: u64,
    /// Whether the completion was requested. The object may exist from then on, even if the request
    /// failed.
    completing: bool,
}

impl MultipartUpload {
    /// Starts an upload, and writes `upload_record` before the first byte is sent.
    pub(super) fn begin(remote: S3Path, upload_record: Option<S3Path>) -> io::Result<Self> {
        let path = remote.path()?;
        let id = retry_while_unavailable(&remote, || {
            let (store, path) = (remote.store(), path.clone());
            block_on(async move { store.create_multipart(&path).await })?
                .map_err(|error| to_io_error(&error))
        })?;
        let text = remote.encode_upload_record(&id)?;
        let (part, in_flight_part, sent) = (BytesMut::new(), None, Vec::new());
        let upload = Self {
            remote,
            upload_record,
            id,
            part,
            in_flight_part,
            sent,
            bytes: 0,
            completing: false,
        };
        upload
            .upload_record
            .as_ref()
            .map_or(Ok(()), |record| record.put(&text))?;
        Ok(upload)
    }

    /// Completes the upload, which makes the object visible.
    ///
    /// # Errors
    /// If another run has aborted the upload, or if the request fails. After an error the object
    /// may exist.
    pub fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.part).freeze();
        if !last.is_empty() || self.in_flight_part.is_none() {
            self.send(last)?;
        }
        self.await_part()?;
        self.completing = true;
        let (path, parts) = (self.remote.path()?, std::mem::take(&mut self.sent));
        let finished = retry_while_unavailable(&self.remote, || {
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
            // An earlier attempt, whose response was lost, has completed the upload.
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_there()? => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::other(
                    "another run, which has started to write here, has aborted this upload",
                ));
            }
            finished => finished?,
        }
        if let Some(upload_record) = &self.upload_record
            && let Err(error) = upload_record.remove()
        {
            tracing::debug!(
                location = %upload_record, %error,
                "cannot remove the record of an upload"
            );
        }
        Ok(())
    }

    /// Whether the object exists with the size that was sent. No other writer uses its name, which
    /// contains the epoch.
    fn is_there(&self) -> io::Result<bool> {
        let there = retry_while_unavailable(&self.remote, || self.remote.head())?;
        Ok(there.is_some_and(|entry| entry.size == self.bytes))
    }

    /// Sends a part after the previous one has arrived.
    fn send(&mut self, part: Bytes) -> io::Result<()> {
        self.await_part()?;
        if self.sent.len() == MAX_PARTS {
            let max_size = crate::units::ByteSize(MAX_PARTS as u64 * PART as u64);
            return Err(io::Error::other(format!(
                "an object holds at most {max_size}; configure smaller files"
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

    /// Waits for the part that is in flight.
    fn await_part(&mut self) -> io::Result<()> {
        let Some((sending, part)) = self.in_flight_part.take() else {
            return Ok(());
        };
        let mut sending = Some(sending);
        let arrived = retry_while_unavailable(&self.remote, || {
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
        // A part that arrives after the abort would stay in the bucket.
        let _ = self
            .in_flight_part
            .take()
            .map(|(sending, _)| sending.wait());
        let ended = self.remote.abort(self.id.clone());
        let ended = ended.and_then(|()| self.upload_record.as_ref().map_or(Ok(()), S3Path::remove));
        if let Err(error) = ended {
            tracing::warn!(
                location = %self.remote, %error,
                "cannot remove the parts of an unfinished upload"
            );
        }
    }
}
