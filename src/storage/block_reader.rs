//! An object that is read by blocks: few large requests whatever the reader's own are, and some of
//! them ahead of it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use super::S3Path;
use super::blocking::PendingRequest;
use crate::error::ErrorClass;

/// Bytes of a block: what comes in the time that a request takes to be answered at all, or more.
const BLOCK: u64 = 1 << 20;
/// Blocks that are held: as many columns of a Parquet file can be read side by side.
const HELD: usize = 32;
/// Blocks that are asked for before they are wanted, once an object is read in order.
const AHEAD: u64 = 4;

/// An object and a place in it. Clones share their blocks.
#[derive(Debug, Clone)]
pub struct BlockReader {
    object: Arc<BlockObject>,
    place: u64,
}

#[derive(Debug)]
struct BlockObject {
    remote: S3Path,
    size: u64,
    etag: Option<String>,
    held: Mutex<BlockCache>,
}

#[derive(Debug, Default)]
struct BlockCache {
    /// The last used stands first.
    blocks: VecDeque<(u64, BlockState)>,
    /// The first failure that is not a verdict on the object.
    failure: Option<(ErrorKind, String)>,
}

#[derive(Debug)]
enum BlockState {
    Ready(Bytes),
    InFlight(PendingRequest<io::Result<Bytes>>),
}

impl BlockReader {
    /// Reads `remote`, which has `size` bytes under `etag`, from its start.
    pub(super) fn new(remote: S3Path, size: u64, etag: Option<String>) -> Self {
        Self {
            object: Arc::new(BlockObject {
                remote,
                size,
                etag,
                held: Mutex::default(),
            }),
            place: 0,
        }
    }

    /// Bytes of the object.
    pub(super) fn len(&self) -> u64 {
        self.object.size
    }

    /// Another reader of the same object, at `place`.
    pub(super) fn at(&self, place: u64) -> Self {
        Self {
            object: Arc::clone(&self.object),
            place,
        }
    }

    /// Asks for the first block and the last one, and does not wait: there readers begin.
    pub(super) fn prefetch_ends(&self) -> io::Result<()> {
        let Some(last) = self.object.size.checked_sub(1).map(|last| last / BLOCK) else {
            return Ok(());
        };
        let mut held = self.object.held();
        for number in [last, 0] {
            if !held.has(number) {
                held.put(
                    number,
                    BlockState::InFlight(self.object.request(self.object.range(number))?),
                );
            }
        }
        Ok(())
    }

    /// So many bytes from `start`.
    pub(super) fn bytes(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.object.size {
            let what = format!(
                "expected {length} bytes from {start} on, but there are {} in all",
                self.object.size
            );
            return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        }
        // Many blocks at once would drive out those of other columns.
        if length as u64 > BLOCK {
            return self
                .object
                .request(start..end)
                .and_then(PendingRequest::wait)
                .flatten()
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
            .held()
            .failure
            .clone()
            .map(|(kind, text)| io::Error::new(kind, text))
    }
}

impl BlockObject {
    /// What one block has of the bytes from `start` to `end`.
    fn part(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let number = start / BLOCK;
        let block = self
            .block(number)
            .map_err(|error| self.record_error(error))?;
        let within = |place: u64| {
            usize::try_from(place - number * BLOCK)
                .unwrap_or(usize::MAX)
                .min(block.len())
        };
        Ok(block.slice(within(start)..within(end)))
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut held = self.held();
        let block = match held.take(number) {
            Some(block) => block,
            None => BlockState::InFlight(self.request(self.range(number))?),
        };
        let in_order = number.checked_sub(1).is_some_and(|before| held.has(before));
        for next in
            (number + 1..=number + AHEAD).filter(|next| in_order && next * BLOCK < self.size)
        {
            if !held.has(next) {
                held.put(next, BlockState::InFlight(self.request(self.range(next))?));
            }
        }
        let bytes = match block {
            BlockState::Ready(bytes) => bytes,
            BlockState::InFlight(pending) => pending.wait()??,
        };
        let expected = self.range(number);
        if bytes.len() as u64 != expected.end - expected.start {
            let what = format!(
                "the store gave {} bytes for {} to {}",
                bytes.len(),
                expected.start,
                expected.end
            );
            return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        }
        held.put(number, BlockState::Ready(bytes.clone()));
        Ok(bytes)
    }

    fn range(&self, number: u64) -> Range<u64> {
        number * BLOCK..self.size.min((number + 1) * BLOCK)
    }

    fn request(&self, range: Range<u64>) -> io::Result<PendingRequest<io::Result<Bytes>>> {
        self.remote.request(Some(range), self.etag.as_deref())
    }

    /// Keeps a failure that is not the object's.
    fn record_error(&self, error: io::Error) -> io::Error {
        if !ErrorClass::of_store(&error).concerns_file() {
            self.held()
                .failure
                .get_or_insert((error.kind(), error.to_string()));
        }
        error
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BlockCache> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockCache {
    fn has(&self, number: u64) -> bool {
        self.blocks.iter().any(|(held, _)| *held == number)
    }

    fn take(&mut self, number: u64) -> Option<BlockState> {
        let place = self.blocks.iter().position(|(held, _)| *held == number)?;
        self.blocks.remove(place).map(|(_, block)| block)
    }

    fn put(&mut self, number: u64, block: BlockState) {
        self.blocks.push_front((number, block));
        self.blocks.truncate(HELD);
    }
}

impl Read for BlockReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self
            .object
            .size
            .min(self.place.saturating_add(into.len() as u64));
        if self.place >= end {
            return Ok(0);
        }
        let part = self.object.part(self.place, end)?;
        into[..part.len()].copy_from_slice(&part);
        self.place += part.len() as u64;
        Ok(part.len())
    }
}

impl Seek for BlockReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
            SeekFrom::End(by) => self.object.size.checked_add_signed(by),
        };
        self.place = place
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a place before the start"))?;
        Ok(self.place)
    }
}
