//! Forwards records, and retries files that cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::batch::provenance::Split;
use crate::error::unavailable::UnavailableInput;
use crate::error::{ErrorClass, StageError};
use crate::source::discovery::file_identity::{self, FileMatch};
use crate::source::discovery::file_reference::FileReference;
use crate::source::discovery::listed_file::{ListedFile, RecordError};
use crate::source::discovery::listing_journal::{JournalRow, RowState};
use crate::source::discovery::object_prefetch::ObjectPrefetcher;
use crate::source::images::batcher::ImageBatchBuilder;
use crate::source::images::reader::{GONE, image_record, unseen};
use crate::source::reader::BatchSender;
use crate::source::watch::ingest::{GROUP_BYTES, IngestedFile, PAUSE, ReadOutcome};
use crate::source::watch::initial_scan::paced;
use crate::source::watch::read::{ReadAttempt, fetched, read_local};
use crate::source::watch::retry::{FileRetry, JournaledRow};
use crate::source::watch::{FolderWatcher, GROUP};

impl FolderWatcher {
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
    pub(super) fn forward_journaled(
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
    pub(super) fn postpone(
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
    pub(super) fn with_reference(&self, file: &ListedFile, refusal: RecordError) -> RecordError {
        RecordError {
            reference: FileReference::new(file, &self.root).map(|reference| reference.to_json()),
            ..refusal
        }
    }

    pub(super) fn is_paused(&mut self) -> bool {
        let now = Instant::now();
        self.paused = self.paused.take().filter(|(until, _)| *until > now);
        self.paused.is_some()
    }

    /// Pauses reading if an error concerns the process. Returns whether it does.
    pub(super) fn pause_if_process_error(&mut self, unavailable: &UnavailableInput) -> bool {
        let is_process_error = unavailable.class == ErrorClass::Process;
        if is_process_error {
            self.paused = Some((Instant::now() + paced(PAUSE), unavailable.error.to_string()));
        }
        is_process_error
    }

    /// Pauses reading if the process has no descriptors left for the journal.
    pub(super) fn pause_for(&mut self, error: StageError) -> Result<(), StageError> {
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
    pub(super) fn forward(
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
