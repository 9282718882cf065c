//! The journal of files that arrived in a watched folder: segments with the rows of one unbounded
//! split.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::provenance::Split;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::log_segments::{first_rows, segment_name};
use crate::fs_durable::{create_dir_all_synced, fsync_dir, state_file};
use crate::json::to_json_lines;
use crate::source::discovery::journal_lines::parse;
use crate::source::discovery::listed_file::ListedFile;
use crate::storage::Location;

/// The extension of the files.
const EXTENSION: &str = "ndjson";
/// Number of rows after which the next segment begins.
const SEGMENT_ROWS: u64 = 65_536;

/// The split of all segments of a stage.
pub(crate) fn split(stage: &str) -> Arc<Split> {
    Split::new(format!("{stage}/watched"))
}

/// A file of the journal.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalSegment {
    /// The row number of its first line.
    pub(crate) first: u64,
    path: PathBuf,
}

/// The segments of a stage in the order of their rows; empty if `state` is not on a local disk.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn segments(stage: &str, state: &Location) -> Result<Vec<ArrivalSegment>, StageError> {
    let Some(folder) = state.local().map(|state| folder(state, stage)) else {
        return Ok(Vec::new());
    };
    let segments = first_rows(&folder, EXTENSION)?.into_iter();
    Ok(segments
        .map(|first| ArrivalSegment {
            first,
            path: folder.join(segment_name(first, EXTENSION)),
        })
        .collect())
}

fn folder(state: &Path, stage: &str) -> PathBuf {
    state.join("watched").join(stage)
}

impl ArrivalSegment {
    /// Reads the files of the segment. A last line that was truncated by a crash is ignored,
    /// because its file was not read yet.
    ///
    /// # Errors
    /// If the segment cannot be read, or has an invalid line.
    pub(crate) fn read(&self) -> Result<Vec<ListedFile>, StageError> {
        let text = fs::read(&self.path).map_err(StageError::io(&self.path))?;
        parse(&Location::from(self.path.as_path()), complete_lines(&text))
    }

    /// Removes the segment.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn remove(&self) -> Result<(), StageError> {
        fs::remove_file(&self.path).map_err(StageError::io(&self.path))
    }
}

fn complete_lines(text: &[u8]) -> &[u8] {
    &text[..text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1)]
}

/// Appends rows to the journal.
pub(crate) struct SegmentWriter {
    folder: PathBuf,
    file: Option<File>,
    /// The segment that is appended to.
    pub(crate) segment: ArrivalSegment,
    /// The row number of the next file.
    pub(crate) next: u64,
}

impl SegmentWriter {
    /// Continues after the segments of `stage`; `next` is the row after their last one.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub(crate) fn open(stage: &str, state: &Path, next: u64) -> Result<Self, StageError> {
        let folder = folder(state, stage);
        create_dir_all_synced(&folder)?;
        let segment = ArrivalSegment {
            first: next,
            path: folder.join(segment_name(next, EXTENSION)),
        };
        Ok(Self {
            folder,
            file: None,
            segment,
            next,
        })
    }

    /// Appends files as the next rows, and syncs them.
    ///
    /// # Errors
    /// The error of the system. None of the files may then be processed.
    pub(crate) fn append(&mut self, files: &[ListedFile]) -> Result<(), StageError> {
        let text = to_json_lines(files)?;
        self.prepare()?;
        let file = self
            .file
            .take()
            .ok_or_else(|| StageError::new(ErrorCode::Internal, "the journal is not open"))?;
        let failed = StageError::io(&self.segment.path);
        (&file)
            .write_all(&text)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        self.file = Some(file);
        self.next += files.len() as u64;
        Ok(())
    }

    /// Opens the segment for the next rows. It may be called again after an error.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn prepare(&mut self) -> Result<(), StageError> {
        if self.next - self.segment.first >= SEGMENT_ROWS {
            self.file = None;
        }
        if self.file.is_none() {
            self.file = Some(self.begin()?);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<File, StageError> {
        let path = self.folder.join(segment_name(self.next, EXTENSION));
        // A file of this name that a crash has left does not contain a complete line.
        let file = state_file()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let file = file.map_err(StageError::io(&path))?;
        fsync_dir(&self.folder)?;
        self.segment = ArrivalSegment {
            first: self.next,
            path,
        };
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(name: &str) -> ListedFile {
        serde_json::from_str(&format!(r#"{{"path":"{name}","size":1,"mtime_ns":2}}"#)).unwrap()
    }

    /// The first row and the names of the files of each segment.
    fn journaled(state: &Path) -> Vec<(u64, Vec<String>)> {
        let segments = segments("in", &state.into()).unwrap();
        let names = |segment: &ArrivalSegment| {
            segment
                .read()
                .unwrap()
                .into_iter()
                .map(|file| file.name)
                .collect()
        };
        segments
            .iter()
            .map(|segment| (segment.first, names(segment)))
            .collect()
    }

    #[test]
    fn appended_rows_are_read_back_without_a_truncated_line() {
        let state = tempfile::tempdir().unwrap();
        assert!(journaled(state.path()).is_empty());
        let mut writer = SegmentWriter::open("in", state.path(), 0).unwrap();
        writer.append(&[file("a"), file("b")]).unwrap();
        writer.append(&[file("c")]).unwrap();
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(journaled(state.path()), [(0, names(&["a", "b", "c"]))]);
        let path = state.path().join("watched/in/00000000000000000000.ndjson");
        let mut text = fs::read(&path).unwrap();
        text.truncate(text.len() - 5);
        fs::write(&path, text).unwrap();
        assert_eq!(journaled(state.path()), [(0, names(&["a", "b"]))]);
        SegmentWriter::open("in", state.path(), 2)
            .unwrap()
            .append(&[file("d")])
            .unwrap();
        assert_eq!(
            journaled(state.path()),
            [(0, names(&["a", "b"])), (2, names(&["d"]))]
        );
    }

    #[test]
    fn full_segment_is_followed_by_the_next() {
        let state = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::open("in", state.path(), 0).unwrap();
        let many: Vec<ListedFile> = (0..SEGMENT_ROWS)
            .map(|number| file(&number.to_string()))
            .collect();
        writer.append(&many).unwrap();
        writer.append(&[file("last")]).unwrap();
        let lengths: Vec<_> = journaled(state.path())
            .into_iter()
            .map(|(first, names)| (first, names.len()))
            .collect();
        assert_eq!(lengths, [(0, 65_536), (65_536, 1)]);
    }
}
