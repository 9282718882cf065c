//! The reader of an object by blocks, which makes few large requests and reads ahead.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::ObjectPath;
use super::object_client::{PendingRequest, wait};
use crate::error::ErrorClass;

/// Size of a block in bytes. Its transfer takes at least about as long as the latency of a
/// request.
const BLOCK: u64 = 1 << 20;
/// Maximum number of cached blocks, and thus of Parquet columns that are read concurrently.
const MAX_CACHED_BLOCKS: usize = 32;
/// Number of blocks to read ahead while an object is read in order.
const READ_AHEAD_BLOCKS: u64 = 4;

/// An object and a read position. Clones share their blocks.
#[derive(Debug, Clone)]
pub struct BlockReader {
    object: Arc<BlockObject>,
    offset: u64,
}

#[derive(Debug)]
struct BlockObject {
    remote: ObjectPath,
    size: u64,
    etag: Option<String>,
    cache: Mutex<BlockCache>,
}

#[derive(Debug, Default)]
struct BlockCache {
    /// The most recently used block is the first.
    blocks: VecDeque<(u64, BlockState)>,
    /// The first error that is not a verdict on the object.
    failure: Option<(ErrorKind, String)>,
}

#[derive(Debug)]
enum BlockState {
    Ready(Bytes),
    InFlight(PendingRequest<Bytes>),
}

impl BlockReader {
    /// A reader at the start of `remote`, which has `size` bytes and the entity tag `etag`.
    pub(super) fn new(remote: ObjectPath, size: u64, etag: Option<String>) -> Self {
        Self {
            object: Arc::new(BlockObject {
                remote,
                size,
                etag,
                cache: Mutex::default(),
            }),
            offset: 0,
        }
    }

    /// Size of the object in bytes.
    pub(super) fn len(&self) -> u64 {
        self.object.size
    }

    /// Another reader of the same object at `offset`.
    pub(super) fn at(&self, offset: u64) -> Self {
        Self {
            object: Arc::clone(&self.object),
            offset,
        }
    }

    /// Requests the first and the last block, where readers start, without waiting for them.
    pub(super) fn prefetch_ends(&self) {
        let Some(last) = self.object.size.checked_sub(1).map(|last| last / BLOCK) else {
            return;
        };
        let mut cache = self.object.cache.lock();
        for number in [last, 0] {
            if !cache.has(number) {
                let request = self.object.request(self.object.range(number));
                cache.put(number, BlockState::InFlight(request));
            }
        }
    }

    /// The `length` bytes from the offset `start`.
    pub(super) fn bytes(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.object.size {
            let what = format!(
                "expected {length} bytes from offset {start}, but the object has {} bytes",
                self.object.size
            );
            return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        }
        // The blocks of a long range would evict the blocks of other columns.
        if length as u64 > BLOCK {
            return wait(self.object.request(start..end))
                .map_err(|error| self.object.record_error(error));
        }
        let first = self.object.part(start, end)?;
        if first.len() == length {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&self.object.part(start + first.len() as u64, end)?);
        Ok(bytes.freeze())
    }

    /// The error of the store that made a read fail.
    pub(super) fn storage_error(&self) -> Option<io::Error> {
        self.object
            .cache
            .lock()
            .failure
            .clone()
            .map(|(kind, text)| io::Error::new(kind, text))
    }
}

impl BlockObject {
    /// The bytes from `start` to `end` that are in the block of `start`.
    fn part(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let number = start / BLOCK;
        let block = self
            .block(number)
            .map_err(|error| self.record_error(error))?;
        let within = |offset: u64| {
            usize::try_from(offset - number * BLOCK)
                .unwrap_or(usize::MAX)
                .min(block.len())
        };
        Ok(block.slice(within(start)..within(end)))
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut cache = self.cache.lock();
        let block = match cache.take(number) {
            Some(block) => block,
            None => BlockState::InFlight(self.request(self.range(number))),
        };
        let in_order = number
            .checked_sub(1)
            .is_some_and(|before| cache.has(before));
        for next in (number + 1..=number + READ_AHEAD_BLOCKS)
            .filter(|next| in_order && next * BLOCK < self.size)
        {
            if !cache.has(next) {
                cache.put(next, BlockState::InFlight(self.request(self.range(next))));
            }
        }
        let bytes = match block {
            BlockState::Ready(bytes) => bytes,
            BlockState::InFlight(pending) => wait(pending)?,
        };
        let expected = self.range(number);
        if bytes.len() as u64 != expected.end - expected.start {
            let what = format!(
                "the store returned {} bytes for the range {} to {}",
                bytes.len(),
                expected.start,
                expected.end
            );
            return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        }
        cache.put(number, BlockState::Ready(bytes.clone()));
        Ok(bytes)
    }

    fn range(&self, number: u64) -> Range<u64> {
        number * BLOCK..self.size.min((number + 1) * BLOCK)
    }

    fn request(&self, range: Range<u64>) -> PendingRequest<Bytes> {
        self.remote.request(Some(range), self.etag.as_deref())
    }

    /// Stores the first error that is not a verdict on the object.
    fn record_error(&self, error: io::Error) -> io::Error {
        if !ErrorClass::of_store(&error).concerns_file() {
            self.cache
                .lock()
                .failure
                .get_or_insert((error.kind(), error.to_string()));
        }
        error
    }
}

impl BlockCache {
    fn has(&self, number: u64) -> bool {
        self.blocks.iter().any(|(cached, _)| *cached == number)
    }

    fn take(&mut self, number: u64) -> Option<BlockState> {
        let index = self
            .blocks
            .iter()
            .position(|(cached, _)| *cached == number)?;
        self.blocks.remove(index).map(|(_, block)| block)
    }

    fn put(&mut self, number: u64, block: BlockState) {
        self.blocks.push_front((number, block));
        self.blocks.truncate(MAX_CACHED_BLOCKS);
    }
}

impl Read for BlockReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self
            .object
            .size
            .min(self.offset.saturating_add(into.len() as u64));
        if self.offset >= end {
            return Ok(0);
        }
        let part = self.object.part(self.offset, end)?;
        into[..part.len()].copy_from_slice(&part);
        self.offset += part.len() as u64;
        Ok(part.len())
    }
}

impl Seek for BlockReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => self.object.size.checked_add_signed(by),
        };
        self.offset = offset.ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidInput,
                "offset before the start of the object",
            )
        })?;
        Ok(self.offset)
    }
}
