//! Writes objects: whole ones, exclusively created ones, and uploads in parts.

use std::io::{self, ErrorKind};

use bytes::Bytes;

use crate::storage::multipart_upload::MultipartUpload;
use crate::storage::object::ObjectPath;
use crate::storage::object_client::{PendingRequest, UploadFence, wait};
use crate::storage::outage::retry_while_unavailable;

/// Maximum number of attempts to create an object that the store reports as existing but cannot
/// return.
const CREATE_ATTEMPTS: usize = 10;

impl ObjectPath {
    /// Writes or replaces an object.
    ///
    /// # Errors
    /// If the request fails.
    pub fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let payload = Bytes::copy_from_slice(bytes);
        retry_while_unavailable(self, || wait(self.client.put(&self.key, payload.clone())))
    }

    /// Writes an object that does not exist yet. Returns `false` if one with other content exists.
    /// An object with the same content counts as written by this call, since the response to an
    /// earlier attempt may have been lost. Callers therefore need content that differs from that of
    /// other writers, unless they may accept theirs.
    ///
    /// # Errors
    /// If the request fails.
    pub(crate) fn put_if_absent(&self, bytes: &[u8]) -> io::Result<bool> {
        let payload = Bytes::copy_from_slice(bytes);
        for _ in 0..CREATE_ATTEMPTS {
            let created = retry_while_unavailable(self, || {
                wait(self.client.create(&self.key, payload.clone()))
            })?;
            if created {
                return Ok(true);
            }
            match self.read(None) {
                Ok(there) => return Ok(there == bytes),
                // Another writer started to create the object but did not complete it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "the store refuses to create this object because it exists, but reports it as missing \
             when it is read",
        ))
    }

    /// Removes an object. A missing object is not an error.
    ///
    /// # Errors
    /// If the request fails.
    pub fn remove(&self) -> io::Result<()> {
        wait(self.client.delete(&self.key))
    }

    /// Starts to write an object, which becomes visible when it is finished. Until then
    /// `upload_record` holds the upload identifier, with which the upload can be aborted.
    ///
    /// # Errors
    /// If the request fails.
    pub fn upload(&self, upload_record: Option<Self>) -> io::Result<MultipartUpload> {
        MultipartUpload::begin(self.clone(), upload_record)
    }

    /// Aborts the upload of this record, regardless of the process that started it, and
    /// removes the record. The upload can then no longer be finished.
    ///
    /// # Errors
    /// If a request fails, or if the record is not valid JSON.
    pub(crate) fn abort_recorded_upload(&self) -> io::Result<()> {
        let text = match self.read(None) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let (key, id): (String, String) =
            serde_json::from_slice(&text).map_err(io::Error::other)?;
        self.with_key(key).abort_upload(&id)?;
        self.remove()
    }

    /// Encodes the record of the upload `id` of this object.
    pub(in crate::storage) fn encode_upload_record(&self, id: &str) -> io::Result<Vec<u8>> {
        serde_json::to_vec(&(&self.key, id)).map_err(io::Error::other)
    }

    /// What the store offers to exclude the upload of an earlier run.
    pub(in crate::storage) fn upload_fence(&self) -> UploadFence {
        self.client.upload_fence()
    }

    /// Starts an upload and returns its identifier.
    pub(in crate::storage) fn start_upload(&self) -> io::Result<String> {
        retry_while_unavailable(self, || wait(self.client.start_upload(&self.key)))
    }

    /// Sends a part of the upload `id` without waiting for its arrival.
    pub(in crate::storage) fn send_part(
        &self,
        id: &str,
        number: usize,
        part: Bytes,
    ) -> PendingRequest<String> {
        self.client.put_part(&self.key, id, number, part)
    }

    /// Completes the upload `id`.
    pub(in crate::storage) fn complete_upload(&self, id: &str, parts: &[String]) -> io::Result<()> {
        retry_while_unavailable(self, || {
            wait(self.client.complete_upload(&self.key, id, parts.to_vec()))
        })
    }

    /// Aborts an upload and removes its parts. A finished or aborted upload is not an error.
    pub(in crate::storage) fn abort_upload(&self, id: &str) -> io::Result<()> {
        wait(self.client.abort_upload(&self.key, id))
    }
}
