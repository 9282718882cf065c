//! The watch of a folder or a bucket: reads, journals and sends files that arrive, until the run is
//! stopped.

mod pending_files;
mod tracked_files;
mod fs_events;
mod watched_folder;
mod read;
mod retry;
mod ingest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::batch::{BatchAck, Split};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::metrics::{BlockingCaller, BlockingOperation, Metrics};
use crate::shard::Shard;
use crate::source::arrival_log::{self, SegmentWriter};
use crate::source::digest_log::{DigestEntry, DigestLog};
use crate::source::file_identity::FileMatch;
use crate::source::file_set::FileSet;
use crate::source::image_batcher::ImageBatchConfig;
use crate::source::images::AHEAD;
use crate::source::listed_file::{ListedFile, name_of};
use crate::source::listing::Listing;
use crate::source::listing_journal::{self, JournaledListing, LoadedListings};
use crate::source::missing_rows::MissingRows;
use crate::source::{BatchSender, SourceHandle, spawn_reader};
use crate::storage::Location;

use fs_events::FsEvent;
use pending_files::{PendingFiles, is_older_than};
use retry::{FileRetries, FolderRescans};
use tracked_files::TrackedFiles;
use watched_folder::WatchedFolder;

pub(super) use ingest::GROUP_BYTES;

/// Intervals and timeouts of a watch.
pub(super) struct WatchConfig {
    /// Interval between full listings.
    pub(super) rescan: Duration,
    /// How long a file that arrived waits for more.
    pub(super) delay: Duration,
    /// How long reading an unavailable file is retried before the file is rejected.
    pub(super) retry_timeout: Duration,
}

/// Maximum number of files that are journaled together, and of events that are read together.
const GROUP: usize = 1024;
/// A file that the system did not report as complete is read once it has not changed for this time.
const STABLE_FOR: Duration = Duration::from_secs(2);
/// A file that was written to and not closed counts as incomplete until its last change is this
/// old.
const WRITING: Duration = Duration::from_secs(60);
/// Interval at which an idle watch checks whether the run was stopped.
const IDLE: Duration = Duration::from_millis(250);
/// Interval between checks of the watched folder itself.
const CHECK: Duration = Duration::from_secs(1);
/// Interval at which waiting files are logged again, and files that have been missing for too long
/// are removed from memory.
const REMIND: Duration = Duration::from_secs(60);

/// Scales a time of the watch. In debug builds, the environment variable `LATENTFLOW_WATCH_SPEED`
/// divides it, so that tests are fast.
fn paced(time: Duration) -> Duration {
    if !cfg!(debug_assertions) {
        return time;
    }
    let speed = std::env::var("LATENTFLOW_WATCH_SPEED")
        .ok()
        .and_then(|speed| speed.parse().ok());
    time / speed.unwrap_or(1).max(1)
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Starts to watch. Reads the uncommitted rows of earlier runs first, then the files that exist.
///
/// # Errors
/// If the folder cannot be watched, or `state` is not on a local disk.
pub(super) fn open(
    stage: &str,
    files: FileSet,
    batch_config: ImageBatchConfig,
    resume: &ResumeState,
    config: WatchConfig,
    metrics: Arc<Metrics>,
) -> Result<SourceHandle, StageError> {
    let state = resume.state.clone().filter(|state| state.local().is_some());
    let Some(state) = state else {
        return Err(StageError::Other(
            "watching a folder requires a journal on a local disk; write `state = \"some/folder\"` \
             at the top of the pipeline"
                .to_owned(),
        ));
    };
    let shard = files.shard();
    let mut folder = WatchedFolder::new(stage, files, &state)?;
    let mut digest_log = DigestLog::new(stage, Some(&state));
    let (listing, journals, tracked, missing_rows) =
        first_scan(stage, &state, &mut folder, resume, (&mut digest_log, shard))?;
    let split = arrival_log::split(stage);
    let next = journals
        .iter()
        .filter(|j| j.segment.is_some())
        .map(|j| j.first + j.rows.len() as u64)
        .max();
    let next = next.unwrap_or(0).max(resume.max_row_end(split.name()));
    let segment_writer =
        SegmentWriter::open(stage, state.local().unwrap_or_else(|| ".".as_ref()), next)?;
    let (sender, acks) = unbounded_channel();
    let root = listing.root.clone();
    let caller = metrics.calls.caller(stage, root.local().is_some());
    let out_caller = Arc::clone(&caller);
    let watch = FolderWatcher {
        stage: stage.to_owned(),
        folder,
        root,
        split,
        batch_config,
        resume: resume.clone(),
        config,
        tracked,
        missing_rows,
        digest_log,
        segment_writer,
        acks,
        pending: PendingFiles::default(),
        retries: FileRetries::default(),
        rescans: FolderRescans::default(),
        paused: None,
        reminded: None,
        reported: None,
        metrics,
        caller,
    };
    let batches = spawn_reader(AHEAD, move |out| {
        watch.run(journals, listing, &out.outside_of(out_caller))
    });
    Ok(SourceHandle {
        acks: Some(sender),
        ..SourceHandle::new(batches, None)
    })
}

/// Lists the folder and compares it with the journals. If the folder is unavailable, no journaled
/// file is regarded as deleted.
fn first_scan(
    stage: &str,
    state: &Location,
    folder: &mut WatchedFolder,
    resume: &ResumeState,
    (digest_log, shard): (&mut DigestLog, Option<Shard>),
) -> Result<(Listing, Vec<JournaledListing>, TrackedFiles, MissingRows), StageError> {
    let listed = match folder.list() {
        Ok(listing) => Some(listing),
        Err(reason) if folder.is_known() => {
            folder.wait(reason);
            None
        }
        Err(reason) => return Err(StageError::Other(reason)),
    };
    let entries = digest_log.read(|_| true)?;
    let missing_since = tracked_files::missing_since(&entries);
    let (mut accepted, mut root) = (None, folder.location());
    if let Some(mut listing) = listed {
        root = listing.root.clone();
        let is_empty = listing.files.is_empty();
        let loaded = listing_journal::load(stage, Some(state), &mut listing, digest_log, shard)?;
        let names = loaded
            .journals
            .iter()
            .flat_map(|journal| &journal.rows)
            .map(|row| &*row.file.name);
        let expected = names
            .filter(|name| !missing_since.contains_key(name))
            .collect::<BTreeSet<_>>()
            .len();
        let expected = if is_empty { expected } else { 0 };
        if folder.accept(&listing, expected, loaded.has_present())? {
            accepted = Some((listing, loaded));
        }
    }
    let (listing, LoadedListings { journals, gone, .. }) = match accepted {
        Some(accepted) => accepted,
        None => {
            let mut listing = Listing::unread(root);
            let loaded =
                listing_journal::load(stage, Some(state), &mut listing, digest_log, shard)?;
            (listing, loaded)
        }
    };
    let tracked = TrackedFiles::from_journals(&journals, resume, &missing_since, unix_now());
    // Removes entries of files that are not tracked any more, or that were replaced by later ones.
    // Files of listings are always tracked, so their entries are kept.
    if entries.len() > 2 * tracked.len() + 1000 {
        let digests = entries
            .iter()
            .filter(|entry| entry.digest.is_some() && tracked.has(&entry.path));
        let latest: BTreeMap<_, _> = digests
            .map(|entry| ((&entry.path, entry.size, entry.mtime_ns), entry))
            .collect();
        let kept: Vec<DigestEntry> = latest
            .into_values()
            .cloned()
            .map(|entry| DigestEntry {
                away: None,
                ..entry
            })
            .collect();
        digest_log.rewrite(
            &kept
                .into_iter()
                .chain(tracked.digest_entries())
                .collect::<Vec<_>>(),
        )?;
    }
    Ok((listing, journals, tracked, gone))
}

struct FolderWatcher {
    stage: String,
    folder: WatchedFolder,
    /// The folder or prefix that names are relative to.
    root: Location,
    split: Arc<Split>,
    batch_config: ImageBatchConfig,
    resume: ResumeState,
    config: WatchConfig,
    tracked: TrackedFiles,
    /// Rows that are rejected because their files do not exist or have changed.
    missing_rows: MissingRows,
    digest_log: DigestLog,
    segment_writer: SegmentWriter,
    acks: UnboundedReceiver<BatchAck>,
    pending: PendingFiles,
    retries: FileRetries,
    rescans: FolderRescans,
    /// The end of a pause after the process ran out of descriptors or memory, and the error.
    paused: Option<(Instant, String)>,
    /// When waiting files were last logged.
    reminded: Option<Instant>,
    /// When the metrics were last set.
    reported: Option<Instant>,
    metrics: Arc<Metrics>,
    /// Reports calls that may block.
    caller: Arc<BlockingCaller>,
}

impl FolderWatcher {
    fn run(
        mut self,
        journals: Vec<JournaledListing>,
        first: Listing,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        self.caller.begin(BlockingOperation::Read);
        for journal in journals {
            if !self.replay(journal, out)? {
                return Ok(());
            }
        }
        self.add_candidates(first)?;
        let (mut rescanned, mut checked, mut expired) =
            (Instant::now(), Instant::now(), Instant::now());
        while !out.is_closed() {
            self.caller.begin(BlockingOperation::List);
            self.collect_events()?;
            let mut must_list =
                self.folder.events.take_overflow() || rescanned.elapsed() >= self.config.rescan;
            if checked.elapsed() >= paced(CHECK) {
                must_list |= self.folder.has_changed();
                checked = Instant::now();
            }
            if must_list {
                self.rescan_all()?;
                rescanned = Instant::now();
            }
            if expired.elapsed() >= REMIND {
                self.tracked
                    .expire(unix_now(), &self.segment_writer.segment);
                expired = Instant::now();
            }
            self.rescan_due()?;
            self.recheck_pending();
            while let Ok(ack) = self.acks.try_recv() {
                self.tracked
                    .acknowledge(&self.split, &ack, &self.segment_writer.segment);
            }
            self.caller.begin(BlockingOperation::Read);
            let is_open = self.retry(out)? && self.ingest(out)?;
            self.caller.begin(BlockingOperation::List);
            self.report();
            if !is_open {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the first event, and then up to `delay` for further ones.
    fn collect_events(&mut self) -> Result<(), StageError> {
        let is_idle =
            self.pending.is_empty() || self.paused.is_some() || self.folder.trouble().is_some();
        let timeout = if is_idle {
            IDLE.min(self.config.rescan).min(paced(CHECK))
        } else {
            Duration::ZERO
        };
        let mut end = Instant::now() + timeout;
        let mut changed = BTreeSet::new();
        while let Some(event) = self.caller.outside(|| self.folder.events.next(end)) {
            match event {
                FsEvent::Changed(path) => {
                    if self.folder.is_lost(&path) {
                        self.rescan_all()?;
                        continue;
                    }
                    if changed.is_empty() {
                        end = Instant::now() + self.config.delay;
                    }
                    changed.insert(path);
                    if changed.len() >= GROUP {
                        break;
                    }
                }
                FsEvent::Created(path) => self.created(&path)?,
                FsEvent::Folder(path) => self.enter(&path)?,
                FsEvent::Attributes(path) => {
                    if let Some(below) = self.folder.below(&path) {
                        self.retries.hasten(&name_of(below), Instant::now());
                        if path.is_dir() {
                            self.enter(&path)?;
                        }
                    }
                }
            }
        }
        changed
            .into_iter()
            .try_for_each(|path| self.scan_path(&path))
    }

    /// Scans a path after its file was closed by a writer, moved, or removed. A file that exists
    /// there now is complete.
    fn scan_path(&mut self, path: &Path) -> Result<(), StageError> {
        let Some(below) = self.folder.below(path) else {
            return Ok(());
        };
        let name = name_of(below);
        if self.folder.lacks(&name, below) {
            self.folder.events.uncover(path);
            self.pending.remove(&name);
            let entries = self.tracked.mark_below_missing(&name, unix_now());
            return self.digest_log.append(&entries);
        }
        if path.is_dir() {
            return self.enter(path);
        }
        // The watched folder was waited for, because it was empty or its disk was not mounted.
        if self.folder.trouble().is_some() {
            return self.rescan_all();
        }
        let Some(listing) = self.scan(below) else {
            return Ok(());
        };
        for file in self.new_files(listing)? {
            // An empty file is most likely about to be written.
            if file.size == 0 {
                self.pending.add_unstable(file, Instant::now());
            } else {
                self.pending.add_ready(file);
            }
        }
        Ok(())
    }

    /// Scans a path that was created. Its file may be open for writing; otherwise no further event
    /// follows.
    fn created(&mut self, path: &Path) -> Result<(), StageError> {
        let listing = self
            .folder
            .below(path)
            .map(Path::to_path_buf)
            .and_then(|below| self.scan(&below));
        listing.map_or(Ok(()), |listing| self.add_candidates(listing))
    }

    /// Lists the files at or below a path. Paths that cannot be listed are listed again later.
    fn scan(&mut self, below: &Path) -> Option<Listing> {
        let (listing, now) = (self.folder.scan(below), Instant::now());
        let name = name_of(below);
        self.rescans.remove(&name);
        match &listing {
            Some(listing) => listing
                .unread
                .keys()
                .for_each(|unread| self.rescans.failed(unread.clone(), now)),
            None if self.folder.lacks(&name, below) => {}
            None => self.rescans.failed(name, now),
        }
        listing
    }

    /// Lists the paths again that could not be listed and are due.
    fn rescan_due(&mut self) -> Result<(), StageError> {
        for name in self.rescans.due(Instant::now()) {
            if let Some(listing) = self.folder.scan(Path::new(&name)) {
                if listing.unread.is_empty() {
                    self.rescans.remove(&name);
                }
                self.add_candidates(listing)?;
            } else if self.folder.lacks(&name, Path::new(&name)) {
                self.rescans.remove(&name);
            }
            self.rescans.again(&name, Instant::now());
        }
        Ok(())
    }

    /// Scans a folder that was created or became readable. Its files may still be written.
    fn enter(&mut self, path: &Path) -> Result<(), StageError> {
        // Another folder may have been watched at this path.
        self.folder.events.uncover(path);
        self.created(path)
    }

    /// Lists all files, if the folder is available.
    fn rescan_all(&mut self) -> Result<(), StageError> {
        let listing = match self.folder.list() {
            Ok(listing) => listing,
            Err(reason) => {
                self.folder.wait(reason);
                return Ok(());
            }
        };
        let is_known = |file| self.tracked.compare(file) == Some(FileMatch::Same);
        let was_unavailable = self.folder.trouble().is_some();
        if !self.folder.accept(
            &listing,
            self.tracked.present(),
            listing.files.values().any(is_known),
        )? {
            return Ok(());
        }
        if was_unavailable {
            self.retries.hasten_all(Instant::now());
        }
        let metrics = &self.metrics.watch;
        let unread = i64::try_from(listing.unread.len()).unwrap_or(i64::MAX);
        metrics
            .unread_folders
            .with_label_values(&[&self.stage])
            .set(unread);
        for (name, failure) in &listing.unread {
            let Some(unavailable) = failure else { continue };
            tracing::warn!(
                stage = %self.stage,
                error = %unavailable,
                "cannot list a path of the watched folder"
            );
            self.rescans.failed(name.clone(), Instant::now());
        }
        let entries = self.tracked.mark_unlisted_missing(&listing, unix_now());
        self.digest_log.append(&entries)?;
        self.add_candidates(listing)
    }

    /// Returns the files of a listing that may be new, and marks the others as present.
    fn new_files(&mut self, listing: Listing) -> Result<Vec<ListedFile>, StageError> {
        let (mut new_files, mut entries) = (Vec::new(), Vec::new());
        let Listing { files, folders, .. } = listing;
        for (name, file) in files {
            if self.tracked.compare(&file) == Some(FileMatch::Same) {
                let device = Listing::device_among(&folders, &name);
                entries.extend(self.tracked.mark_present(&file, device));
            } else {
                new_files.push(file);
            }
        }
        self.digest_log.append(&entries)?;
        Ok(new_files)
    }

    /// Adds files that were found without an event. Those that have not changed for a while count
    /// as complete.
    fn add_candidates(&mut self, listing: Listing) -> Result<(), StageError> {
        for file in self.new_files(listing)? {
            let is_complete = self.folder.is_bucket()
                || (is_older_than(&file, paced(STABLE_FOR)) && !self.is_written(&file));
            if is_complete {
                self.pending.add_ready(file);
            } else {
                self.pending.add_unstable(file, Instant::now());
            }
        }
        Ok(())
    }

    /// Whether a file is open for writing, as far as the system reports that.
    fn is_written(&self, file: &ListedFile) -> bool {
        let path = self.folder.reported(&file.relative_path());
        !is_older_than(file, WRITING)
            && path.is_some_and(|path| self.folder.events.is_written(&path))
    }

    /// Checks the files again that may have been incomplete when they were found.
    fn recheck_pending(&mut self) {
        for before in self.pending.due(paced(STABLE_FOR), Instant::now()) {
            let now = self
                .folder
                .scan(&before.relative_path())
                .and_then(|mut listing| listing.files.remove(&before.name));
            match now {
                Some(now) if self.is_written(&now) => {
                    self.pending.add_unstable(now, Instant::now())
                }
                Some(now) if (now.size, now.mtime_ns) == (before.size, before.mtime_ns) => {
                    self.pending.add_ready(now)
                }
                Some(now) => self.pending.add_unstable(now, Instant::now()),
                None => {}
            }
        }
    }

    /// Reports waiting files in the metrics and the readiness, and every 60 seconds in the log.
    fn report(&mut self) {
        let (now, stage) = (Instant::now(), [self.stage.as_str()]);
        if self.reported.is_some_and(|at| now - at < IDLE) {
            return;
        }
        self.reported = Some(now);
        let metrics = &self.metrics.watch;
        let (waiting, oldest) = (self.retries.len(), self.retries.oldest(now));
        let age = oldest.map_or(Duration::ZERO, |(_, age)| age);
        metrics
            .waiting_files
            .with_label_values(&stage)
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        metrics
            .oldest_waiting
            .with_label_values(&stage)
            .set(age.as_secs_f64());
        metrics
            .available
            .with_label_values(&stage)
            .set(i64::from(self.folder.trouble().is_none()));
        let uncovered = self.folder.events.uncovered();
        metrics
            .unwatched_folders
            .with_label_values(&stage)
            .set(i64::try_from(uncovered).unwrap_or(i64::MAX));
        let paused = self
            .paused
            .as_ref()
            .map(|(_, error)| format!("reading is paused: {error}"));
        let trouble = self.folder.trouble().map(str::to_owned).or(paused);
        let remark = oldest.map(|(retry, waited)| {
            let files = if waiting == 1 {
                "1 file waits".to_owned()
            } else {
                format!("{waiting} files wait")
            };
            format!(
                "{files} to be read, the oldest for {} s: {}",
                waited.as_secs(),
                retry.error
            )
        });
        let is_due = self.reminded.is_none_or(|at| now - at >= REMIND);
        if let Some(text) = trouble.as_ref().or(remark.as_ref()).filter(|_| is_due) {
            tracing::warn!(
                stage = %self.stage,
                reason = %text,
                "files of the watched folder wait to be read"
            );
            self.reminded = Some(now);
        } else if trouble.is_none() && remark.is_none() {
            self.reminded = None;
        }
        metrics.report(&self.stage, trouble, remark);
    }
}
