//! The walk through a folder, and the listing of a bucket.

use std::path::Path;

use walkdir::WalkDir;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::is_temp_name;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::file_set::patterns::{FileGlob, matches_glob};
use crate::source::discovery::file_set::scan::VisitFolder;
use crate::source::discovery::listed_file::{ListedFile, name_of};
use crate::source::discovery::listing::{Listing, io_error};
use crate::source::discovery::skipped_files::SkipReason;
use crate::source::discovery::stat_cache::DirHandle;
use crate::storage::Location;
use crate::storage::listing::ObjectListing;
use crate::storage::mounts::FolderId;

impl FileSet {
    /// Lists the objects of a bucket. As for folders, the key of an existing object is never
    /// treated as a glob, nor is a prefix with objects. `None` if neither an object nor a glob is
    /// found.
    pub(super) fn list_objects(&self) -> Result<Option<Listing>, StageError> {
        // A path that is not a valid key may still be a glob.
        if let Ok(Location::Remote(prefix)) = Location::parse(&self.path) {
            let failed = |error| Location::Remote(prefix.clone()).io_error(error);
            if let Some((folder, _)) = prefix.parent()
                && let Some(object) = prefix.head().map_err(failed)?
            {
                let below = prefix.list().map_err(failed)?.entries.len() as u64;
                let object = ObjectListing {
                    entries: vec![object],
                    ..ObjectListing::default()
                };
                let mut listing = Listing::of_objects(folder, object, |_| Ok(()));
                listing.skipped_files.add_below_object(below);
                return Ok(Some(listing));
            }
            let objects = prefix.list().map_err(failed)?;
            if !objects.entries.is_empty() || objects.unusable.count > 0 {
                let listing = Listing::of_objects(prefix, objects, |name| self.matches(name));
                return Ok(Some(Listing {
                    is_folder: true,
                    ..listing
                }));
            }
        }
        let Some(FileGlob { root, matcher, .. }) = self
            .glob()
            .map_err(StageError::with_code(ErrorCode::InputInvalid))?
        else {
            return Ok(None);
        };
        match Location::parse(&root)? {
            Location::Remote(root) => {
                let objects = root
                    .list()
                    .map_err(|error| Location::Remote(root.clone()).io_error(error))?;
                Ok(Some(Listing::of_objects(root, objects, |name| {
                    matches_glob(&matcher, name)
                })))
            }
            Location::Local(_) => Ok(None),
        }
    }

    /// Lists the files at or below `below`, a path relative to `root`, down to `depth`. Ends after
    /// `max_files` files.
    pub(super) fn walk(
        &self,
        root: &Path,
        (below, depth): (&Path, Option<usize>),
        max_files: usize,
        visit: &mut VisitFolder<'_>,
        choose: impl Fn(&Path) -> Result<(), SkipReason>,
    ) -> Result<Listing, StageError> {
        let start = if root.as_os_str().is_empty() {
            Path::new(".")
        } else {
            root
        };
        let mut files = Listing::empty(Location::Local(start.to_path_buf()));
        // A single file in `path` may be a link.
        let follow = self.follow_links || Path::new(&self.path).is_file();
        let walk = WalkDir::new(start.join(below))
            .follow_links(follow)
            .max_depth(depth.unwrap_or(usize::MAX));
        let mut folder = DirHandle::default();
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.depth() == 0 => {
                    return Err(StageError::io(start.join(below))(io_error(error)));
                }
                Err(error) => {
                    files.add_walk_error(error, start);
                    continue;
                }
            };
            let relative = entry.path().strip_prefix(start).unwrap_or(entry.path());
            let result = if entry.file_type().is_dir() {
                let is_read = depth.is_none_or(|depth| entry.depth() < depth);
                match entry.metadata().map_err(io_error) {
                    Ok(metadata) => {
                        let id = FolderId::from_metadata(&metadata);
                        files.folders.insert(name_of(relative), id);
                        if is_read && (depth.is_some() || !self.excludes(relative)) {
                            visit(relative, id);
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            } else if entry.file_type().is_file() {
                files.files_scanned += 1;
                let chosen = if is_temp_name(entry.file_name()) {
                    Err(SkipReason::Own)
                } else {
                    choose(relative)
                };
                match chosen {
                    Ok(()) => folder
                        .stat(&entry)
                        .map(|found| files.add(ListedFile::new(relative, found))),
                    Err(reason) => {
                        files.skipped_files.add(relative, reason);
                        Ok(())
                    }
                }
            } else {
                if entry.file_type().is_symlink() {
                    files.skipped_files.add(relative, SkipReason::Link);
                }
                Ok(())
            };
            if let Err(error) = result {
                files.add_unread(entry.path(), error);
            }
            if files.files.len() >= max_files {
                break;
            }
        }
        Ok(files)
    }
}
