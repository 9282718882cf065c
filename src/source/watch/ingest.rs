//! Reads files, journals new ones and sends their records, and retries files that could not be
//! read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::read::{ReadAttempt, fetched, read_local};
use super::{FolderWatcher, GROUP};
use crate::error::StageError;
use crate::metrics::BlockingOperation;
use crate::source::discovery::file_identity::FileMatch;
use crate::source::discovery::listed_file::{ListedFile, RecordError};
use crate::source::discovery::listing_journal::JournaledListing;
use crate::source::discovery::object_prefetch::ObjectPrefetcher;
use crate::source::reader::BatchSender;

/// A group of read files is journaled once it has this number of bytes.
pub(in crate::source) const GROUP_BYTES: u64 = 16 << 20;
/// Pause of reading after the process ran out of descriptors or memory.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The result for a row.
pub(super) enum ReadOutcome {
    /// The image.
    Image(Vec<u8>),
    /// A reject.
    Refused(RecordError),
    /// No record: the file was replaced by a later version, which has its own row.
    Superseded,
}

/// A row to send.
pub(super) struct IngestedFile {
    pub(crate) row: u64,
    pub(crate) file: ListedFile,
    pub(crate) outcome: ReadOutcome,
}

impl FolderWatcher {
    /// Reads complete files, journals new ones, and sends them. Returns `false` if the receiver is
    /// closed.
    pub(super) fn ingest(&mut self, out: &BatchSender) -> Result<bool, StageError> {
        if self.is_paused() || self.folder.trouble().is_some() || self.pending.is_empty() {
            return Ok(true);
        }
        if let Err(error) = self.caller.during(BlockingOperation::WriteJournal, || {
            self.segment_writer.prepare()
        }) {
            return self.pause_for(error).map(|()| true);
        }
        let (files, outcomes): (Vec<_>, Vec<_>) = self.gather()?.into_iter().unzip();
        if files.is_empty() {
            return Ok(true);
        }
        let first = self.segment_writer.next;
        self.caller.during(BlockingOperation::WriteJournal, || {
            self.segment_writer.append(&files)
        })?;
        self.tracked.add(&files, &self.segment_writer.segment);
        let items = (first..).zip(files.into_iter().zip(outcomes));
        let items: Vec<IngestedFile> = items
            .map(|(row, (file, outcome))| IngestedFile { row, file, outcome })
            .collect();
        self.forward(&Arc::clone(&self.split), items, out)
    }

    /// Reads complete files, and returns the new ones with their results.
    fn gather(&mut self) -> Result<Vec<(ListedFile, ReadOutcome)>, StageError> {
        let files = self.pending.take(GROUP);
        let (root, limit) = (self.root.clone(), self.batch_config.record_bytes);
        let mut fetch = ObjectPrefetcher::new(&root, limit, files.iter());
        let (mut group, mut bytes) = (Vec::new(), 0);
        let mut files = files.iter();
        for file in files.by_ref() {
            let attempt = match self.folder.is_bucket() {
                true => fetched(file, limit, fetch.next(file)),
                false => read_local(file, &root, limit),
            };
            match attempt {
                // The file has changed since it was found complete, and may change again.
                ReadAttempt::Content(now, _) | ReadAttempt::Refused(now, _)
                    if (now.size, now.mtime_ns) != (file.size, file.mtime_ns) =>
                {
                    self.pending.add_unstable(now, Instant::now());
                }
                ReadAttempt::Content(now, content) if self.is_new(&now)? => {
                    bytes += content.len() as u64;
                    group.push((now, ReadOutcome::Image(content)));
                }
                ReadAttempt::Refused(now, refusal) if self.is_new(&now)? => {
                    group.push((
                        now.clone(),
                        ReadOutcome::Refused(self.with_reference(&now, refusal)),
                    ));
                }
                ReadAttempt::Content(..) | ReadAttempt::Refused(..) | ReadAttempt::Gone => {}
                ReadAttempt::Changing => {
                    self.pending.add_unstable(file.clone(), Instant::now());
                    continue;
                }
                ReadAttempt::Unavailable(unavailable) => {
                    if self.pause_if_process_error(&unavailable) {
                        self.pending.add_ready(file.clone());
                        break;
                    }
                    if let Some(refusal) = self.postpone(file, None, &unavailable) {
                        group.push((file.clone(), ReadOutcome::Refused(refusal)));
                    }
                    continue;
                }
            }
            self.retries.remove(&file.name, &None);
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        files.for_each(|file| self.pending.add_ready(file.clone()));
        Ok(group)
    }

    /// Whether a file that was just read is new, and is not being written again.
    fn is_new(&mut self, now: &ListedFile) -> Result<bool, StageError> {
        if self.is_written(now) {
            self.pending.add_unstable(now.clone(), Instant::now());
            return Ok(false);
        }
        if self.tracked.compare(now) != Some(FileMatch::Same) {
            return Ok(true);
        }
        let entry = self.tracked.mark_present(now, None);
        self.digest_log.append(entry.as_slice())?;
        Ok(false)
    }

    /// Sends the uncommitted rows of a journal. Returns `false` if the receiver is closed.
    pub(super) fn replay(
        &mut self,
        journal: JournaledListing,
        out: &BatchSender,
    ) -> Result<bool, StageError> {
        let JournaledListing {
            split, first, rows, ..
        } = journal;
        self.forward_journaled(&split, (first..).zip(rows), out)
    }
}
