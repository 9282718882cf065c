//! The watched folder or bucket: whether it is there, what lies in it, and the system's notices of
//! changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::source::file_set::{FileSet, WatchRoot};
use crate::source::listing::{Listing, is_at_or_below};
use crate::source::root_folder::{RootRecord, SourceRoot};
use crate::source::watch::fs_events::FsEvents;
use crate::storage::Location;

/// What is watched.
pub(super) struct WatchedFolder {
    stage: String,
    state: Location,
    files: FileSet,
    /// The folder; `None` for a bucket.
    folder: Option<WatchRoot>,
    record: RootRecord,
    /// The folder as it was when it was listed last; `None` where it could not be listed.
    root: Option<SourceRoot>,
    /// The folder that was listed last, whether it is still there or not.
    last_listed: Option<SourceRoot>,
    /// Folders below that lacked what is mounted there when the folder was listed last.
    unmounted: BTreeSet<String>,
    /// Why files are not taken at present: a clause.
    trouble: Option<String>,
    pub(super) events: FsEvents,
}

impl WatchedFolder {
    /// What is watched, before the first look.
    ///
    /// # Errors
    /// When it cannot be watched, or the record of it cannot be read.
    pub(super) fn new(stage: &str, files: FileSet, state: &Location) -> Result<Self, StageError> {
        let folder = files.watch_root()?;
        let record = RootRecord::load(stage, Some(state))?;
        Ok(Self {
            stage: stage.to_owned(),
            state: state.clone(),
            files,
            folder,
            record,
            root: None,
            last_listed: None,
            unmounted: BTreeSet::new(),
            trouble: None,
            events: FsEvents::none(),
        })
    }

    /// Whether an earlier run has met the folder.
    pub(super) fn is_known(&self) -> bool {
        self.record.is_known()
    }

    /// What names are relative to.
    pub(super) fn location(&self) -> Location {
        Location::Local(
            self.folder
                .as_ref()
                .map_or_else(PathBuf::new, |folder| folder.root.clone()),
        )
    }

    /// Whether it is a bucket, whose objects are complete when they are seen.
    pub(super) fn is_bucket(&self) -> bool {
        self.folder.is_none()
    }

    /// Why files are not taken at present.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Lists all files. Folders are watched before they are read, so that no file is missed in
    /// between. Those that lack what is mounted there count as unread.
    ///
    /// # Errors
    /// A clause that says why the folder cannot be listed.
    pub(super) fn list(&mut self) -> Result<Listing, String> {
        let Some(folder) = &self.folder else {
            return self.files.list_inbox().map_err(|error| error.to_string());
        };
        let root = match SourceRoot::look(&folder.root) {
            Ok(root) => root,
            Err(why) => {
                self.root = None;
                self.events = FsEvents::none();
                return Err(why);
            }
        };
        if self.root.as_ref() != Some(&root) {
            self.events = FsEvents::begin(&root.path);
        }
        self.log_changes(&root);
        let (notices, path) = (&mut self.events, root.path.clone());
        self.root = Some(root);
        let listing = self
            .files
            .list_visiting(&mut |below, id| notices.cover(path.join(below), id));
        let mut listing = listing.map_err(|error| error.to_string())?;
        listing
            .unread
            .extend(self.unmounted.iter().map(|name| (name.clone(), None)));
        Ok(listing)
    }

    /// Logs that another folder lies under the path than was listed last, and which file systems
    /// below it came or went.
    fn log_changes(&mut self, root: &SourceRoot) {
        let (stage, path) = (&self.stage, root.path.display());
        if self.last_listed.as_ref().is_some_and(|last| last != root) {
            tracing::warn!(
                "{stage}: the watched path leads to another folder than before (`{path}`), which is watched now"
            );
        }
        let unmounted = self.record.missing_below(root);
        for name in unmounted.difference(&self.unmounted) {
            tracing::warn!(
                "{stage}: nothing is mounted at `{path}/{name}` any more; files that were taken from it stay known"
            );
        }
        for name in self.unmounted.difference(&unmounted) {
            tracing::info!("{stage}: a file system is mounted at `{path}/{name}` again");
        }
        self.unmounted = unmounted;
        self.last_listed = Some(root.clone());
    }

    /// Whether the listing may be acted upon, given how many files are expected and whether one
    /// that is known was seen: clears the trouble and records the folder, or keeps the reason why
    /// not.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn accept(
        &mut self,
        listing: &Listing,
        expected: usize,
        sees_known: bool,
    ) -> Result<bool, StageError> {
        let missing = self
            .root
            .as_ref()
            .and_then(|root| self.record.missing(root))
            .filter(|_| !sees_known);
        let emptied = || {
            // A bucket is not a disk: a prefix whose objects were removed is empty.
            let is_emptied = listing.files.is_empty() && expected > 0 && !self.is_bucket();
            let location = &listing.root;
            is_emptied.then(|| {
                format!(
                    "`{location}` holds no file, and held {expected}: its disk may not be mounted"
                )
            })
        };
        if let Some(why) = missing.or_else(emptied) {
            self.wait(why);
            return Ok(false);
        }
        if self.trouble.take().is_some() {
            tracing::info!("{}: the folder is there again", self.stage);
        }
        if let Some(root) = &self.root {
            self.record
                .record(root, listing.mount_points(), &self.stage, Some(&self.state))?;
        }
        Ok(true)
    }

    /// Files are not taken until the folder is there.
    pub(super) fn wait(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!(
                "{}: {why}; it is waited for, and files that were taken from it stay known",
                self.stage
            );
        }
        self.trouble = Some(why);
    }

    /// Whether another folder lies under the path than was listed, or file systems below it came or
    /// went. It costs a look at the folder and at each mount point.
    pub(super) fn has_changed(&mut self) -> bool {
        let Some(folder) = &self.folder else {
            return false;
        };
        match SourceRoot::look(&folder.root) {
            Ok(root) if self.root.as_ref() == Some(&root) => {
                let waits = self.trouble.is_some() && self.record.missing(&root).is_none();
                waits || self.record.missing_below(&root) != self.unmounted
            }
            Ok(_) => true,
            Err(why) => {
                self.root = None;
                self.events = FsEvents::none();
                self.wait(why);
                false
            }
        }
    }

    /// The system reported that the watched folder itself was moved or removed.
    pub(super) fn is_lost(&mut self, path: &Path) -> bool {
        let is_root = self.root.as_ref().is_some_and(|root| root.path == path);
        if is_root {
            self.root = None;
        }
        is_root
    }

    /// A path that the system reported, relative to the folder.
    pub(super) fn below<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(&self.root.as_ref()?.path).ok()
    }

    /// The path of a file as the system reports it.
    pub(super) fn reported(&self, below: &Path) -> Option<PathBuf> {
        Some(self.root.as_ref()?.path.join(below))
    }

    /// Lists what lies at or below a path that is relative to the folder; folders are watched
    /// before they are read. `None` where nothing can be read there.
    pub(super) fn scan(&mut self, below: &Path) -> Option<Listing> {
        let (folder, root) = (self.folder.as_ref()?, self.root.as_ref()?);
        let (notices, path) = (&mut self.events, &root.path);
        folder
            .scan(below, &mut |below, id| notices.cover(path.join(below), id))
            .ok()
    }

    /// Whether a file, by its name and its path relative to the folder, is gone, while the folder
    /// that held it is there.
    pub(super) fn lacks_file(&self, name: &str, below: &Path) -> bool {
        let holds_parent =
            |root: &SourceRoot| root.path.join(below).parent().is_some_and(Path::is_dir);
        self.trouble.is_none()
            && self.root.as_ref().is_some_and(holds_parent)
            && self.lacks(name, below)
    }

    /// Whether what a path, relative to the folder, leads to is gone, rather than hidden by a file
    /// system that came or went.
    pub(super) fn lacks(&self, name: &str, below: &Path) -> bool {
        let Some(root) = &self.root else { return false };
        let is_absent = |path: &Path| {
            path.symlink_metadata()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        self.folder
            .as_ref()
            .is_some_and(|folder| SourceRoot::look(&folder.root).as_ref() == Ok(root))
            && is_absent(&root.path.join(below))
            && !self
                .record
                .missing_below(root)
                .iter()
                .any(|folder| is_at_or_below(name, folder))
    }
}
