//! The files of a file set at one point in time, and the paths that could not be read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::error::unavailable::UnavailableInput;
use crate::error::{ErrorClass, StageError};
use crate::shard::Shard;
use crate::source::discovery::listed_file::{ListedFile, name_of};
use crate::source::discovery::skipped_files::{SkipReason, SkippedFiles};
use crate::storage::listing::ObjectListing;
use crate::storage::mounts::FolderId;
use crate::storage::{Location, ObjectPath};

/// The files of a file set at one point in time.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The folder or prefix that names are relative to.
    pub(crate) root: Location,
    /// The files by name, in bytewise order.
    pub(crate) files: BTreeMap<String, ListedFile>,
    /// Number of files that were scanned, including those that did not match.
    pub(crate) files_scanned: u64,
    /// Counts of skipped files by reason.
    pub(crate) skipped_files: SkippedFiles,
    /// Number of files that belong to other shards, which are not listed.
    pub(crate) of_other_shards: usize,
    /// Whether `path` is a folder rather than a file or a glob.
    pub(crate) is_folder: bool,
    /// The local folders that were listed, by name; the name of the root is empty.
    pub(crate) folders: BTreeMap<String, FolderId>,
    /// Folders and files that could not be read, by name, each with the error of the environment to
    /// report, if there is one. Files at or below them may still exist.
    pub(crate) unread: BTreeMap<String, Option<UnavailableInput>>,
}

impl Listing {
    /// A listing without files.
    pub(crate) fn empty(root: Location) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            files_scanned: 0,
            skipped_files: SkippedFiles::default(),
            of_other_shards: 0,
            is_folder: false,
            folders: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// A listing of a root that could not be read.
    pub(crate) fn unread(root: Location) -> Self {
        Self {
            unread: BTreeMap::from([(String::new(), None)]),
            ..Self::empty(root)
        }
    }

    /// Whether the folder of a file, or the nearest existing one above it, was read, so that a file
    /// that is not listed does not exist any more.
    pub(crate) fn has_seen(&self, name: &str) -> bool {
        let above = name.match_indices('/').map(|(slash, _)| &name[..slash]);
        !["", name]
            .into_iter()
            .chain(above)
            .any(|path| self.unread.contains_key(path))
    }

    /// The device of the nearest listed folder above a file, which need not exist.
    pub(crate) fn device_of(&self, name: &str) -> Option<u64> {
        Self::device_among(&self.folders, name)
    }

    /// As [`Self::device_of`], among the folders of a listing.
    pub(crate) fn device_among(folders: &BTreeMap<String, FolderId>, name: &str) -> Option<u64> {
        let mut folder = name;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if let Some(id) = folders.get(above) {
                return Some(id.device);
            }
            folder = above;
        }
        folders.get("").map(|id| id.device)
    }

    /// Folders on another file system than their parent folder.
    pub(crate) fn mount_points(&self) -> impl Iterator<Item = String> {
        let above = |name: &str| {
            name.rsplit_once('/')
                .map_or("", |(above, _)| above)
                .to_owned()
        };
        let differs = move |(name, id): &(&String, &FolderId)| {
            !name.is_empty()
                && self
                    .folders
                    .get(&above(name))
                    .is_some_and(|above| above.device != id.device)
        };
        self.folders
            .iter()
            .filter(differs)
            .map(|(name, _)| name.clone())
    }

    fn relative_name(&self, path: &Path) -> String {
        let below = self
            .root
            .local()
            .and_then(|root| path.strip_prefix(root).ok());
        below.map(name_of).unwrap_or_default()
    }

    /// Records the path of an error of a walk from `start` as unread. The walk does not report the
    /// path of a folder that it listed in part; then `start` is recorded.
    pub(crate) fn add_walk_error(&mut self, error: walkdir::Error, start: &Path) {
        let path = error.path().unwrap_or(start).to_path_buf();
        self.add_unread(&path, io_error(error));
    }

    /// Records a path that cannot be read. A path that was removed while its folder was listed is
    /// ignored.
    pub(crate) fn add_unread(&mut self, path: &Path, error: io::Error) {
        let class = ErrorClass::of(&error);
        if class == ErrorClass::Gone {
            return;
        }
        // `lost+found` is a folder of the file system that users cannot read; it holds no inputs.
        let is_reported = path.file_name().is_none_or(|name| name != "lost+found");
        let failure = match UnavailableInput::from_error(path.to_path_buf(), class, error) {
            Ok(unavailable) if is_reported => Some(unavailable),
            Ok(unavailable) => {
                tracing::warn!(error = %unavailable, "cannot list a path");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot list a path");
                None
            }
        };
        self.unread.insert(self.relative_name(path), failure);
    }

    /// The errors of the environment that prevented reading folders and files.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &UnavailableInput> {
        self.unread.values().flatten()
    }

    /// Takes the errors of [`Self::failures`]. Their paths remain unread.
    pub(crate) fn take_failures(&mut self) -> Vec<UnavailableInput> {
        self.unread.values_mut().filter_map(Option::take).collect()
    }

    /// The objects below `root` that `choose` selects.
    pub(crate) fn of_objects(
        root: ObjectPath,
        objects: ObjectListing,
        choose: impl Fn(&Path) -> Result<(), SkipReason>,
    ) -> Self {
        let mut listing = Self::empty(Location::Remote(root));
        let ObjectListing { entries, unusable } = objects;
        listing.files_scanned = entries.len() as u64 + unusable.count;
        listing.skipped_files.add_unusable_keys(unusable.count);
        if let Some(key) = unusable.example {
            tracing::debug!(
                root = %listing.root,
                ?key,
                "skipping an object whose key is not a valid file name"
            );
        }
        for object in entries {
            match choose(Path::new(&object.name)) {
                Ok(()) => listing.add(ListedFile::from(object)),
                // An empty object represents a folder; its name lacks the trailing slash.
                Err(_) if object.size == 0 && Path::new(&object.name).extension().is_none() => {}
                Err(reason) => listing.skipped_files.add(Path::new(&object.name), reason),
            }
        }
        listing
    }

    /// The identities of the files, which include size and time.
    ///
    /// # Errors
    /// If an error of the environment hides some of them.
    pub(crate) fn identities(mut self) -> Result<Vec<String>, StageError> {
        match self.take_failures().into_iter().next() {
            Some(unavailable) => Err(unavailable.into()),
            None => Ok(self.files.values().map(ListedFile::identity).collect()),
        }
    }

    /// Removes the files that do not belong to `shard`, unless it is `None`.
    pub(crate) fn retain_shard(&mut self, shard: Option<Shard>) {
        if let Some(shard) = shard {
            let all = self.files.len();
            self.files.retain(|name, _| shard.has_file(name));
            self.of_other_shards += all - self.files.len();
        }
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, file: ListedFile) {
        if let Some(other) = self.files.insert(file.name.clone(), file) {
            tracing::warn!(
                name = ?other.name,
                "two files have the same encoded name; only one of them is read"
            );
        }
    }
}

/// The system error of a failed walk.
pub(crate) fn io_error(error: walkdir::Error) -> io::Error {
    let text = error.to_string();
    error
        .into_io_error()
        .unwrap_or_else(|| io::Error::other(text))
}

/// Whether a name is `folder` or lies below it; the empty name is the root.
pub(crate) fn is_at_or_below(name: &str, folder: &str) -> bool {
    folder.is_empty()
        || name
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::source::discovery::file_set::FileSet;
    use crate::source::discovery::file_set::testing::folder;

    #[test]
    fn unreadable_folder_hides_its_files() {
        let folder = folder(&["a.jpg", "s/b.jpg"]);
        let mut listing = FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"])
            .unwrap()
            .list()
            .unwrap();
        listing.files.clear();
        listing.add_unread(&folder.path().join("s"), rustix::io::Errno::NOENT.into());
        assert!(
            listing.has_seen("s/b.jpg"),
            "a missing folder hides no file"
        );
        listing.add_unread(&folder.path().join("s"), rustix::io::Errno::ACCESS.into());
        assert!(!listing.has_seen("s/b.jpg") && listing.has_seen("a.jpg"));
        assert!(
            listing
                .identities()
                .unwrap_err()
                .to_string()
                .contains("denied")
        );
    }
}
