//! The journal (write-ahead log) of requests: frames in segments, which are durable before requests
//! are acknowledged, and removed once every sink has committed their rows.

pub(crate) mod group_commit;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{create_private_dir, fsync_dir, private_options};
use crate::source::http::idempotency::keys::{IdempotencyKeyLog, IdempotencyKeys};
use crate::source::http::wal::record::{KeyDigest, RecordHeader};
use crate::source::http::wal::segment::{
    SegmentReader, WalSegment, first_rows, name, read_segment,
};

/// Size at which a new segment starts. The journal may exceed the pending frames by this size.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// Minimum ratio between the size of a frame and the memory of its entry.
pub(crate) const BYTES_PER_ENTRY_BYTE: u64 = 16;

/// The journal of a source.
pub(crate) struct WriteAheadLog {
    pub(crate) folder: PathBuf,
    /// Locked only briefly, and never during file operations: a disk that hangs must not block
    /// other threads.
    state: Mutex<WalState>,
    /// Locked by the thread that removes committed segments.
    log: Mutex<IdempotencyKeyLog>,
    /// Rows below this value are durable and can be read.
    tail: watch::Sender<u64>,
}

pub(crate) struct WalState {
    segments: VecDeque<WalSegment>,
    /// Frames with rows that are not committed: the row after their last one, and their bytes.
    pending: VecDeque<(u64, u64)>,
    pub(crate) pending_bytes: u64,
    pub(crate) keys: IdempotencyKeys,
    /// Every sink has committed the rows below this value.
    pub(crate) done: u64,
    /// The row of the next record.
    pub(crate) next: u64,
}

/// The current time in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl WriteAheadLog {
    /// Opens the journal. A frame at the end that a crash has truncated is removed, because it was
    /// never acknowledged.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or written, or a segment is damaged before its
    /// end.
    pub(crate) fn open(
        folder: &Path,
        split: &str,
        window: Duration,
        resume: &ResumeState,
    ) -> Result<Self, StageError> {
        create_private_dir(folder)?;
        let (keys, log) = IdempotencyKeys::open(folder, window, now())?;
        let mut state = WalState {
            segments: VecDeque::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            keys,
            done: 0,
            next: 0,
        };
        let first_rows = first_rows(folder)?;
        for (index, &first) in first_rows.iter().enumerate() {
            let segment =
                read_segment(folder, first, first_rows.get(index + 1).copied(), |head| {
                    state.keys.add(head);
                    let is_done = resume.is_committed(split, &(head.first..head.end()));
                    if is_done && state.pending.is_empty() {
                        state.done = head.end();
                    } else {
                        state.pending.push_back((head.end(), head.bytes()));
                        state.pending_bytes += head.bytes();
                    }
                })?;
            state.next = segment.end;
            state.segments.push_back(segment);
        }
        state.next = state.next.max(resume.max_row_end(split));
        state.done = if state.pending.is_empty() {
            state.next
        } else {
            state.done
        };
        let tail = watch::Sender::new(state.next);
        Ok(Self {
            folder: folder.to_path_buf(),
            state: Mutex::new(state),
            log: Mutex::new(log),
            tail,
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, WalState> {
        self.state.lock()
    }

    /// A channel with the row up to which rows can be read.
    pub(crate) fn tail(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    /// Starts a segment at the next row. Only the thread that writes frames may call this.
    pub(crate) fn begin(&self) -> Result<File, StageError> {
        let first = self.state().next;
        let path = self.folder.join(name(first));
        // An existing file with this name does not hold a complete frame.
        let file = private_options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let file = file.map_err(StageError::io(&path))?;
        fsync_dir(&self.folder)?;
        let mut state = self.state();
        state.segments.retain(|segment| segment.first != first);
        state.segments.push_back(WalSegment {
            first,
            keyed: Vec::new(),
            end: first,
            bytes: 0,
        });
        drop(state);
        self.retire()?;
        Ok(file)
    }

    /// Records that frames are durable in the last segment.
    pub(crate) fn written(&self, heads: &[RecordHeader]) {
        let mut state = self.state();
        let state = &mut *state;
        for head in heads {
            state.keys.add(head);
            state.pending.push_back((head.end(), head.bytes()));
            state.pending_bytes += head.bytes();
            state.next = head.end();
            if let Some(segment) = state.segments.back_mut() {
                segment.end = head.end();
                segment.bytes += head.bytes();
                segment.keyed.extend(head.key);
            }
        }
        self.tail.send_replace(state.next);
    }

    /// Whether the last segment is full.
    pub(crate) fn is_full(&self) -> bool {
        self.state()
            .segments
            .back()
            .is_none_or(|segment| segment.bytes >= SEGMENT_BYTES)
    }

    /// Records that every sink has committed the rows below `end`; [`WriteAheadLog::retire`]
    /// removes them.
    pub(crate) fn done(&self, end: u64) {
        let mut state = self.state();
        state.done = state.done.max(end);
        while let Some(&(frame_end, bytes)) = state
            .pending
            .front()
            .filter(|(frame_end, _)| *frame_end <= state.done)
        {
            debug_assert!(
                frame_end <= state.next,
                "a row was committed that was never assigned"
            );
            state.pending.pop_front();
            state.pending_bytes -= bytes;
        }
    }

    /// Removes committed segments, unless another thread is removing them. The last one stays,
    /// because its name stores the rows that were assigned.
    ///
    /// # Errors
    /// Returns an error if a segment cannot be removed.
    pub(crate) fn retire(&self) -> Result<(), StageError> {
        let Some(mut log) = self.log.try_lock() else {
            return Ok(());
        };
        let mut gone = VecDeque::new();
        let mut state = self.state();
        while state.segments.len() > 1
            && state
                .segments
                .front()
                .is_some_and(|segment| segment.end <= state.done)
        {
            gone.extend(state.segments.pop_front());
        }
        let keys: Vec<KeyDigest> = gone
            .iter()
            .flat_map(|segment: &WalSegment| segment.keyed.iter().copied())
            .collect();
        let entries =
            (!keys.is_empty()).then(|| state.keys.persist_before_truncate(&keys, &log, now()));
        drop(state);
        let mut removed = entries.map_or(Ok(()), |entries| log.write(&entries));
        while removed.is_ok()
            && let Some(segment) = gone.front()
        {
            let path = self.folder.join(name(segment.first));
            removed = fs::remove_file(&path).map_err(StageError::io(&path));
            if removed.is_ok() {
                gone.pop_front();
            }
        }
        state = self.state();
        gone.into_iter()
            .rev()
            .for_each(|segment| state.segments.push_front(segment));
        drop(state);
        removed
    }

    /// Number of rows that are not committed.
    pub(crate) fn pending_rows(&self) -> u64 {
        let state = self.state();
        state.next.saturating_sub(state.done)
    }

    /// Opens a reader at the segment that holds `row`, or at the first one after it.
    ///
    /// # Errors
    /// Returns an error if the segment cannot be opened.
    pub(crate) fn read_from(&self, row: u64) -> Result<Option<SegmentReader>, StageError> {
        let state = self.state();
        let first = state
            .segments
            .iter()
            .rev()
            .map(|segment| segment.first)
            .find(|&first| first <= row);
        let first = first.or_else(|| state.segments.front().map(|segment| segment.first));
        drop(state);
        let Some(first) = first else { return Ok(None) };
        let path = self.folder.join(name(first));
        let file = file_descriptors::open(|| File::open(&path)).map_err(StageError::io(&path))?;
        Ok(Some(SegmentReader {
            first,
            path,
            input: BufReader::new(file),
            position: 0,
        }))
    }

    /// The next durable frame of a segment; `None` after the last one, even if other bytes follow
    /// it, which could not be removed when a write failed.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be read, or is damaged.
    pub(crate) fn next_frame(
        &self,
        reader: &mut SegmentReader,
    ) -> Result<Option<(RecordHeader, Vec<u8>)>, StageError> {
        let durable = self
            .state()
            .segments
            .iter()
            .find(|segment| segment.first == reader.first)
            .map_or(0, |segment| segment.bytes);
        if reader.position < durable {
            reader.next()
        } else {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
