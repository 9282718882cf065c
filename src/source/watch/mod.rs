//! The watch of a folder or a bucket: reads, journals and sends files that arrive, until the run is
//! stopped.

pub(crate) mod file_discovery;
pub(crate) mod forward;
mod fs_events;
mod ingest;
pub(crate) mod initial_scan;
mod pending_files;
mod read;
mod retry;
mod tracked_files;
mod watched_folder;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::batch::BatchAck;
use crate::batch::provenance::Split;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::metrics::{BlockingCaller, BlockingOperation, Metrics};
use crate::source::discovery::arrival_log::SegmentWriter;
use crate::source::discovery::digest_log::DigestLog;
use crate::source::discovery::listing::Listing;
use crate::source::discovery::listing_journal::JournaledListing;
use crate::source::discovery::missing_rows::MissingRows;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::reader::BatchSender;
use crate::source::watch::initial_scan::paced;
use crate::storage::Location;

use pending_files::PendingFiles;
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

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
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
