//! Reads files, journals new ones and sends their records, and retries files that could not be
//! read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Split;
use crate::error::{ErrorClass, StageError, UnavailableInput};
use crate::metrics::BlockingOperation;
use crate::source::BatchSender;
use crate::source::file_identity::{self, FileMatch};
use crate::source::file_reference::FileReference;
use crate::source::image_batcher::ImageBatchBuilder;
use crate::source::images::{GONE, image_record, unseen};
use crate::source::listed_file::{ListedFile, RecordError};
use crate::source::listing_journal::{JournalRow, JournaledListing, RowState};
use crate::source::object_prefetch::ObjectPrefetcher;

use super::read::{ReadAttempt, fetched, read_local};
use super::retry::{FileRetry, JournaledRow};
use super::{FolderWatcher, GROUP, paced};

/// A group of read files is journaled once it has this number of bytes.
pub(in crate::source) const GROUP_BYTES: u64 = 16 << 20;
/// Pause of reading after the process ran out of descriptors or memory.
const PAUSE: Duration = Duration::from_secs(1);

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
struct IngestedFile {
    row: u64,
    file: ListedFile,
    outcome: ReadOutcome,
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

    /// Retries the files that are due. Returns `false` if the receiver is closed.
    pub(super) fn retry(&mut self, out: &BatchSender) -> Result<bool, StageError> {
        if self.is_paused() {
            return Ok(true);
        }
        let mut journaled: BTreeMap<String, (Arc<Split>, BTreeMap<u64, JournalRow>)> =
            BTreeMap::new();
        for FileRetry { file, row, .. } in self.retries.due(Instant::now()) {
            let Some((split, row)) = row else {
                self.pending.add_ready(file);
                continue;
            };
            let (_, rows) = journaled
                .entry(split.name().to_owned())
                .or_insert_with(|| (split, BTreeMap::new()));
            rows.insert(
                row,
                JournalRow {
                    file,
                    state: RowState::Present,
                },
            );
        }
        for (split, rows) in journaled.into_values() {
            if !self.forward_journaled(&split, rows, out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends the uncommitted rows of a split that can be read, in groups. Returns `false` if the
    /// receiver is closed.
    fn forward_journaled(
        &mut self,
        split: &Arc<Split>,
        rows: impl IntoIterator<Item = (u64, JournalRow)>,
        out: &BatchSender,
    ) -> Result<bool, StageError> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (row, JournalRow { file, state }) in rows {
            if self.resume.is_committed(split.name(), &(row..row + 1)) {
                continue;
            }
            let outcome = match state {
                RowState::Present | RowState::Gone => self.attempt_row(&file, split, row),
                RowState::Changed => Some(ReadOutcome::Superseded),
                RowState::Rejected => Some(ReadOutcome::Refused(
                    self.with_reference(&file, file.unreadable(GONE)),
                )),
                RowState::Unseen => {
                    let unavailable = unseen(&file, &self.root);
                    self.postpone(&file, Some((Arc::clone(split), row)), &unavailable)
                        .map(ReadOutcome::Refused)
                }
            };
            let Some(outcome) = outcome else { continue };
            bytes += if let ReadOutcome::Image(image) = &outcome {
                image.len() as u64
            } else {
                0
            };
            items.push(IngestedFile { row, file, outcome });
            if items.len() >= GROUP || bytes >= GROUP_BYTES {
                bytes = 0;
                if !self.forward(split, std::mem::take(&mut items), out)? {
                    return Ok(false);
                }
            }
        }
        self.forward(split, items, out)
    }

    /// The result for a row that an earlier run has journaled; `None` if it must be retried later.
    fn attempt_row(
        &mut self,
        file: &ListedFile,
        split: &Arc<Split>,
        row: u64,
    ) -> Option<ReadOutcome> {
        let key: JournaledRow = Some((Arc::clone(split), row));
        let limit = self.batch_config.record_bytes;
        let attempt = match self.folder.is_bucket() {
            true => fetched(
                file,
                limit,
                ObjectPrefetcher::new(&self.root, limit, std::iter::once(file)).next(file),
            ),
            false => read_local(file, &self.root, limit),
        };
        let is_same = |now: &ListedFile| file_identity::compare(file, now) == FileMatch::Same;
        let outcome = match attempt {
            ReadAttempt::Content(now, content) if is_same(&now) => ReadOutcome::Image(content),
            ReadAttempt::Refused(now, refusal) if is_same(&now) => {
                ReadOutcome::Refused(self.with_reference(file, refusal))
            }
            ReadAttempt::Content(now, _) | ReadAttempt::Refused(now, _) => {
                self.pending.add_unstable(now, Instant::now());
                ReadOutcome::Superseded
            }
            // A file that was moved away with its folder may reappear.
            ReadAttempt::Gone
                if self.folder.is_bucket()
                    || self.folder.lacks_file(&file.name, &file.relative_path()) =>
            {
                tracing::warn!(path = %file.name, "a listed file was deleted or modified");
                if let Err(error) = self.missing_rows.add(split.name(), row) {
                    tracing::warn!(
                        path = %file.name,
                        %error,
                        "cannot record a missing file; it is not read if it reappears"
                    );
                }
                self.tracked.remove(&file.name);
                ReadOutcome::Refused(self.with_reference(file, file.unreadable(GONE)))
            }
            ReadAttempt::Gone | ReadAttempt::Changing => {
                ReadOutcome::Refused(self.postpone(file, key.clone(), &unseen(file, &self.root))?)
            }
            ReadAttempt::Unavailable(unavailable) => {
                self.pause_if_process_error(&unavailable);
                ReadOutcome::Refused(self.postpone(file, key.clone(), &unavailable)?)
            }
        };
        self.retries.remove(&file.name, &key);
        Some(outcome)
    }

    /// Schedules another attempt for a file. Returns a reject instead once `retry_timeout` has
    /// passed.
    fn postpone(
        &mut self,
        file: &ListedFile,
        row: JournaledRow,
        unavailable: &UnavailableInput,
    ) -> Option<RecordError> {
        let error = unavailable.to_string();
        let waited = self
            .retries
            .failed(file, row.clone(), error.clone(), Instant::now());
        // While the folder is unavailable or reading is paused, the timeout does not apply.
        if waited < self.config.retry_timeout
            || self.folder.trouble().is_some()
            || self.paused.is_some()
        {
            return None;
        }
        self.retries.remove(&file.name, &row);
        let reason = format!("could not be read for {}s: {error}", waited.as_secs());
        Some(self.with_reference(file, file.unreadable(&reason)))
    }

    /// Adds a reference to the file to a reject, by which the file can be read later.
    fn with_reference(&self, file: &ListedFile, refusal: RecordError) -> RecordError {
        RecordError {
            reference: FileReference::new(file, &self.root).map(|reference| reference.to_json()),
            ..refusal
        }
    }

    fn is_paused(&mut self) -> bool {
        let now = Instant::now();
        self.paused = self.paused.take().filter(|(until, _)| *until > now);
        self.paused.is_some()
    }

    /// Pauses reading if an error concerns the process. Returns whether it does.
    fn pause_if_process_error(&mut self, unavailable: &UnavailableInput) -> bool {
        let is_process_error = unavailable.class == ErrorClass::Process;
        if is_process_error {
            self.paused = Some((Instant::now() + paced(PAUSE), unavailable.error.to_string()));
        }
        is_process_error
    }

    /// Pauses reading if the process has no descriptors left for the journal.
    fn pause_for(&mut self, error: StageError) -> Result<(), StageError> {
        match error {
            StageError::Io { path, source } if ErrorClass::of(&source) == ErrorClass::Process => {
                self.pause_if_process_error(&UnavailableInput {
                    path,
                    class: ErrorClass::Process,
                    error: source,
                });
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Sends rows in order. Returns `false` if the receiver is closed.
    fn forward(
        &mut self,
        split: &Arc<Split>,
        items: Vec<IngestedFile>,
        out: &BatchSender,
    ) -> Result<bool, StageError> {
        if items.is_empty() {
            return Ok(true);
        }
        let superseded = items
            .iter()
            .filter(|item| matches!(item.outcome, ReadOutcome::Superseded))
            .count();
        self.metrics
            .watch
            .superseded
            .with_label_values(&[&self.stage])
            .inc_by(superseded as u64);
        let (mut builder, mut next, mut count) = (None, 0, 0);
        for IngestedFile { row, file, outcome } in items {
            let mut open: ImageBatchBuilder<'_> = match builder.take() {
                Some(open) if row == next && count < self.batch_config.max_records() => open,
                ended => {
                    if let Some(mut ended) = ended
                        && !ImageBatchBuilder::close(&mut ended)?
                    {
                        return Ok(false);
                    }
                    count = 0;
                    ImageBatchBuilder::new(&self.batch_config, &self.resume, out, split, row)
                }
            };
            let is_open = match outcome {
                ReadOutcome::Image(image) => open.push(image_record(&file, Ok(image.into())))?,
                ReadOutcome::Refused(refusal) => open.push(image_record(&file, Err(refusal)))?,
                ReadOutcome::Superseded => open.pass(),
            };
            if !is_open {
                return Ok(false);
            }
            (next, count) = (row + 1, count + 1);
            builder = Some(open);
        }
        builder.map_or(Ok(true), |mut builder| builder.close())
    }
}
