//! The files of a set at some moment, and what could not be looked at.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::error::{ErrorClass, StageError, UnavailableInput};
use crate::source::listed_file::{ListedFile, name_of};
use crate::source::skipped_files::{SkipReason, SkippedFiles};
use crate::storage::mounts::FolderId;
use crate::storage::{Location, ObjectListing, S3Path};

/// The files of a set at some moment.
#[derive(Debug)]
pub(super) struct Listing {
    /// The folder or prefix that names are relative to.
    pub(super) root: Location,
    /// By name, bytewise.
    pub(super) files: BTreeMap<String, ListedFile>,
    /// Files that were looked at, those that did not match among them.
    pub(super) files_scanned: u64,
    /// Files that were left out, by reason.
    pub(super) skipped_files: SkippedFiles,
    /// Whether all files of a folder were looked at, rather than those that a path or a glob means.
    pub(super) is_folder: bool,
    /// The folders that were met on a disk of this machine, by their names; the root has the empty
    /// name.
    pub(super) folders: BTreeMap<String, FolderId>,
    /// Folders and files that could not be looked at, by their names: what lies there is not known
    /// to be gone. Each with the error of the environment that is to be reported, if there is one.
    pub(super) unread: BTreeMap<String, Option<UnavailableInput>>,
}

impl Listing {
    /// A listing without files.
    pub(super) fn empty(root: Location) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            files_scanned: 0,
            skipped_files: SkippedFiles::default(),
            is_folder: false,
            folders: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// A listing of which nothing could be read.
    pub(super) fn unread(root: Location) -> Self {
        Self {
            unread: BTreeMap::from([(String::new(), None)]),
            ..Self::empty(root)
        }
    }

    /// Whether the folder of a file, or the nearest one that is left above it, was read, so that a
    /// file that is not listed is gone.
    pub(super) fn has_seen(&self, name: &str) -> bool {
        let above = name.match_indices('/').map(|(slash, _)| &name[..slash]);
        !["", name]
            .into_iter()
            .chain(above)
            .any(|place| self.unread.contains_key(place))
    }

    /// The device of the folder that a file lies in, or would lie in: of the nearest one above it
    /// that was met.
    pub(super) fn device_of(&self, name: &str) -> Option<u64> {
        Self::device_among(&self.folders, name)
    }

    /// As [`Self::device_of`], among the folders of a listing.
    pub(super) fn device_among(folders: &BTreeMap<String, FolderId>, name: &str) -> Option<u64> {
        let mut folder = name;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if let Some(id) = folders.get(above) {
                return Some(id.device);
            }
            folder = above;
        }
        folders.get("").map(|id| id.device)
    }

    /// Folders that lie on another file system than the folder above.
    pub(super) fn mount_points(&self) -> impl Iterator<Item = String> {
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

    /// Leaves out what a walk from `start` reported an error for. The walk does not name a folder
    /// that it could list in part: then anything below `start` may be unread.
    pub(super) fn leave_out(&mut self, error: walkdir::Error, start: &Path) {
        let path = error.path().unwrap_or(start).to_path_buf();
        self.overlook(&path, io_error(error));
    }

    /// Leaves out a path that cannot be looked at. What was removed while its folder was listed is
    /// gone.
    pub(super) fn overlook(&mut self, path: &Path, error: io::Error) {
        let class = ErrorClass::of(&error);
        if class == ErrorClass::Gone {
            return;
        }
        // A disk's own folder, which holds no files of users, is closed to them.
        let is_reported = path.file_name().is_none_or(|name| name != "lost+found");
        let failure = match UnavailableInput::from_error(path.to_path_buf(), class, error) {
            Ok(unavailable) if is_reported => Some(unavailable),
            Ok(unavailable) => {
                tracing::warn!("left out: {unavailable}");
                None
            }
            Err(error) => {
                tracing::warn!("left out: {}: {error}", path.display());
                None
            }
        };
        self.unread.insert(self.relative_name(path), failure);
    }

    /// The errors of the environment that kept folders and files from being looked at.
    pub(super) fn failures(&self) -> impl Iterator<Item = &UnavailableInput> {
        self.unread.values().flatten()
    }

    /// As [`Self::failures`]; the places stay unread.
    pub(super) fn take_failures(&mut self) -> Vec<UnavailableInput> {
        self.unread.values_mut().filter_map(Option::take).collect()
    }

    /// The objects below `root` that count.
    pub(super) fn of_objects(
        root: S3Path,
        objects: ObjectListing,
        choose: impl Fn(&Path) -> Result<(), SkipReason>,
    ) -> Self {
        let mut listing = Self::empty(Location::Remote(root));
        let ObjectListing { entries, unusable } = objects;
        listing.files_scanned = entries.len() as u64 + unusable.count;
        listing.skipped_files.add_unusable_keys(unusable.count);
        if let Some(key) = unusable.example {
            tracing::debug!(
                "{}: no file could have the key {key:?}; it is passed over",
                listing.root
            );
        }
        for object in entries {
            match choose(Path::new(&object.name)) {
                Ok(()) => listing.add(ListedFile::from(object)),
                // An empty object stands for a folder; its name comes without the slash at its end.
                Err(_) if object.size == 0 && Path::new(&object.name).extension().is_none() => {}
                Err(omission) => listing.skipped_files.add(Path::new(&object.name), omission),
            }
        }
        listing
    }

    /// The files, each with its size and time.
    ///
    /// # Errors
    /// When an error of the environment hides some of them.
    pub(super) fn identities(mut self) -> Result<Vec<String>, StageError> {
        match self.take_failures().into_iter().next() {
            Some(unavailable) => Err(unavailable.into()),
            None => Ok(self.files.values().map(ListedFile::identity).collect()),
        }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, file: ListedFile) {
        if let Some(other) = self.files.insert(file.name.clone(), file) {
            tracing::warn!(
                "two files have the name {:?} once its bytes are encoded; one is left out",
                other.name
            );
        }
    }
}

/// The error of the system that a walk met.
pub(super) fn io_error(error: walkdir::Error) -> io::Error {
    let text = error.to_string();
    error
        .into_io_error()
        .unwrap_or_else(|| io::Error::other(text))
}

/// Whether a name is `folder` or lies below it; the empty name is the root.
pub(super) fn is_at_or_below(name: &str, folder: &str) -> bool {
    folder.is_empty()
        || name
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::source::file_set::FileSet;
    use crate::source::file_set::testing::folder;

    #[test]
    fn a_place_that_cannot_be_looked_at_hides_its_files() {
        let folder = folder(&["a.jpg", "s/b.jpg"]);
        let mut listing = FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"])
            .unwrap()
            .list()
            .unwrap();
        listing.files.clear();
        listing.overlook(&folder.path().join("s"), rustix::io::Errno::NOENT.into());
        assert!(listing.has_seen("s/b.jpg"), "nothing is there");
        listing.overlook(&folder.path().join("s"), rustix::io::Errno::ACCESS.into());
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
