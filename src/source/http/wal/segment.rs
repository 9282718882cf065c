//! The segments of the journal.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::log_segments::segment_name;
use crate::fs_durable::{log_segments, state_file};
use crate::source::http::wal::record;
use crate::source::http::wal::record::{KeyDigest, RecordHeader, WalReadResult};

/// The extension of the files.
const EXTENSION: &str = "frames";

pub(super) struct WalSegment {
    pub(super) first: u64,
    /// The keys of its frames, which are stored before the segment is removed.
    pub(super) keyed: Vec<KeyDigest>,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

/// Reads the frames of a segment in order.
pub(crate) struct SegmentReader {
    /// The row of its first record.
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) input: BufReader<File>,
    /// Bytes of the frames that were read.
    pub(super) position: u64,
}

impl SegmentReader {
    /// The next frame; `None` at the end of the segment. The caller requests only durable frames.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be read, or is damaged.
    pub(super) fn next(&mut self) -> Result<Option<(RecordHeader, Vec<u8>)>, StageError> {
        match record::read(&mut self.input).map_err(StageError::io(&self.path))? {
            WalReadResult::Frame(head, payload) => {
                self.position += head.bytes();
                Ok(Some((head, payload)))
            }
            WalReadResult::End => Ok(None),
            WalReadResult::Broken => Err(damaged(&self.path)),
        }
    }
}

pub(super) fn damaged(path: &Path) -> StageError {
    StageError::new(
        ErrorCode::StateCorrupt,
        format!(
            "{}: a frame of acknowledged requests is damaged; restore the file, or move it away to \
         continue without its records",
            path.display()
        ),
    )
}

/// The file name of the segment that begins at row `first`.
pub(super) fn name(first: u64) -> String {
    segment_name(first, EXTENSION)
}

/// The first rows of the segments, ascending.
pub(super) fn first_rows(folder: &Path) -> Result<Vec<u64>, StageError> {
    log_segments::first_rows(folder, EXTENSION)
}

/// Reads a segment, which the one that begins at row `next` follows, if any.
pub(super) fn read_segment(
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
        // All acknowledged frames are present; the rest could not be removed when the write failed.
        if next == Some(segment.end) {
            return Ok(segment);
        }
        match record::read(&mut input).map_err(failed())? {
            WalReadResult::Frame(head, _) if head.first == segment.end => {
                each(&head);
                segment.end = head.end();
                segment.bytes += head.bytes();
                segment.keyed.extend(head.key);
            }
            WalReadResult::End => return Ok(segment),
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
    let later = |start: usize| match record::read(&mut &rest[start..]) {
        Ok(WalReadResult::Frame(head, _)) => head.group > segment.end,
        _ => false,
    };
    Ok(!(1..rest.len().saturating_sub(record::HEAD)).any(later))
}
