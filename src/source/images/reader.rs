//! Reads the image files of a listing in the order of its rows.

use std::borrow::Cow;
use std::sync::Arc;

use crate::batch::provenance::Split;
use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::error::unavailable::{UnavailableInput, UnreadInputs};
use crate::error::{ErrorClass, StageError};
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::digest_log::{DigestEntry, DigestLog};
use crate::source::discovery::listed_file::{ListedFile, ReadFailure, RecordError};
use crate::source::discovery::listing_journal::{JournalRow, JournaledListing, RowState};
use crate::source::discovery::missing_rows::MissingRows;
use crate::source::discovery::object_prefetch::ObjectPrefetcher;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::batcher::{ImageBatchBuilder, ImageRecord};
use crate::source::reader::BatchSender;
use crate::storage::Location;

/// Batches that are read ahead of the consumer.
pub(in crate::source) const AHEAD: usize = 2;

/// Reads the files of a listing.
pub(super) struct ListedImageReader {
    pub(super) batch_config: ImageBatchConfig,
    pub(super) root: Location,
    pub(super) resume: ResumeState,
}

/// Records of the files that a run reads, for later runs.
pub(super) struct ReadNotes {
    /// The log of content digests.
    pub(super) digest_log: DigestLog,
    /// Digests of files whose batch is not sent yet: one write per batch.
    pub(super) pending: Vec<DigestEntry>,
    /// The rows that are rejected because their files do not exist or have changed.
    pub(super) gone: MissingRows,
}

impl ReadNotes {
    /// Writes the pending digests, before the batch of their files is sent.
    fn flush(&mut self) -> Result<(), StageError> {
        self.digest_log.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// Why a read ended.
enum SendEnd {
    /// All rows were sent or are among the unread ones.
    Complete,
    /// The receiver is closed.
    Closed,
}

impl ListedImageReader {
    /// Reads all rows that are not committed. `unread` holds the paths that the listing left out.
    ///
    /// # Errors
    /// If the process or the store cannot read any file now, or Arrow cannot hold a batch; at the
    /// end, the files that could not be read, which include those of `unread`.
    pub(super) fn read(
        &self,
        journals: &[JournaledListing],
        mut notes: ReadNotes,
        unread: Vec<UnavailableInput>,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        let mut inputs = UnreadInputs::default();
        unread
            .into_iter()
            .try_for_each(|unavailable| inputs.leave(unavailable))?;
        for JournaledListing {
            split, first, rows, ..
        } in journals
        {
            let mut rows_unread = Vec::new();
            let end = self.read_rows(split, *first, rows, &mut notes, out, &mut rows_unread)?;
            rows_unread
                .into_iter()
                .try_for_each(|unavailable| inputs.leave(unavailable))?;
            if matches!(end, SendEnd::Closed) {
                return Ok(());
            }
        }
        inputs.into_result()
    }

    /// Reads the uncommitted rows of `rows`, which begin at row `start`. Files that could not be
    /// read are appended to `unread`. An error of the process ends the read.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    fn read_rows(
        &self,
        split: &Arc<Split>,
        mut start: u64,
        rows: &[JournalRow],
        notes: &mut ReadNotes,
        out: &BatchSender,
        unread: &mut Vec<UnavailableInput>,
    ) -> Result<SendEnd, StageError> {
        for segment in rows.chunks(self.batch_config.max_records()) {
            let builder =
                ImageBatchBuilder::new(&self.batch_config, &self.resume, out, split, start);
            let length = segment.len() as u64;
            if !builder.is_done(length) && !self.read_segment(segment, builder, notes, unread)? {
                return Ok(SendEnd::Closed);
            }
            if unread
                .last()
                .is_some_and(|unavailable| unavailable.class == ErrorClass::Process)
            {
                break;
            }
            start += length;
        }
        Ok(SendEnd::Complete)
    }

    /// Reads the rows of one segment. Returns `false` if the receiver is closed.
    fn read_segment(
        &self,
        rows: &[JournalRow],
        mut builder: ImageBatchBuilder<'_>,
        notes: &mut ReadNotes,
        unread: &mut Vec<UnavailableInput>,
    ) -> Result<bool, StageError> {
        let present = rows
            .iter()
            .filter(|row| row.state == RowState::Present)
            .map(|row| &row.file);
        let mut images = ObjectPrefetcher::new(&self.root, self.batch_config.record_bytes, present);
        for row in rows {
            let image = match row.state {
                RowState::Present => images.next(&row.file),
                RowState::Unseen => Err(ReadFailure::Unavailable(unseen(&row.file, &self.root))),
                RowState::Changed | RowState::Gone | RowState::Rejected => {
                    if !builder.is_done(1) {
                        tracing::warn!(
                            path = %row.file.name,
                            "a listed file was deleted or modified"
                        );
                    }
                    Err(row.file.unreadable(GONE).into())
                }
            };
            let image = match image {
                Ok(image) => Ok(Cow::from(image)),
                Err(ReadFailure::Rejected(refusal)) => {
                    // If the same file reappears, it must be read.
                    if refusal.code == RejectCode::Unreadable && !builder.is_done(1) {
                        let (split, number) = builder.next();
                        notes.gone.add(split, number)?;
                    }
                    Err(refusal)
                }
                Err(ReadFailure::Unavailable(unavailable)) => {
                    let stops = unavailable.class == ErrorClass::Process;
                    let is_done = builder.is_done(1);
                    if !is_done {
                        unread.push(unavailable);
                    }
                    notes.flush()?;
                    if !builder.close()? {
                        return Ok(false);
                    }
                    if stops && !is_done {
                        return Ok(true);
                    }
                    builder.skip();
                    continue;
                }
            };
            let digest = image
                .as_ref()
                .ok()
                .and_then(|image| self.new_digest(row, image));
            if let Some(record) = builder.try_push(image_record(&row.file, image)) {
                notes.flush()?;
                if !builder.close()? {
                    return Ok(false);
                }
                // An empty batch accepts any row.
                builder.try_push(record);
            }
            notes.pending.extend(digest);
        }
        notes.flush()?;
        builder.close()
    }

    /// The digest of a local file, by which it is recognized after its time has changed; `None` if
    /// the digest is already logged.
    fn new_digest(&self, row: &JournalRow, image: &[u8]) -> Option<DigestEntry> {
        let is_new = self.root.local().is_some() && row.file.digest.is_none();
        is_new.then(|| DigestEntry {
            digest: Some(ContentDigest::of(image)),
            ..DigestEntry::from_file(&row.file)
        })
    }
}

/// The record of a file: its bytes or its reject.
pub(in crate::source) fn image_record<'a>(
    file: &'a ListedFile,
    image: Result<Cow<'a, [u8]>, RecordError>,
) -> ImageRecord<'a> {
    ImageRecord {
        source: file.name.as_str().into(),
        row: 0,
        text: Some(folder(&file.name).into()),
        image,
    }
}

/// The error of a file that is not read because it or its folder is missing now.
pub(in crate::source) fn unseen(file: &ListedFile, root: &Location) -> UnavailableInput {
    let error = std::io::Error::other("the file does not exist, or its folder cannot be read");
    UnavailableInput {
        path: file.location(root).to_path(),
        class: ErrorClass::Environment,
        error,
    }
}

/// The name of the folder that contains a file; empty for the root of the listing.
pub(super) fn folder(name: &str) -> &str {
    name.rsplit('/').nth(1).unwrap_or_default()
}

/// Reject reason of a listed file that does not exist any more or is another one.
pub(in crate::source) const GONE: &str = "was deleted or modified after it was listed";
