//! A reader that hashes text while it is read, so that a later run recognizes the content.

use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::Mutex;

use super::FileCheckpoints;
use crate::error::StageError;
use crate::source::discovery::content_digest::ContentHasher;
use crate::source::discovery::file_checkpoints::checkpoint::{CheckpointEnding, FileCheckpoint};
use crate::source::discovery::input_file::InputFile;
use crate::storage::FileReader;

/// The digest and the last byte of the content that was read.
#[derive(Default)]
struct HashedContent {
    hasher: ContentHasher,
    last: Option<u8>,
}

/// A reader of a file from its beginning up to the listed length.
pub(crate) struct HashingReader {
    input: FileReader,
    left: u64,
    content: Option<Arc<Mutex<HashedContent>>>,
}

impl HashingReader {
    /// A reader of at most `length` bytes without a digest.
    pub(in crate::source) fn plain(input: FileReader, length: u64) -> Self {
        Self {
            input,
            left: length,
            content: None,
        }
    }
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max_bytes =
            usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.input.read(&mut buffer[..max_bytes])?;
        self.left -= read as u64;
        if let (Some(content), Some(&last)) = (&self.content, buffer[..read].last()) {
            let mut content = content.lock();
            content.hasher.update(&buffer[..read]);
            content.last = Some(last);
        }
        Ok(read)
    }
}

/// Records the reads of one text file.
pub(crate) struct CheckpointTracker<'a> {
    checkpoints: &'a FileCheckpoints,
    file: &'a InputFile,
    companion: String,
    /// Number of rows of the earlier checkpoint.
    rows_before: u64,
    content: Arc<Mutex<HashedContent>>,
}

impl<'a> CheckpointTracker<'a> {
    pub(super) fn new(
        checkpoints: &'a FileCheckpoints,
        file: &'a InputFile,
        companion: String,
        before: Option<&FileCheckpoint>,
    ) -> Self {
        let rows_before = before.map_or(0, |before| before.rows);
        Self {
            checkpoints,
            file,
            companion,
            rows_before,
            content: Arc::default(),
        }
    }

    /// A reader of the file that hashes the text.
    pub(in crate::source) fn read(&self, input: FileReader) -> HashingReader {
        HashingReader {
            input,
            left: self.file.size(),
            content: Some(Arc::clone(&self.content)),
        }
    }

    fn record(&self, rows: u64, ending: CheckpointEnding) -> FileCheckpoint {
        let content = self.content.lock();
        FileCheckpoint {
            file: self.file.listed().clone(),
            split: self.file.split.name().to_owned(),
            companion: self.companion.clone(),
            length: content.hasher.length(),
            digest: content.hasher.digest(),
            rows,
            ending,
        }
    }

    /// Records that the rows before `rows` are about to be sent. `in_quotes`: the last of them ends
    /// at the end of the file, within a quoted value.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(in crate::source) fn begin(&self, rows: u64, in_quotes: bool) -> Result<(), StageError> {
        if rows <= self.rows_before {
            return Ok(());
        }
        let Some(mut store) = self.checkpoints.store() else {
            return Ok(());
        };
        store.begin(&self.record(rows, self.ending(in_quotes)))
    }

    /// Records that the file was read to its end and has `rows` rows. `in_quotes`: the file ends
    /// within a quoted value.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(in crate::source) fn end(&self, rows: u64, in_quotes: bool) -> Result<(), StageError> {
        let Some(mut store) = self.checkpoints.store() else {
            return Ok(());
        };
        // A file that was truncated during the read is another file now.
        if self.content.lock().hasher.length() != self.file.size() {
            return Ok(());
        }
        store.add(self.record(rows, self.ending(in_quotes)))
    }

    fn ending(&self, in_quotes: bool) -> CheckpointEnding {
        let content = self.content.lock();
        match content.last {
            _ if content.hasher.length() < self.file.size() => CheckpointEnding::Within,
            _ if in_quotes => CheckpointEnding::Quote,
            Some(b'\n') | None => CheckpointEnding::Line,
            Some(_) => CheckpointEnding::Text,
        }
    }
}
