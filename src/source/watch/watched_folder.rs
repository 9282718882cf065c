//! The watched folder or bucket: its availability, its files, and the events of the file system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::file_set::scan::WatchRoot;
use crate::source::discovery::listing::{Listing, is_at_or_below};
use crate::source::discovery::root_folder::{RootRecord, SourceRoot};
use crate::source::watch::fs_events::FsEvents;
use crate::storage::Location;

/// The watched folder or bucket.
pub(super) struct WatchedFolder {
    stage: String,
    state: Location,
    files: FileSet,
    /// The folder; `None` for a bucket.
    folder: Option<WatchRoot>,
    record: RootRecord,
    /// The folder at the last listing; `None` if it could not be listed.
    root: Option<SourceRoot>,
    /// The folder that was listed last, even if it does not exist any more.
    last_listed: Option<SourceRoot>,
    /// Subfolders that lacked their mounted file systems at the last listing.
    unmounted: BTreeSet<String>,
    /// The reason why files are not read at present.
    trouble: Option<String>,
    pub(super) events: FsEvents,
}

impl WatchedFolder {
    /// A watched folder that is not listed yet.
    ///
    /// # Errors
    /// If it cannot be watched, or its record cannot be read.
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

    /// Whether an earlier run has read the folder.
    pub(super) fn is_known(&self) -> bool {
        self.record.is_known()
    }

    /// The folder that names are relative to.
    pub(super) fn location(&self) -> Location {
        Location::Local(
            self.folder
                .as_ref()
                .map_or_else(PathBuf::new, |folder| folder.root.clone()),
        )
    }

    /// Whether it is a bucket, whose listed objects are always complete.
    pub(super) fn is_bucket(&self) -> bool {
        self.folder.is_none()
    }

    /// The reason why files are not read at present.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Lists all files. Folders are watched before they are read, so that no file is missed in
    /// between. Subfolders that lack their mounted file systems count as unread.
    ///
    /// # Errors
    /// The reason why the folder cannot be listed.
    pub(super) fn list(&mut self) -> Result<Listing, String> {
        let Some(folder) = &self.folder else {
            return self.files.list_inbox().map_err(|error| error.to_string());
        };
        let root = match SourceRoot::probe(&folder.root) {
            Ok(root) => root,
            Err(reason) => {
                self.root = None;
                self.events = FsEvents::none();
                return Err(reason);
            }
        };
        if self.root.as_ref() != Some(&root) {
            self.events = FsEvents::begin(&root.path);
        }
        self.log_changes(&root);
        let (events, path) = (&mut self.events, root.path.clone());
        self.root = Some(root);
        let listing = self
            .files
            .list_visiting(&mut |below, id| events.cover(path.join(below), id));
        let mut listing = listing.map_err(|error| error.to_string())?;
        listing
            .unread
            .extend(self.unmounted.iter().map(|name| (name.clone(), None)));
        Ok(listing)
    }

    /// Logs that the path refers to another folder than at the last listing, and which file systems
    /// below it were mounted or unmounted.
    fn log_changes(&mut self, root: &SourceRoot) {
        let (stage, path) = (self.stage.as_str(), |name: &str| root.path.join(name));
        if self.last_listed.as_ref().is_some_and(|last| last != root) {
            tracing::warn!(
                stage,
                path = %root.path.display(),
                "the watched path refers to another folder than before, which is watched now"
            );
        }
        let unmounted = self.record.missing_below(root);
        for name in unmounted.difference(&self.unmounted) {
            tracing::warn!(
                stage,
                path = %path(name).display(),
                "a file system is not mounted any more; its files stay known"
            );
        }
        for name in self.unmounted.difference(&unmounted) {
            tracing::info!(
                stage,
                path = %path(name).display(),
                "a file system is mounted again"
            );
        }
        self.unmounted = unmounted;
        self.last_listed = Some(root.clone());
    }

    /// Whether the listing may be processed, given the number of expected files and whether a known
    /// file is present. If so, clears the trouble and records the folder; else stores the reason.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(super) fn accept(
        &mut self,
        listing: &Listing,
        expected: usize,
        has_known: bool,
    ) -> Result<bool, StageError> {
        let missing = self
            .root
            .as_ref()
            .and_then(|root| self.record.missing(root))
            .filter(|_| !has_known);
        let emptied = || {
            // A bucket cannot be unmounted: a prefix whose objects were removed is empty.
            let has_files = !listing.files.is_empty() || listing.of_other_shards > 0;
            let is_emptied = !has_files && expected > 0 && !self.is_bucket();
            let location = &listing.root;
            is_emptied.then(|| {
                format!(
                    "`{location}` contains no input files; known files: {expected}; its disk may \
                     not be mounted"
                )
            })
        };
        if let Some(reason) = missing.or_else(emptied) {
            self.wait(reason);
            return Ok(false);
        }
        if self.trouble.take().is_some() {
            tracing::info!(stage = %self.stage, "the watched folder is available again");
        }
        if let Some(root) = &self.root {
            self.record
                .record(root, listing.mount_points(), &self.stage, Some(&self.state))?;
        }
        Ok(true)
    }

    /// Stops reading files until the folder is available.
    pub(super) fn wait(&mut self, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            tracing::warn!(
                stage = %self.stage,
                %reason,
                "waiting for the watched folder, whose files stay known"
            );
        }
        self.trouble = Some(reason);
    }

    /// Whether the path refers to another folder than at the last listing, or file systems below it
    /// were mounted or unmounted. Costs one `stat` of the folder and of each mount point.
    pub(super) fn has_changed(&mut self) -> bool {
        let Some(folder) = &self.folder else {
            return false;
        };
        match SourceRoot::probe(&folder.root) {
            Ok(root) if self.root.as_ref() == Some(&root) => {
                let is_available = self.trouble.is_some() && self.record.missing(&root).is_none();
                is_available || self.record.missing_below(&root) != self.unmounted
            }
            Ok(_) => true,
            Err(reason) => {
                self.root = None;
                self.events = FsEvents::none();
                self.wait(reason);
                false
            }
        }
    }

    /// Whether `path`, which the system reported as moved or removed, is the watched folder itself.
    /// If so, the folder counts as not listed.
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

    /// Lists the files at or below a path relative to the folder. Folders are watched before they
    /// are read. `None` if the path cannot be read.
    pub(super) fn scan(&mut self, below: &Path) -> Option<Listing> {
        let (folder, root) = (self.folder.as_ref()?, self.root.as_ref()?);
        let (events, path) = (&mut self.events, &root.path);
        folder
            .scan(below, &mut |visited, id| {
                events.cover(path.join(visited), id)
            })
            .ok()
    }

    /// Whether a file, given by name and by path relative to the folder, does not exist while its
    /// parent folder does.
    pub(super) fn lacks_file(&self, name: &str, below: &Path) -> bool {
        let holds_parent =
            |root: &SourceRoot| root.path.join(below).parent().is_some_and(Path::is_dir);
        self.trouble.is_none()
            && self.root.as_ref().is_some_and(holds_parent)
            && self.lacks(name, below)
    }

    /// Whether a file or folder, given by name and by path relative to the folder, does not exist,
    /// rather than being hidden by a mounted or unmounted file system.
    pub(super) fn lacks(&self, name: &str, below: &Path) -> bool {
        let Some(root) = &self.root else { return false };
        let is_absent = |path: &Path| {
            path.symlink_metadata()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        self.folder
            .as_ref()
            .is_some_and(|folder| SourceRoot::probe(&folder.root).as_ref() == Ok(root))
            && is_absent(&root.path.join(below))
            && !self
                .record
                .missing_below(root)
                .iter()
                .any(|folder| is_at_or_below(name, folder))
    }
}
