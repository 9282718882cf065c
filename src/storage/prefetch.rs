//! Requests for an object before it is read, so that many objects take the latency of one.

use std::io;

use super::block_reader::BlockReader;
use super::object_client::{PendingRequest, wait};
use super::{FileReader, ObjectPath};
use crate::storage::listing::StoreEntry;

/// A requested object: its entry and its first and last block, where readers start.
#[derive(Debug)]
pub(crate) struct PrefetchedObject {
    head: PendingRequest<Option<StoreEntry>>,
    blocks: BlockReader,
}

impl PrefetchedObject {
    pub(super) fn start(object: &ObjectPath, size: u64, etag: Option<&str>) -> Self {
        let blocks = object.block_reader(size, etag);
        blocks.prefetch_ends();
        Self {
            head: object.request_head(),
            blocks,
        }
    }

    /// Waits for the entry of the object, which is `None` if the object no longer exists.
    ///
    /// # Errors
    /// If the request for the entry fails. Errors of the content are returned when it is read.
    pub fn wait(self) -> io::Result<(Option<StoreEntry>, FileReader)> {
        Ok((wait(self.head)?, FileReader::Object(self.blocks)))
    }
}
