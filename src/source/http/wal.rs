//! The journal of requests: frames in segments, durable before they are acknowledged, gone when
//! every sink has their rows.

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

/// Bytes after which a segment is followed by the next: so much more than what is pending may lie
/// on the disk.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of a frame, of the smallest too, for each byte that is remembered of it.
pub(super) const BYTES_PER_ENTRY_BYTE: u64 = 16;

/// What lies on the disk, and how far it is of use.
pub(super) struct WriteAheadLog {
    pub(super) folder: PathBuf,
    /// Held for moments, and never while a file is touched: a disk that hangs must not hang those
    /// who look.
    state: Mutex<WalState>,
    /// Held by the thread that removes what is of no more use.
    log: Mutex<IdempotencyKeyLog>,
    /// Rows below this are durable, and can be read.
    tail: watch::Sender<u64>,
}

pub(super) struct WalState {
    segments: VecDeque<WalSegment>,
    /// Frames whose rows are not all done: the row after the last, and bytes.
    pending: VecDeque<(u64, u64)>,
    pub(super) pending_bytes: u64,
    pub(super) keys: IdempotencyKeys,
    /// Every sink has the rows below this.
    pub(super) done: u64,
    /// The row of the next record.
    pub(super) next: u64,
}

struct WalSegment {
    first: u64,
    /// The keys of its frames, which are to be remembered.
    keyed: Vec<KeyDigest>,
    end: u64,
    bytes: u64,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl WriteAheadLog {
    /// Reads what is there; what a crash cut short at the end is cut off, since nobody was told of
    /// it.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or a segment is damaged before its end.
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
        let firsts = firsts(folder)?;
        for (place, &first) in firsts.iter().enumerate() {
            let segment = read_segment(folder, first, firsts.get(place + 1).copied(), |head| {
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

    /// Tells how far rows can be read.
    pub(super) fn tail(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    /// A segment begins at the next row. Only the thread that writes frames may call this.
    pub(super) fn begin(&self) -> Result<File, StageError> {
        let first = self.state().next;
        let path = self.folder.join(name(first));
        // What lies under this name has no whole frame.
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

    /// Frames are durable in the last segment.
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

    /// Every sink has the rows below this; [`WriteAheadLog::retire`] removes them.
    pub(super) fn done(&self, end: u64) {
        let mut state = self.state();
        state.done = state.done.max(end);
        while let Some(&(end, bytes)) = state.pending.front().filter(|(end, _)| *end <= state.done)
        {
            debug_assert!(end <= state.next, "a row was done that was never given out");
            state.pending.pop_front();
            state.pending_bytes -= bytes;
        }
    }

    /// Removes segments whose rows are done, unless another thread is about it. The last one stays:
    /// its name tells the rows that were given out.
    ///
    /// # Errors
    /// When what is of no more use cannot be removed.
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
        let mut state = self.state();
        gone.into_iter()
            .rev()
            .for_each(|segment| state.segments.push_front(segment));
        drop(state);
        removed
    }

    /// Rows that are pending.
    pub(super) fn pending_rows(&self) -> u64 {
        let state = self.state();
        state.next.saturating_sub(state.done)
    }

    /// Opens a reader at the first frame that holds a row from `row` on.
    ///
    /// # Errors
    /// When the segment cannot be read.
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

/// Frames of a segment, in order.
pub(super) struct SegmentReader {
    path: PathBuf,
    input: BufReader<File>,
}

impl SegmentReader {
    /// The next frame; `None` at the end of the segment. Only frames that are durable may be asked
    /// for.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
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
        "{}: a frame of acknowledged requests is damaged; restore the file, or move it away to go on without its records",
        path.display()
    ))
}

/// Numbers of equal length, so that names sort as rows do.
fn name(first: u64) -> String {
    format!("{first:020}.frames")
}

/// The first rows of the segments, ascending.
fn firsts(folder: &Path) -> Result<Vec<u64>, StageError> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder).map_err(StageError::io(folder))? {
        let name = entry.map_err(StageError::io(folder))?.file_name();
        firsts.extend(
            name.to_str()
                .and_then(|name| name.strip_suffix(".frames")?.parse::<u64>().ok()),
        );
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads a segment, behind which the one that begins at row `next` follows, if any.
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
            // All that was acknowledged is there; the rest could not be cut off at the time.
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

/// Whether what is broken behind the frames of a segment was never acknowledged: no frame behind it
/// was written after it had been made durable.
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
