//! What is asked of a store before it is wanted, so that many requests take the time of one.

use std::io;

use super::block_reader::BlockReader;
use super::blocking::PendingRequest;
use super::{FileReader, S3Path, StoreEntry};

/// An object that will be read: what the store knows of it, and its ends, where readers begin.
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

    /// Waits for what the store knows of the object; `None` where there is none any more.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked. What is wrong with the bytes shows when they are
    /// read.
    pub fn wait(self) -> io::Result<(Option<StoreEntry>, FileReader)> {
        Ok((self.head.wait()??, FileReader::Object(self.blocks)))
    }
}
