//! Finds files in a watched folder: events, scans, and files that are still written.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::StageError;
use crate::source::discovery::file_identity::FileMatch;
use crate::source::discovery::listed_file::{ListedFile, name_of};
use crate::source::discovery::listing::Listing;
use crate::source::watch::fs_events::FsEvent;
use crate::source::watch::initial_scan::paced;
use crate::source::watch::pending_files::is_older_than;
use crate::source::watch::{CHECK, FolderWatcher, GROUP, IDLE, STABLE_FOR, WRITING, unix_now};

impl FolderWatcher {
    /// Waits for the first event, and then up to `delay` for further ones.
    pub(crate) fn collect_events(&mut self) -> Result<(), StageError> {
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
    pub(crate) fn rescan_due(&mut self) -> Result<(), StageError> {
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
    pub(crate) fn rescan_all(&mut self) -> Result<(), StageError> {
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
    pub(crate) fn add_candidates(&mut self, listing: Listing) -> Result<(), StageError> {
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
    pub(crate) fn is_written(&self, file: &ListedFile) -> bool {
        let path = self.folder.reported(&file.relative_path());
        !is_older_than(file, WRITING)
            && path.is_some_and(|path| self.folder.events.is_written(&path))
    }

    /// Checks the files again that may have been incomplete when they were found.
    pub(crate) fn recheck_pending(&mut self) {
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
}
