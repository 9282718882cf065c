//! Watches a folder or a bucket: files that come are read, journalled and handed over, until the
//! run is asked to stop.

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

/// How quick a watch is.
pub(super) struct WatchConfig {
    /// How often all files are looked at.
    pub(super) rescan: Duration,
    /// How long a file that has come waits for more.
    pub(super) delay: Duration,
    /// How long a file that cannot be read is tried again before it is rejected.
    pub(super) retry_timeout: Duration,
}

/// Files that are journalled together at most, and notices that are read together.
const GROUP: usize = 1024;
/// A file of which the system did not report that it is complete is taken when it has not changed
/// for so long.
const STABLE_FOR: Duration = Duration::from_secs(2);
/// A file that was written to and not closed is waited for as long as it was changed within this
/// time.
const WRITING: Duration = Duration::from_secs(60);
/// How often a watch that has nothing to do looks whether the run goes on.
const IDLE: Duration = Duration::from_millis(250);
/// How often the watched folder itself is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// How often files that wait are mentioned in the log, and files that are away for too long are
/// forgotten.
const REMIND: Duration = Duration::from_secs(60);

/// A time of the watch; in debug builds, the variable `LATENTFLOW_WATCH_SPEED` divides it, so that
/// tests are quick.
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

/// Starts to watch: reads first what earlier runs have left undone, then what lies there.
///
/// # Errors
/// When there is no folder to watch, or no place for the journal.
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
            "a folder that is watched needs a journal on a disk of this machine: write `state = \"some/folder\"` at the \
             top of the pipeline"
                .to_owned(),
        ));
    };
    let mut folder = WatchedFolder::new(stage, files, &state)?;
    let mut digest_log = DigestLog::new(stage, Some(&state));
    let (listing, journals, tracked, missing_rows) =
        first_scan(stage, &state, &mut folder, resume, &mut digest_log)?;
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

/// Lists the folder and compares it with the journals. Where it cannot be relied upon, no file of
/// theirs is taken for gone.
fn first_scan(
    stage: &str,
    state: &Location,
    place: &mut WatchedFolder,
    resume: &ResumeState,
    notes: &mut DigestLog,
) -> Result<(Listing, Vec<JournaledListing>, TrackedFiles, MissingRows), StageError> {
    let listed = match place.list() {
        Ok(listing) => Some(listing),
        Err(why) if place.is_known() => {
            place.wait(why);
            None
        }
        Err(why) => return Err(StageError::Other(why)),
    };
    let all = notes.read(|_| true)?;
    let away = tracked_files::away(&all);
    let (mut relied, mut root) = (None, place.location());
    if let Some(mut listing) = listed {
        root = listing.root.clone();
        let is_empty = listing.files.is_empty();
        let recalled = listing_journal::load(stage, Some(state), &mut listing, notes)?;
        let names = recalled
            .journals
            .iter()
            .flat_map(|journal| &journal.rows)
            .map(|row| &*row.file.name);
        let expected = names
            .filter(|name| !away.contains_key(name))
            .collect::<BTreeSet<_>>()
            .len();
        let expected = if is_empty { expected } else { 0 };
        if place.accept(&listing, expected, recalled.has_present())? {
            relied = Some((listing, recalled));
        }
    }
    let (listing, LoadedListings { journals, gone, .. }) = match relied {
        Some(relied) => relied,
        None => {
            let mut listing = Listing::unread(root);
            let recalled = listing_journal::load(stage, Some(state), &mut listing, notes)?;
            (listing, recalled)
        }
    };
    let known = TrackedFiles::of(&journals, resume, &away, unix_now());
    // DigestLog of files that are forgotten, or that were replaced by later ones, go. Those of
    // listings, which are kept for ever, are among the known.
    if all.len() > 2 * known.len() + 1000 {
        let digests = all
            .iter()
            .filter(|note| note.digest.is_some() && known.has(&note.path));
        let latest: BTreeMap<_, _> = digests
            .map(|note| ((&note.path, note.size, note.mtime_ns), note))
            .collect();
        let kept: Vec<DigestEntry> = latest
            .into_values()
            .cloned()
            .map(|note| DigestEntry { away: None, ..note })
            .collect();
        notes.rewrite(&kept.into_iter().chain(known.notes()).collect::<Vec<_>>())?;
    }
    Ok((listing, journals, known, gone))
}

struct FolderWatcher {
    stage: String,
    folder: WatchedFolder,
    /// What names are relative to.
    root: Location,
    split: Arc<Split>,
    batch_config: ImageBatchConfig,
    resume: ResumeState,
    config: WatchConfig,
    tracked: TrackedFiles,
    /// Rows that are rejected because their files are gone.
    missing_rows: MissingRows,
    digest_log: DigestLog,
    segment_writer: SegmentWriter,
    acks: UnboundedReceiver<BatchAck>,
    pending: PendingFiles,
    retries: FileRetries,
    rescans: FolderRescans,
    /// Until when nothing is read, since the process has no descriptors or memory left, and the
    /// error.
    paused: Option<(Instant, String)>,
    /// When files that wait were last mentioned in the log.
    reminded: Option<Instant>,
    reported: Option<Instant>,
    metrics: Arc<Metrics>,
    /// Says when it is in a call that may not return.
    caller: Arc<BlockingCaller>,
}

impl FolderWatcher {
    fn run(
        mut self,
        journals: Vec<JournaledListing>,
        first: Listing,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        self.caller.begin(BlockingOperation::Reads);
        for journal in journals {
            if !self.replay(journal, out)? {
                return Ok(());
            }
        }
        self.add_candidates(first)?;
        let (mut rescanned, mut checked, mut expired) =
            (Instant::now(), Instant::now(), Instant::now());
        while !out.is_closed() {
            self.caller.begin(BlockingOperation::Lists);
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
                    .done(&self.split, &ack, &self.segment_writer.segment);
            }
            self.caller.begin(BlockingOperation::Reads);
            let goes_on = self.retry(out)? && self.ingest(out)?;
            self.caller.begin(BlockingOperation::Lists);
            self.report();
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the first notice, and then for those that come soon after it.
    fn collect_events(&mut self) -> Result<(), StageError> {
        let waits =
            self.pending.is_empty() || self.paused.is_some() || self.folder.trouble().is_some();
        let wait = if waits {
            IDLE.min(self.config.rescan).min(paced(CHECK))
        } else {
            Duration::ZERO
        };
        let mut end = Instant::now() + wait;
        let mut heard = BTreeSet::new();
        while let Some(notice) = self.caller.outside(|| self.folder.events.next(end)) {
            match notice {
                FsEvent::Changed(path) => {
                    if self.folder.is_lost(&path) {
                        self.rescan_all()?;
                        continue;
                    }
                    if heard.is_empty() {
                        end = Instant::now() + self.config.delay;
                    }
                    heard.insert(path);
                    if heard.len() >= GROUP {
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
        heard.into_iter().try_for_each(|path| self.scan_path(&path))
    }

    /// Something was closed after it was written, moved, or removed: what is there now is complete.
    fn scan_path(&mut self, path: &Path) -> Result<(), StageError> {
        let Some(below) = self.folder.below(path) else {
            return Ok(());
        };
        let name = name_of(below);
        if self.folder.lacks(&name, below) {
            self.folder.events.uncover(path);
            self.pending.remove(&name);
            let notes = self.tracked.lose_below(&name, unix_now());
            return self.digest_log.append(&notes);
        }
        if path.is_dir() {
            return self.enter(path);
        }
        // A folder that was waited for, since it is empty, or on a disk that is not mounted.
        if self.folder.trouble().is_some() {
            return self.rescan_all();
        }
        let Some(listing) = self.scan(below) else {
            return Ok(());
        };
        for file in self.news(listing)? {
            // A file that is emptied is most often about to be filled.
            if file.size == 0 {
                self.pending.add_unstable(file, Instant::now());
            } else {
                self.pending.add_ready(file);
            }
        }
        Ok(())
    }

    /// A name was made: its file may be open for writing, and otherwise nothing more is reported of
    /// it.
    fn created(&mut self, path: &Path) -> Result<(), StageError> {
        let listing = self
            .folder
            .below(path)
            .map(Path::to_path_buf)
            .and_then(|below| self.scan(&below));
        listing.map_or(Ok(()), |listing| self.add_candidates(listing))
    }

    /// Lists what lies at or below a path. What cannot be looked at is looked at again later.
    fn scan(&mut self, below: &Path) -> Option<Listing> {
        let (listing, now) = (self.folder.scan(below), Instant::now());
        let name = name_of(below);
        self.rescans.remove(&name);
        match &listing {
            Some(listing) => listing
                .unread
                .keys()
                .for_each(|name| self.rescans.failed(name.clone(), now)),
            None if self.folder.lacks(&name, below) => {}
            None => self.rescans.failed(name, now),
        }
        listing
    }

    /// Looks again at what could not be looked at.
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

    /// A folder has come, or can be read now: what is in it may still be written.
    fn enter(&mut self, path: &Path) -> Result<(), StageError> {
        // Another folder may have been watched under this path.
        self.folder.events.uncover(path);
        self.created(path)
    }

    /// Lists all files, where the folder can be relied upon.
    fn rescan_all(&mut self) -> Result<(), StageError> {
        let listing = match self.folder.list() {
            Ok(listing) => listing,
            Err(why) => {
                self.folder.wait(why);
                return Ok(());
            }
        };
        let is_known = |file| self.tracked.verdict(file) == Some(FileMatch::Same);
        let was_waited_for = self.folder.trouble().is_some();
        if !self.folder.accept(
            &listing,
            self.tracked.present(),
            listing.files.values().any(is_known),
        )? {
            return Ok(());
        }
        if was_waited_for {
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
            tracing::warn!("{}: left out: {unavailable}", self.stage);
            self.rescans.failed(name.clone(), Instant::now());
        }
        let notes = self.tracked.lose_unlisted(&listing, unix_now());
        self.digest_log.append(&notes)?;
        self.add_candidates(listing)
    }

    /// The files of a listing that may have to be taken; of the others it is kept in mind that they
    /// are there.
    fn news(&mut self, listing: Listing) -> Result<Vec<ListedFile>, StageError> {
        let (mut news, mut notes) = (Vec::new(), Vec::new());
        let Listing { files, folders, .. } = listing;
        for (name, file) in files {
            if self.tracked.verdict(&file) == Some(FileMatch::Same) {
                notes.extend(
                    self.tracked
                        .met(&file, Listing::device_among(&folders, &name)),
                );
            } else {
                news.push(file);
            }
        }
        self.digest_log.append(&notes)?;
        Ok(news)
    }

    /// Files that were found without a notice: those that have not changed for a while are
    /// complete.
    fn add_candidates(&mut self, listing: Listing) -> Result<(), StageError> {
        for file in self.news(listing)? {
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

    /// Whether a file is open to who writes it, as far as the system reports that.
    fn is_written(&self, file: &ListedFile) -> bool {
        let path = self.folder.reported(&file.relative_path());
        !is_older_than(file, WRITING)
            && path.is_some_and(|path| self.folder.events.is_written(&path))
    }

    /// Looks again at files that may have been written when they were found.
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

    /// Reports what waits: in metrics, to who asks whether the run is ready, and now and then in
    /// the log.
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
            .map(|(_, error)| format!("nothing can be read: {error}"));
        let trouble = self.folder.trouble().map(str::to_owned).or(paused);
        let remark = oldest.map(|(retry, age)| {
            let files = if waiting == 1 {
                "1 file waits".to_owned()
            } else {
                format!("{waiting} files wait")
            };
            format!(
                "{files} to be read, the oldest for {} s: {}",
                age.as_secs(),
                retry.error
            )
        });
        let is_due = self.reminded.is_none_or(|at| now - at >= REMIND);
        if let Some(text) = trouble.as_ref().or(remark.as_ref()).filter(|_| is_due) {
            tracing::warn!("{}: {text}", self.stage);
            self.reminded = Some(now);
        } else if trouble.is_none() && remark.is_none() {
            self.reminded = None;
        }
        metrics.report(&self.stage, trouble, remark);
    }
}
