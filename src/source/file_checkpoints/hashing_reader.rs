//! Text that is hashed while it is read, so that a later run recognizes what was read of it.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::FileCheckpoints;
use super::store::{CheckpointEnding, FileCheckpoint};
use crate::error::StageError;
use crate::source::content_digest::ContentHasher;
use crate::source::input_file::InputFile;
use crate::storage::FileReader;

/// What was read of a file.
#[derive(Default)]
struct HashedContent {
    hasher: ContentHasher,
    last: Option<u8>,
}

/// A file that is read from its beginning, up to the length that was listed.
pub(in crate::source) struct HashingReader {
    input: FileReader,
    left: u64,
    content: Option<Arc<Mutex<HashedContent>>>,
}

impl HashingReader {
    /// Reads at most `length` bytes that nothing has to recognize later.
    pub(in crate::source) fn plain(input: FileReader, length: u64) -> Self {
        Self {
            input,
            left: length,
            content: None,
        }
    }
}

impl Read for HashingReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(into.len(), |left| left.min(into.len()));
        let read = self.input.read(&mut into[..most])?;
        self.left -= read as u64;
        if let (Some(content), Some(&last)) = (&self.content, into[..read].last()) {
            let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
            content.hasher.update(&into[..read]);
            content.last = Some(last);
        }
        Ok(read)
    }
}

/// Records what is read of one file of text.
pub(in crate::source) struct CheckpointTracker<'a> {
    known: &'a FileCheckpoints,
    file: &'a InputFile,
    companion: String,
    /// Rows that an earlier record speaks of.
    rows_before: u64,
    content: Arc<Mutex<HashedContent>>,
}

impl<'a> CheckpointTracker<'a> {
    pub(super) fn new(
        known: &'a FileCheckpoints,
        file: &'a InputFile,
        companion: String,
        before: Option<&FileCheckpoint>,
    ) -> Self {
        let rows_before = before.map_or(0, |before| before.rows);
        Self {
            known,
            file,
            companion,
            rows_before,
            content: Arc::default(),
        }
    }

    /// The file's text, hashed as it is read.
    pub(in crate::source) fn read(&self, input: FileReader) -> HashingReader {
        HashingReader {
            input,
            left: self.file.size(),
            content: Some(Arc::clone(&self.content)),
        }
    }

    fn content(&self) -> MutexGuard<'_, HashedContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, rows: u64, ending: CheckpointEnding) -> FileCheckpoint {
        let content = self.content();
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

    /// DigestLog that the rows before `rows` are about to be handed over; `in_quotes`: the last of
    /// them ends with the file, within a quoted value.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(in crate::source) fn begin(&self, rows: u64, in_quotes: bool) -> Result<(), StageError> {
        if rows <= self.rows_before {
            return Ok(());
        }
        let Some(mut store) = self.known.store() else {
            return Ok(());
        };
        store.begin(&self.record(rows, self.ending(in_quotes)))
    }

    /// Records that the file was read to its end and gave `rows` rows; `in_quotes`: it ends within
    /// a quoted value.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(in crate::source) fn end(&self, rows: u64, in_quotes: bool) -> Result<(), StageError> {
        let Some(mut store) = self.known.store() else {
            return Ok(());
        };
        // A file that became shorter under its reader is another by now.
        if self.content().hasher.length() != self.file.size() {
            return Ok(());
        }
        store.add(self.record(rows, self.ending(in_quotes)))
    }

    fn ending(&self, in_quotes: bool) -> CheckpointEnding {
        let content = self.content();
        match content.last {
            _ if content.hasher.length() < self.file.size() => CheckpointEnding::Within,
            _ if in_quotes => CheckpointEnding::Quote,
            Some(b'\n') | None => CheckpointEnding::Line,
            Some(_) => CheckpointEnding::Text,
        }
    }
}
