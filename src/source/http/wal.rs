//! The journal (write-ahead log) of requests: frames in segments, which are durable before requests
//! are acknowledged, and removed once every sink has committed their rows.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{create_private_dir, fsync_dir, private_options, state_file};
use crate::source::http::idempotency_keys::{IdempotencyKeyLog, IdempotencyKeys};
use crate::source::http::wal_record::{self, KeyDigest, RecordHeader, WalReadResult};

/// Size at which a new segment starts. The journal may exceed the pending frames by this size.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// Minimum ratio between the size of a frame and the memory of its entry.
pub(super) const BYTES_PER_ENTRY_BYTE: u64 = 16;

/// The journal of a source.
pub(super) struct WriteAheadLog {
    pub(super) folder: PathBuf,
    /// Locked only briefly, and never during file operations: a disk that hangs must not block
    /// other threads.
    state: Mutex<WalState>,
    /// Locked by the thread that removes committed segments.
    log: Mutex<IdempotencyKeyLog>,
    /// Rows below this value are durable and can be read.
    tail: watch::Sender<u64>,
}

pub(super) struct WalState {
    segments: VecDeque<WalSegment>,
    /// Frames with rows that are not committed: the row after their last one, and their bytes.
    pending: VecDeque<(u64, u64)>,
    pub(super) pending_bytes: u64,
    pub(super) keys: IdempotencyKeys,
    /// Every sink has committed the rows below this value.
    pub(super) done: u64,
    /// The row of the next record.
    pub(super) next: u64,
}

struct WalSegment {
    first: u64,
    /// The keys of its frames, which are stored before the segment is removed.
    keyed: Vec<KeyDigest>,
    end: u64,
    bytes: u64,
}

/// The current time in seconds since 1970.
pub(super) fn now() -> u64 {
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
    pub(super) fn open(
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

    pub(super) fn state(&self) -> MutexGuard<'_, WalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel with the row up to which rows can be read.
    pub(super) fn tail(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    /// Starts a segment at the next row. Only the thread that writes frames may call this.
    pub(super) fn begin(&self) -> Result<File, StageError> {
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
    pub(super) fn written(&self, heads: &[RecordHeader]) {
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
    pub(super) fn is_full(&self) -> bool {
        self.state()
            .segments
            .back()
            .is_none_or(|segment| segment.bytes >= SEGMENT_BYTES)
    }

    /// Records that every sink has committed the rows below `end`; [`WriteAheadLog::retire`]
    /// removes them.
    pub(super) fn done(&self, end: u64) {
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
    pub(super) fn retire(&self) -> Result<(), StageError> {
        let mut log = match self.log.try_lock() {
            Ok(log) => log,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
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
    pub(super) fn pending_rows(&self) -> u64 {
        let state = self.state();
        state.next.saturating_sub(state.done)
    }

    /// Opens a reader at the segment that holds `row`, or at the first one after it.
    ///
    /// # Errors
    /// Returns an error if the segment cannot be opened.
    pub(super) fn read_from(&self, row: u64) -> Result<Option<SegmentReader>, StageError> {
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
            path,
            input: BufReader::new(file),
        }))
    }
}

/// Reads the frames of a segment in order.
pub(super) struct SegmentReader {
    path: PathBuf,
    input: BufReader<File>,
}

impl SegmentReader {
    /// The next frame; `None` at the end of the segment. The caller requests only durable frames.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be read, or is damaged.
    pub(super) fn next(&mut self) -> Result<Option<(RecordHeader, Vec<u8>)>, StageError> {
        match wal_record::read(&mut self.input).map_err(StageError::io(&self.path))? {
            WalReadResult::Frame(head, payload) => Ok(Some((head, payload))),
            WalReadResult::End => Ok(None),
            WalReadResult::Broken => Err(damaged(&self.path)),
        }
    }
}

fn damaged(path: &Path) -> StageError {
    StageError::Other(format!(
        "{}: a frame of acknowledged requests is damaged; restore the file, or move it away to \
         continue without its records",
        path.display()
    ))
}

/// Numbers have a fixed width, so that names sort in the order of rows.
fn name(first: u64) -> String {
    format!("{first:020}.frames")
}

/// The first rows of the segments, ascending.
fn first_rows(folder: &Path) -> Result<Vec<u64>, StageError> {
    let mut first_rows = Vec::new();
    for entry in fs::read_dir(folder).map_err(StageError::io(folder))? {
        let name = entry.map_err(StageError::io(folder))?.file_name();
        first_rows.extend(
            name.to_str()
                .and_then(|name| name.strip_suffix(".frames")?.parse::<u64>().ok()),
        );
    }
    first_rows.sort_unstable();
    Ok(first_rows)
}

/// Reads a segment, which the one that begins at row `next` follows, if any.
fn read_segment(
    folder: &Path,
    first: u64,
    next: Option<u64>,
    mut each: impl FnMut(&RecordHeader),
) -> Result<WalSegment, StageError> {
    let path = folder.join(name(first));
    let failed = || StageError::io(&path);
    let file = state_file()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed())?;
    let length = file.metadata().map_err(failed())?.len();
    let mut segment = WalSegment {
        first,
        keyed: Vec::new(),
        end: first,
        bytes: 0,
    };
    let mut input = BufReader::new(&file);
    loop {
        match wal_record::read(&mut input).map_err(failed())? {
            WalReadResult::Frame(head, _) if head.first == segment.end => {
                each(&head);
                segment.end = head.end();
                segment.bytes += head.bytes();
                segment.keyed.extend(head.key);
            }
            WalReadResult::End => return Ok(segment),
            // All acknowledged frames are present; the rest could not be removed when the write
            // failed.
            WalReadResult::Broken if next == Some(segment.end) => return Ok(segment),
            WalReadResult::Broken
                if next.is_none() && is_torn(&file, &segment, length).map_err(failed())? =>
            {
                file.set_len(segment.bytes)
                    .and_then(|()| file.sync_all())
                    .map_err(failed())?;
                return Ok(segment);
            }
            WalReadResult::Frame(..) | WalReadResult::Broken => return Err(damaged(&path)),
        }
    }
}

/// Whether the broken end of a segment was never acknowledged: no frame of a later group follows,
/// and a group is written only after the previous one is durable.
fn is_torn(mut file: &File, segment: &WalSegment, length: u64) -> io::Result<bool> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(segment.bytes))?;
    file.take(length - segment.bytes).read_to_end(&mut rest)?;
    let later = |start: usize| match wal_record::read(&mut &rest[start..]) {
        Ok(WalReadResult::Frame(head, _)) => head.group > segment.end,
        _ => false,
    };
    Ok(!(1..rest.len().saturating_sub(wal_record::HEAD)).any(later))
}

#[cfg(test)]
mod tests;
