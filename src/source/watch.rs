//! Watches a folder or a bucket: files that come are journalled, then read, until nobody wants more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::batch::{Fate, Split};
use crate::error::StageError;
use crate::source::images::{AHEAD, ReadEnd, Reader, UnreadRow};
use crate::source::journal::{self, Journal, Row};
use crate::source::listing::{FileSet, ListedFile, Listing, Watched};
use crate::source::notices::{Notice, Notices};
use crate::source::present::Present;
use crate::source::watched::{self, Appender};
use crate::source::{BatchSender, Opened, read_blocking};
use crate::store::Location;

/// How quick a watch is.
pub(super) struct Pace {
    /// How often all files are looked at.
    pub(super) rescan: Duration,
    /// How long a file that has come waits for more.
    pub(super) delay: Duration,
}

/// Files that are journalled together at most.
const GROUP: usize = 1024;
/// A file that nobody said was complete is taken when it has not changed for so long.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a watch that has nothing to do looks whether it is still wanted.
const IDLE: Duration = Duration::from_millis(250);

/// Starts to watch: reads first what `listing` holds and what earlier runs have left.
///
/// # Errors
/// When there is no folder to watch, or no place for the journal.
pub(super) fn open(
    stage: &str,
    files: FileSet,
    mut listing: Listing,
    reader: Reader,
    pace: Pace,
) -> Result<Opened, StageError> {
    let state = reader.progress.state.clone().filter(|state| state.local().is_some());
    let Some(state) = state else {
        return Err(StageError::Other(
            "a folder that is watched needs a journal on a disk of this machine: write `state = \"some/folder\"` at the \
             top of the pipeline"
                .to_owned(),
        ));
    };
    let field = files.watched()?;
    // Notices begin before the folder is looked at again, so that nothing comes unseen between the two.
    let notices = Notices::of(field.as_ref());
    let journals = journal::recall(stage, &state, &mut listing)?;
    let split = watched::split(stage);
    let next = journals.iter().filter(|j| j.segment.is_some()).map(|j| j.first + j.rows.len() as u64).max();
    let next = next.unwrap_or(0).max(reader.progress.end_of(split.name()));
    let appender = Appender::open(stage, state.local().unwrap_or_else(|| ".".as_ref()), next)?;
    let present = Present::of(&journals, &reader.progress);
    let (sender, fates) = unbounded_channel();
    let watch = Watch {
        stage: stage.to_owned(),
        files,
        field,
        split,
        reader,
        pace,
        notices,
        present,
        appender,
        fates,
        come: BTreeMap::new(),
        unsettled: BTreeMap::new(),
    };
    let batches = read_blocking(AHEAD, move |out| watch.run(journals, listing, out));
    Ok(Opened { fates: Some(sender), ..Opened::new(batches, None) })
}

struct Watch {
    stage: String,
    files: FileSet,
    /// The folder; `None` for a bucket.
    field: Option<Watched>,
    split: Arc<Split>,
    reader: Reader,
    pace: Pace,
    notices: Notices,
    present: Present,
    appender: Appender,
    fates: UnboundedReceiver<Fate>,
    /// Files that are complete and not journalled.
    come: BTreeMap<String, ListedFile>,
    /// Files that may still be written, and since when they have not changed.
    unsettled: BTreeMap<String, (ListedFile, Instant)>,
}

impl Watch {
    fn run(mut self, journals: Vec<Journal>, first: Listing, out: &BatchSender) -> Result<(), StageError> {
        for Journal { split, first, rows, .. } in &journals {
            if !self.read_rows(split, *first, rows, out)? {
                return Ok(());
            }
        }
        drop(journals);
        self.found(first.files);
        let mut rescan = Instant::now();
        while !out.is_closed() {
            self.hear();
            if rescan.elapsed() >= self.pace.rescan || self.notices.take_missed() {
                self.look_at_all();
                rescan = Instant::now();
            }
            self.settle();
            while let Ok(fate) = self.fates.try_recv() {
                self.present.done(&self.split, &fate, &self.appender.segment);
            }
            if !self.come.is_empty() && !self.take(out)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the first notice, and then for those that come soon after it.
    fn hear(&mut self) {
        let wait = if self.come.is_empty() { IDLE.min(self.pace.rescan) } else { Duration::ZERO };
        let mut end = Instant::now() + wait;
        let mut heard = BTreeSet::new();
        while let Some(notice) = self.notices.next(end) {
            match notice {
                Notice::Changed(path) => {
                    if heard.is_empty() {
                        end = Instant::now() + self.pace.delay;
                    }
                    heard.insert(path);
                    if heard.len() >= GROUP {
                        break;
                    }
                }
                Notice::Folder(path) => self.look_into(&path),
            }
        }
        heard.into_iter().for_each(|path| self.look_at(&path));
    }

    /// A path was written to its end, moved, or removed.
    fn look_at(&mut self, path: &Path) {
        let Some(field) = &self.field else { return };
        let Some(name) = field.name_of(path) else { return };
        let is_folder = path.is_dir();
        let files = field.look(path);
        if is_folder {
            return self.found(files);
        }
        if files.is_empty() {
            self.unsettled.remove(&name);
            self.come.remove(&name);
            return self.present.forget_below(&name, &self.appender.segment);
        }
        let new = files.into_iter().filter(|(_, file)| !self.present.has(file));
        for (name, file) in new {
            self.unsettled.remove(&name);
            self.come.insert(name, file);
        }
    }

    /// A folder has come: what is in it may still be written.
    fn look_into(&mut self, path: &Path) {
        let files = self.field.as_ref().map(|field| field.look(path));
        self.found(files.unwrap_or_default());
    }

    fn look_at_all(&mut self) {
        match self.files.list() {
            Ok(listing) => {
                // Where nothing is left at all, a disk is gone rather than all of its files.
                if !listing.files.is_empty() {
                    self.present.keep_only(&listing.files, &self.appender.segment);
                }
                self.found(listing.files);
            }
            Err(error) => tracing::warn!("{}: cannot look through the folder now: {error}", self.stage),
        }
    }

    /// Files that were found rather than told of: those that have not changed for a while are complete.
    fn found(&mut self, files: BTreeMap<String, ListedFile>) {
        let is_object = self.field.is_none();
        let new = files.into_iter().filter(|(_, file)| !self.present.has(file));
        for (name, file) in new.collect::<Vec<_>>() {
            if is_object || is_older_than(&file, SETTLE) {
                self.come.insert(name, file);
            } else if self.unsettled.get(&name).is_none_or(|(known, _)| !known.is_same(&file)) {
                self.unsettled.insert(name, (file, Instant::now()));
            }
        }
    }

    /// Looks again at files that may have been written when they were found.
    fn settle(&mut self) {
        let Some(field) = &self.field else { return };
        let due: Vec<String> = self
            .unsettled
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= SETTLE)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some((before, _)) = self.unsettled.remove(&name) else { continue };
            let Some(path) = before.location(&Location::Local(field.root.clone())).local().map(PathBuf::from) else {
                continue;
            };
            match field.look(&path).remove(&name) {
                Some(now) if now.is_same(&before) => drop(self.come.insert(name, now)),
                Some(now) => drop(self.unsettled.insert(name, (now, Instant::now()))),
                None => {}
            }
        }
    }

    /// Journals what has come, and reads it. `false` when nobody wants more.
    fn take(&mut self, out: &BatchSender) -> Result<bool, StageError> {
        let rest = self.come.keys().nth(GROUP).cloned();
        let rest = rest.map(|name| self.come.split_off(&name)).unwrap_or_default();
        // A file may have been told of and found as well: this is the one gate that lets it in.
        let files = std::mem::replace(&mut self.come, rest).into_values();
        let files: Vec<ListedFile> = files.filter(|file| !self.present.has(file)).collect();
        if files.is_empty() {
            return Ok(true);
        }
        let first = self.appender.next;
        self.appender.append(&files)?;
        self.present.add(&files, &self.appender.segment);
        let rows: Vec<Row> = files.into_iter().map(|file| Row { file, gone: false }).collect();
        self.read_rows(&Arc::clone(&self.split), first, &rows, out)
    }

    /// `false` when nobody wants more.
    fn read_rows(&self, split: &Arc<Split>, first: u64, rows: &[Row], out: &BatchSender) -> Result<bool, StageError> {
        let mut unread = Vec::new();
        let end = self.reader.read_rows(split, first, rows, out, &mut unread)?;
        match unread.into_iter().next() {
            Some(UnreadRow { unavailable, .. }) => Err(unavailable.into()),
            None => Ok(matches!(end, ReadEnd::Complete)),
        }
    }
}

/// Whether a file was last written so long ago; one from the future was not.
fn is_older_than(file: &ListedFile, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    now.saturating_sub(file.mtime_ns) >= i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
}
