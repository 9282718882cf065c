//! Requests for an object before it is read, so that many objects take the latency of one.

use std::io;

use super::block_reader::BlockReader;
use super::blocking::PendingRequest;
use super::{FileReader, S3Path, StoreEntry};

/// A requested object: its entry and its first and last block, where readers start.
#[derive(Debug)]
pub struct PrefetchedObject {
    head: PendingRequest<io::Result<Option<StoreEntry>>>,
    blocks: BlockReader,
}

impl PrefetchedObject {
    pub(super) fn start(object: &S3Path, size: u64, etag: Option<&str>) -> io::Result<Self> {
        let blocks = object.block_reader(size, etag);
        blocks.prefetch_ends()?;
        Ok(Self {
            head: object.request_head()?,
            blocks,
        })
    }

    /// Waits for the entry of the object, which is `None` if the object no longer exists.
    ///
    /// # Errors
    /// If the request for the entry fails. Errors of the content are returned when it is read.
    pub fn wait(self) -> io::Result<(Option<StoreEntry>, FileReader)> {
        Ok((self.head.wait()??, FileReader::Object(self.blocks)))
    }
}
