//! Opens a watched folder: the first scan, with the journals of earlier runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;

use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::source::SourceHandle;
use crate::source::discovery::arrival_log;
use crate::source::discovery::arrival_log::SegmentWriter;
use crate::source::discovery::digest_log::{DigestEntry, DigestLog};
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::listing::Listing;
use crate::source::discovery::listing_journal::{self, JournaledListing, LoadedListings};
use crate::source::discovery::missing_rows::MissingRows;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::reader::AHEAD;
use crate::source::reader::spawn_reader;
use crate::source::watch::pending_files::PendingFiles;
use crate::source::watch::retry::{FileRetries, FolderRescans};
use crate::source::watch::tracked_files::TrackedFiles;
use crate::source::watch::watched_folder::WatchedFolder;
use crate::source::watch::{FolderWatcher, WatchConfig, unix_now};
use crate::storage::Location;

/// Scales a time of the watch. In debug builds, the environment variable `LATENTFLOW_WATCH_SPEED`
/// divides it, so that tests are fast.
pub(crate) fn paced(time: Duration) -> Duration {
    if !cfg!(debug_assertions) {
        return time;
    }
    let speed = std::env::var("LATENTFLOW_WATCH_SPEED")
        .ok()
        .and_then(|speed| speed.parse().ok());
    time / speed.unwrap_or(1).max(1)
}

/// Starts to watch. Reads the uncommitted rows of earlier runs first, then the files that exist.
///
/// # Errors
/// If the folder cannot be watched, or `state` is not on a local disk.
pub(in crate::source) fn open(
    stage: &str,
    files: FileSet,
    batch_config: ImageBatchConfig,
    resume: &ResumeState,
    config: WatchConfig,
    metrics: Arc<Metrics>,
) -> Result<SourceHandle, StageError> {
    let state = resume.state.clone().filter(|state| state.local().is_some());
    let Some(state) = state else {
        return Err(StageError::new(ErrorCode::StateRequired,
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
        Err(reason) => return Err(StageError::new(ErrorCode::InputNotFound, reason)),
    };
    let entries = digest_log.read(|_| true)?;
    let missing_since = crate::source::watch::tracked_files::missing::missing_since(&entries);
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
