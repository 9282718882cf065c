//! The source `images`: reads the encoded image files of a folder or a glob.

pub(crate) mod batcher;
pub(crate) mod column;
pub(crate) mod config;
pub(crate) mod reader;
pub(crate) mod tar;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::source::discovery::digest_log::DigestLog;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::listing_journal::{self, JournaledListing, LoadedListings};
use crate::source::discovery::root_folder::{RootRecord, SourceRoot};
use crate::source::discovery::share::SourceShare;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::reader::{AHEAD, ListedImageReader, ReadNotes};
use crate::source::reader::spawn_reader;
use crate::source::{Source, SourceHandle, WrittenFiles, watch};
use crate::storage::Location;

/// The planned source.
struct ImagesSource {
    name: String,
    files: FileSet,
    share: SourceShare,
    batch_config: ImageBatchConfig,
    /// The interval between full listings; `None` if files are not watched.
    rescan: Option<Duration>,
    /// How long files that arrive wait for more.
    delay: Duration,
    /// How long reading an unavailable file is retried.
    retry_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Source for ImagesSource {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.batch_config.schema)
    }

    fn reading_bytes(&self) -> u64 {
        let group = if self.is_unbounded() {
            watch::GROUP_BYTES
        } else {
            0
        };
        self.files.reading_bytes() + group
    }

    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        Some(self.files.skipped_files())
    }

    fn share(&self) -> Option<&SourceShare> {
        Some(&self.share)
    }

    fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        self.files.would_read(written)
    }

    fn is_unbounded(&self) -> bool {
        self.rescan.is_some()
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        let listing = if self.is_unbounded() {
            self.files.list_inbox()?
        } else {
            self.files.list()?
        };
        listing.identities().map(Some)
    }

    fn find_inputs(&self, state: Option<&Location>) -> Result<(), StageError> {
        // A watch waits for a folder that an earlier run has read, and reads the empty prefix of a
        // bucket.
        let waits = self.is_unbounded()
            && (self.files.local_root().is_none()
                || RootRecord::load(&self.name, state)?.is_known());
        if waits {
            return Ok(());
        }
        // A run without new files is complete if earlier runs have listed files.
        if self.is_unbounded() || listing_journal::exists(&self.name, state)? {
            self.files.find()
        } else {
            self.files.find_match()
        }
    }

    fn list_inputs(&self, state: Option<&Location>) -> Result<(), StageError> {
        if self.is_unbounded() {
            return self.inputs().map(drop);
        }
        let listing = self.files.list()?;
        self.share.count_files(listing.files.keys());
        // A run without new files is complete if earlier runs have listed files.
        if listing.files.is_empty() && !listing_journal::exists(&self.name, state)? {
            return Err(self.files.no_matches(&listing));
        }
        listing.identities().map(drop)
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let Self {
            name,
            files,
            batch_config,
            ..
        } = *self;
        let state = resume.state.as_ref();
        if let Some(rescan) = self.rescan {
            let watch_config = watch::WatchConfig {
                rescan,
                delay: self.delay,
                retry_timeout: self.retry_timeout,
            };
            return watch::initial_scan::open(
                &name,
                files,
                batch_config,
                resume,
                watch_config,
                self.metrics,
            );
        }
        let mut listing = files.list()?;
        let found = listing.files.len();
        let mut digest_log = DigestLog::new(&name, state);
        let mut record = RootRecord::load(&name, state)?;
        let root = files
            .local_root()
            .map(|path| SourceRoot::probe(&path))
            .transpose()
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?;
        let unmounted = root.iter().flat_map(|root| record.missing_below(root));
        listing.unread.extend(unmounted.map(|path| (path, None)));
        let mut loaded = listing_journal::load(
            &name,
            state,
            &mut listing,
            &mut digest_log,
            self.share.shard(),
        )?;
        if let Some(root) = &root {
            // If known files are present, they were moved to another disk.
            if let Some(missing) = record.missing(root).filter(|_| !loaded.has_present()) {
                let advice =
                    "mount it, or accept the folder in its current state with --start-over";
                return Err(StageError::new(
                    ErrorCode::InputUnmounted,
                    format!("{missing}; {advice}"),
                ));
            }
            record.record(root, listing.mount_points(), &name, state)?;
        }
        loaded.add(&name, state, &mut listing)?;
        let LoadedListings {
            journals,
            mut unread,
            gone,
            ..
        } = loaded;
        unread.extend(listing.take_failures());
        let total = journals
            .iter()
            .map(|journal| pending(journal, resume))
            .sum();
        // If rows are left to read and no file is found, a disk that is not mounted is more likely
        // than the removal of all files.
        if found == 0 && (journals.is_empty() || total > 0) {
            if let Some(unavailable) = unread.first() {
                return Err(unavailable.to_stage_error());
            }
            return Err(files.no_matches(&listing));
        }
        let reader = ListedImageReader {
            batch_config,
            root: listing.root,
            resume: resume.clone(),
        };
        let batches = spawn_reader(AHEAD, move |out| {
            reader.read(
                &journals,
                ReadNotes {
                    digest_log,
                    pending: Vec::new(),
                    gone,
                },
                unread,
                out,
            )
        });
        Ok(SourceHandle::new(batches, Some(total)))
    }
}

/// Number of rows that are not committed.
fn pending(journal: &JournaledListing, resume: &ResumeState) -> u64 {
    let rows = journal.first..journal.first + journal.rows.len() as u64;
    rows.filter(|&row| !resume.is_committed(journal.split.name(), &(row..row + 1)))
        .count() as u64
}

#[cfg(test)]
mod tests;
