//! The writer of an object in parts, which becomes visible when the upload is completed.

use std::io::{self, ErrorKind, Write};

use bytes::{Bytes, BytesMut};

use super::ObjectPath;
use super::object_client::{PendingRequest, UploadFence, wait};
use super::outage::{UNREACHABLE, retry_while_unavailable};

/// Size of a part in bytes. Stores require at least 5 MiB, the same size for all parts but the
/// last, and at most 10,000 parts.
const PART: usize = 8 << 20;
const MAX_PARTS: usize = 10_000;

/// An upload. Dropping it before it is finished aborts it and removes its parts.
#[derive(Debug)]
pub struct MultipartUpload {
    remote: ObjectPath,
    /// The location of the record, and whether the record was written.
    upload_record: Option<(ObjectPath, bool)>,
    id: String,
    part: BytesMut,
    /// The part that is in flight while the next one is filled.
    in_flight_part: Option<(PendingRequest<String>, Bytes)>,
    /// The identifiers of the parts that have arrived.
    sent: Vec<String>,
    /// Size of all parts in bytes.
    bytes: u64,
    /// Whether the completion was requested. The object may exist from then on, even if the request
    /// failed.
    completing: bool,
}

impl MultipartUpload {
    /// Starts an upload. `upload_record` is written as soon as an abort of the upload prevents its
    /// completion: before the first byte is sent, or with [`UploadFence::FirstPart`] when the first
    /// bytes have arrived.
    pub(super) fn begin(remote: ObjectPath, upload_record: Option<ObjectPath>) -> io::Result<Self> {
        let id = remote.start_upload()?;
        let mut upload = Self {
            remote,
            upload_record: upload_record.map(|record| (record, false)),
            id,
            part: BytesMut::new(),
            in_flight_part: None,
            sent: Vec::new(),
            bytes: 0,
            completing: false,
        };
        if upload.remote.upload_fence() == UploadFence::Identifier {
            upload.record()?;
        }
        Ok(upload)
    }

    /// Writes the record of the upload, unless it was written.
    fn record(&mut self) -> io::Result<()> {
        if let Some((location, is_written)) = &mut self.upload_record
            && !*is_written
        {
            location.put(&self.remote.encode_upload_record(&self.id)?)?;
            *is_written = true;
        }
        Ok(())
    }

    /// Completes the upload, which makes the object visible.
    ///
    /// # Errors
    /// If another run has aborted the upload, or if the request fails. After an error the object
    /// may exist.
    pub fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.part).freeze();
        let is_empty = self.sent.is_empty() && self.in_flight_part.is_none();
        if !last.is_empty() || is_empty {
            self.send(last)?;
        }
        self.await_part()?;
        self.completing = true;
        match self.remote.complete_upload(&self.id, &self.sent) {
            Ok(()) => {}
            Err(error) if error.kind() == UNREACHABLE => return Err(error),
            // An earlier attempt, whose response was lost, has completed the upload.
            Err(_) if self.is_there()? => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::other(
                    "another run, which has started to write here, has aborted this upload",
                ));
            }
            Err(error) => return Err(error),
        }
        if let Some((upload_record, _)) = &self.upload_record
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
        self.in_flight_part = Some((self.begin_part(part.clone()), part));
        Ok(())
    }

    fn begin_part(&self, part: Bytes) -> PendingRequest<String> {
        self.remote.send_part(&self.id, self.sent.len(), part)
    }

    /// Waits for the part that is in flight.
    fn await_part(&mut self) -> io::Result<()> {
        let Some((sending, part)) = self.in_flight_part.take() else {
            return Ok(());
        };
        let mut sending = Some(sending);
        let arrived = retry_while_unavailable(&self.remote, || {
            wait(
                sending
                    .take()
                    .unwrap_or_else(|| self.begin_part(part.clone())),
            )
        })?;
        self.sent.push(arrived);
        self.record()
    }
}

impl Write for MultipartUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_first = self.sent.is_empty() && self.in_flight_part.is_none();
        if is_first && !bytes.is_empty() && self.remote.upload_fence() == UploadFence::FirstPart {
            // The record has to precede the check of the epoch, and thus the end of the file.
            let taken = bytes.len().min(PART);
            self.send(Bytes::copy_from_slice(&bytes[..taken]))?;
            self.await_part()?;
            return Ok(taken);
        }
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
        let is_untouched = self.bytes == 0 && self.remote.upload_fence() == UploadFence::FirstPart;
        if self.completing || is_untouched {
            return;
        }
        // A part that arrives after the abort would stay in the bucket.
        let _ = self.in_flight_part.take().map(|(sending, _)| wait(sending));
        let ended = self.remote.abort_upload(&self.id);
        let record = self.upload_record.as_ref();
        let ended = ended.and_then(|()| record.map_or(Ok(()), |(record, _)| record.remove()));
        if let Err(error) = ended {
            tracing::warn!(
                location = %self.remote, %error,
                "cannot remove the parts of an unfinished upload"
            );
        }
    }
}
