//! An object that is being written: in one request when it is small, else in parts; there once it is finished.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};

use super::Remote;
use super::said::failure;
use super::task::{Pending, begin, wait};

/// Bytes of a part. Stores want 5 MiB at least, all parts but the last of one size, and 10,000 parts at most.
const PART: usize = 8 << 20;
const MOST_PARTS: u64 = 10_000;

/// Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    remote: Remote,
    part: BytesMut,
    begun: Option<Box<dyn MultipartUpload>>,
    /// The part that is on its way, while the next is filled.
    sending: Option<Pending<Result<(), object_store::Error>>>,
    parts: u64,
}

impl Upload {
    pub(super) fn new(remote: Remote) -> Self {
        Self { remote, part: BytesMut::new(), begun: None, sending: None, parts: 0 }
    }

    /// Makes the object visible, whole.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked: then it may be there or not.
    pub fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.part).freeze();
        let path = self.remote.path()?;
        if self.begun.is_none() {
            let store = self.remote.store();
            let put = async move { store.put(&path, PutPayload::from(last)).await };
            return wait(put)?.map(drop).map_err(|error| failure(&error));
        }
        if !last.is_empty() {
            self.send(last)?;
        }
        self.sent()?;
        let Some(mut begun) = self.begun.take() else { return Ok(()) };
        // An upload whose end is in doubt is not aborted: it may be there already.
        wait(async move { begun.complete().await })?.map(drop).map_err(|error| failure(&error))
    }

    /// Sends a part, once the one before has arrived.
    fn send(&mut self, part: Bytes) -> io::Result<()> {
        self.sent()?;
        if self.parts == MOST_PARTS {
            let most = crate::units::Bytes(MOST_PARTS * PART as u64);
            return Err(io::Error::other(format!("an object holds at most {most}; make files smaller")));
        }
        let mut upload = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let (store, path) = (self.remote.store(), self.remote.path()?);
                wait(async move { store.put_multipart(&path).await })?.map_err(|error| failure(&error))?
            }
        };
        let sending = upload.put_part(PutPayload::from(part));
        self.begun = Some(upload);
        self.parts += 1;
        self.sending = Some(begin(sending)?);
        Ok(())
    }

    /// Waits for the part that is on its way.
    fn sent(&mut self) -> io::Result<()> {
        match self.sending.take() {
            Some(sending) => sending.wait()?.map_err(|error| failure(&error)),
            None => Ok(()),
        }
    }
}

impl Write for Upload {
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

impl Drop for Upload {
    fn drop(&mut self) {
        // A part that is still on its way could arrive after the end, and be kept for ever.
        let _ = self.sent();
        if let Some(mut begun) = self.begun.take()
            && let Err(error) =
                wait(async move { begun.abort().await }).and_then(|outcome| outcome.map_err(|e| failure(&e)))
        {
            tracing::warn!("{}: what was sent of it could not be removed: {error}", self.remote);
        }
    }
}
