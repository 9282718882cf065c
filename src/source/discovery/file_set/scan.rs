//! Scans of folders and buckets for the files of a set.

use std::path::{Path, PathBuf};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::file_set::patterns::{FileGlob, keep_if, matches_glob};
use crate::source::discovery::listing::Listing;
use crate::source::discovery::skipped_files::SkipReason;
use crate::storage::mounts::FolderId;
use crate::storage::{Location, is_url};

/// The callback for each folder, a path relative to the root, before its entries are read.
pub(crate) type VisitFolder<'a> = dyn FnMut(&Path, FolderId) + 'a;

/// A folder or a glob that is watched for changes.
pub(crate) struct WatchRoot {
    /// The folder that names are relative to, as written in the pipeline.
    pub(crate) root: PathBuf,
    pub(super) set: FileSet,
}

impl WatchRoot {
    /// Lists the selected files at or below `below`, a path relative to the root.
    ///
    /// # Errors
    /// If `below` cannot be read.
    pub(crate) fn scan(
        &self,
        below: &Path,
        visit: &mut VisitFolder<'_>,
    ) -> Result<Listing, StageError> {
        let mut listing = match self
            .set
            .folder_glob()
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?
        {
            None => {
                let below = (below, None);
                self.set.walk(&self.root, below, usize::MAX, visit, |name| {
                    self.set.matches(name)
                })
            }
            Some(FileGlob { matcher, depth, .. }) => {
                let depth = depth.map(|depth| depth.saturating_sub(below.components().count()));
                self.set
                    .walk(&self.root, (below, depth), usize::MAX, visit, |name| {
                        matches_glob(&matcher, name)
                    })
            }
        }?;
        listing.retain_shard(self.set.shard);
        Ok(listing)
    }
}

impl FileSet {
    /// Checks that the folder, file or prefix exists, without listing it.
    ///
    /// # Errors
    /// If it does not exist, or that cannot be determined.
    pub(crate) fn find(&self) -> Result<(), StageError> {
        let root = match self
            .folder_glob()
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?
        {
            Some(glob) if glob.root.is_empty() => ".".to_owned(),
            Some(glob) => glob.root,
            None => self.path.clone(),
        };
        let exists = |path: &str| match Location::parse(path)? {
            Location::Local(path) => path.try_exists().map_err(StageError::io(&path)),
            Location::Remote(prefix) => {
                let found = prefix
                    .head()
                    .and_then(|object| Ok(object.is_some() || prefix.has_objects()?));
                found.map_err(|error| Location::Remote(prefix.clone()).io_error(error))
            }
        };
        // A path that exists is not a glob. A path that is not a valid key may still be a glob.
        let is_found = exists(&root)? || (root != self.path && exists(&self.path).unwrap_or(false));
        if is_found {
            Ok(())
        } else {
            Err(self.not_found())
        }
    }

    /// Checks that there is a file to read, and ends at the first one. A bucket is not listed, only
    /// its prefix has to exist. Files may be in a folder that cannot be read, which the run reports
    /// after it has read its other inputs.
    ///
    /// # Errors
    /// Those of [`Self::find`], or [`Self::no_matches`].
    pub(crate) fn find_match(&self) -> Result<(), StageError> {
        self.find()?;
        if is_url(&self.path) {
            return Ok(());
        }
        match self.scan(1, &mut |_, _| {}) {
            Ok(listing) if listing.files.is_empty() && listing.unread.is_empty() => {
                Err(self.no_matches(&listing))
            }
            _ => Ok(()),
        }
    }

    /// Lists at most `max_files` files of a local folder, or all files of a bucket.
    pub(super) fn scan(
        &self,
        max_files: usize,
        visit: &mut VisitFolder<'_>,
    ) -> Result<Listing, StageError> {
        if is_url(&self.path) {
            return self.list_objects()?.ok_or_else(|| self.not_found());
        }
        let path = Path::new(&self.path);
        if path.is_file() {
            let root = path.parent().map(Path::to_path_buf).unwrap_or_default();
            let is_requested = |name: &Path| Some(name.as_os_str()) == path.file_name();
            let below = (Path::new(""), Some(1));
            return self.walk(&root, below, max_files, visit, |name| {
                keep_if(is_requested(name), SkipReason::NotRequested)
            });
        }
        if path.is_dir() {
            let below = (Path::new(""), None);
            let mut listing =
                self.walk(path, below, max_files, visit, |name| self.matches(name))?;
            // Skipped folders and files need not be readable.
            let unread = listing
                .unread
                .iter_mut()
                .filter(|(name, _)| self.excludes(Path::new(name)));
            unread.for_each(|(_, failure)| *failure = None);
            return Ok(Listing {
                is_folder: true,
                ..listing
            });
        }
        match self
            .glob()
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?
        {
            Some(FileGlob {
                root,
                matcher,
                depth,
            }) => {
                let below = (Path::new(""), depth);
                self.walk(Path::new(&root), below, max_files, visit, |name| {
                    matches_glob(&matcher, name)
                })
            }
            None => Err(self.not_found()),
        }
    }

    /// The folder that names are relative to, as written in the pipeline; `None` for a bucket.
    pub(crate) fn local_root(&self) -> Option<PathBuf> {
        let path = Path::new(&self.path);
        if is_url(&self.path) {
            return None;
        }
        if path.is_file() {
            let above = path.parent().map(Path::to_path_buf).unwrap_or_default();
            return Some(if above.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                above
            });
        }
        Some(match self.folder_glob().ok().flatten() {
            Some(glob) if glob.root.is_empty() => PathBuf::from("."),
            Some(glob) => PathBuf::from(glob.root),
            None => path.to_path_buf(),
        })
    }

    /// The folder to watch; `None` for a bucket, which can only be listed repeatedly.
    ///
    /// # Errors
    /// If `path` is a single file.
    pub(crate) fn watch_root(&self) -> Result<Option<WatchRoot>, StageError> {
        if Path::new(&self.path).is_file() {
            return Err(StageError::new(
                ErrorCode::InputInvalid,
                format!(
                    "`{}` is a file; expected a folder or a glob to watch",
                    self.path
                ),
            ));
        }
        Ok(self.local_root().map(|root| WatchRoot {
            root,
            set: self.clone(),
        }))
    }
}
