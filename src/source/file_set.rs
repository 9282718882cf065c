//! The files that a folder, a glob or a path selects, sorted by name, independent of the order of
//! the file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use crate::error::{ConfigError, ErrorClass, StageError};
use crate::fs_durable::is_temp_name;
use crate::shard::Shard;
use crate::source::WrittenFiles;
use crate::source::listed_file::{ListedFile, name_of};
use crate::source::listing::{Listing, io_error};
use crate::source::skipped_files::{LastSkippedFiles, SkipReason};
use crate::source::stat_cache::DirHandle;
use crate::storage::mounts::{FolderId, real_path};
use crate::storage::{Location, ObjectListing, is_url, reading_bytes};

/// The `path` of a source, with the rules for selecting files.
#[derive(Debug, Clone)]
pub(super) struct FileSet {
    path: String,
    follow_links: bool,
    /// In a folder, files with one of these extensions are selected, except for hidden ones. In a
    /// glob, every match is selected.
    extensions: &'static [&'static str],
    /// Whether files whose names begin with an underscore are selected, as cameras name photographs
    /// so. Folders with such names are never entered.
    underscore_files: bool,
    /// The counts of files that the last listing skipped.
    skipped_files: LastSkippedFiles,
    /// The shard whose files are listed; `None` for all files.
    shard: Option<Shard>,
}

impl FileSet {
    /// Checks `path` as far as that is possible without listing it.
    ///
    /// # Errors
    /// A fault at `path` if it is empty or not a valid glob.
    pub(super) fn new(
        path: String,
        follow_links: bool,
        extensions: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let skipped_files = LastSkippedFiles::default();
        let set = Self {
            path,
            follow_links,
            extensions,
            underscore_files: false,
            skipped_files,
            shard: None,
        };
        if set.path.is_empty() {
            return Err(ConfigError::new(
                "path",
                "is empty; expected a folder, a file, or a glob such as `photos/**/*.jpg`",
            ));
        }
        if is_url(&set.path) || !Path::new(&set.path).exists() {
            let glob = set
                .glob()
                .map_err(|message| ConfigError::new("path", message))?;
            let root = glob.map_or_else(|| set.path.clone(), |glob| glob.root);
            Location::parse(&root).map_err(|message| ConfigError::new("path", message))?;
        }
        Ok(set)
    }

    /// Also selects files whose names begin with an underscore, as cameras name photographs so.
    pub(super) fn with_underscore_files(self) -> Self {
        Self {
            underscore_files: true,
            ..self
        }
    }

    /// Makes listings report the files that they skip to `skipped_files`.
    pub(super) fn reporting_to(self, skipped_files: LastSkippedFiles) -> Self {
        Self {
            skipped_files,
            ..self
        }
    }

    /// Lists only the files of a shard, unless `shard` is `None`.
    pub(super) fn of_shard(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    /// The shard whose files are listed.
    pub(super) fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The counts of files that the last listing skipped.
    pub(super) fn skipped_files(&self) -> LastSkippedFiles {
        self.skipped_files.clone()
    }

    /// Bytes of memory that reading one of the files takes, in addition to the data.
    pub(super) fn reading_bytes(&self) -> u64 {
        reading_bytes(&self.path)
    }

    /// Lists the files. Only regular files are selected; folders, pipes, sockets and devices are
    /// never opened. A folder or file that cannot be read is left out and recorded in
    /// [`Listing::unread`].
    ///
    /// # Errors
    /// If the root folder cannot be read.
    pub(super) fn list(&self) -> Result<Listing, StageError> {
        self.list_visiting(&mut |_, _| {})
    }

    /// As [`Self::list`], for sources that wait for files: a prefix without objects counts as an
    /// empty folder, because a bucket does not have folders.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(super) fn list_inbox(&self) -> Result<Listing, StageError> {
        if !is_url(&self.path) {
            return self.list();
        }
        let mut listing = match self.list_objects()? {
            Some(listing) => listing,
            None => {
                let root = Location::parse(&self.path).map_err(StageError::Other)?;
                Listing {
                    is_folder: true,
                    ..Listing::empty(root)
                }
            }
        };
        listing.retain_shard(self.shard);
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    /// Checks that the folder, file or prefix exists, without listing it.
    ///
    /// # Errors
    /// If it does not exist, or that cannot be determined.
    pub(super) fn find(&self) -> Result<(), StageError> {
        let root = match self.folder_glob().map_err(StageError::Other)? {
            Some(glob) if glob.root.is_empty() => ".".to_owned(),
            Some(glob) => glob.root,
            None => self.path.clone(),
        };
        let exists = |path: &str| match Location::parse(path).map_err(StageError::Other)? {
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
    pub(super) fn find_match(&self) -> Result<(), StageError> {
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

    /// As [`Self::list`], but calls `visit` with each folder before its entries are read.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(super) fn list_visiting(&self, visit: &mut VisitFolder<'_>) -> Result<Listing, StageError> {
        let mut listing = self.scan(usize::MAX, visit)?;
        listing.retain_shard(self.shard);
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    /// Lists at most `max_files` files of a local folder, or all files of a bucket.
    fn scan(&self, max_files: usize, visit: &mut VisitFolder<'_>) -> Result<Listing, StageError> {
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
        match self.glob().map_err(StageError::Other)? {
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

    /// The default interval between full listings of a watched path.
    pub(super) fn default_rescan(&self) -> Duration {
        Duration::from_secs(if is_url(&self.path) { 60 } else { 600 })
    }

    /// The folder that names are relative to, as written in the pipeline; `None` for a bucket.
    pub(super) fn local_root(&self) -> Option<PathBuf> {
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
    pub(super) fn watch_root(&self) -> Result<Option<WatchRoot>, StageError> {
        if Path::new(&self.path).is_file() {
            return Err(StageError::Other(format!(
                "`{}` is a file; expected a folder or a glob to watch",
                self.path
            )));
        }
        Ok(self.local_root().map(|root| WatchRoot {
            root,
            set: self.clone(),
        }))
    }

    /// Whether the set selects files that a sink writes, or would select them once they exist.
    pub(super) fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        if Path::new(&self.path).is_file() || !self.matches_extension(written.extension) {
            return false;
        }
        let glob = self.folder_glob().ok().flatten();
        let root = match &glob {
            Some(glob) if glob.root.is_empty() => ".",
            Some(glob) => &glob.root,
            None => &self.path,
        };
        let below = match (Location::parse(root), written.folder) {
            (Ok(Location::Local(root)), Location::Local(folder)) => {
                let (root, folder) = (real_path(&root), real_path(folder));
                folder.strip_prefix(&root).map(Path::to_path_buf).ok()
            }
            (Ok(Location::Remote(root)), Location::Remote(folder)) => {
                let (root, folder) = (root.to_string(), folder.to_string());
                let below = folder.strip_prefix(root.trim_end_matches('/'));
                below
                    .filter(|below| below.is_empty() || below.starts_with('/'))
                    .map(|below| below[1.min(below.len())..].into())
            }
            _ => None,
        };
        let Some(below) = below else { return false };
        match (glob, written.name) {
            (None, _) => !self.excludes(&below),
            (Some(glob), Some(name)) => matches_glob(&glob.matcher, &below.join(name)).is_ok(),
            (Some(glob), None) => {
                let is_deep_enough = glob
                    .depth
                    .is_none_or(|depth| below.components().count() < depth);
                // Files of any name match, unless the pattern ends in an extension.
                let end = self
                    .path
                    .rsplit(['/', '*', '?', ']', '}', '\\'])
                    .next()
                    .unwrap_or_default();
                is_deep_enough
                    && end
                        .rsplit_once('.')
                        .is_none_or(|(_, end)| end == written.extension)
            }
        }
    }

    /// Whether a file with this extension may be selected; a glob may select any extension.
    fn matches_extension(&self, extension: &str) -> bool {
        self.extensions.contains(&extension) || self.folder_glob().is_ok_and(|glob| glob.is_some())
    }

    /// Lists the objects of a bucket. As for folders, the key of an existing object is never
    /// treated as a glob, nor is a prefix with objects. `None` if neither an object nor a glob is
    /// found.
    fn list_objects(&self) -> Result<Option<Listing>, StageError> {
        let parse = |path: &str| Location::parse(path).map_err(StageError::Other);
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
        let Some(FileGlob { root, matcher, .. }) = self.glob().map_err(StageError::Other)? else {
            return Ok(None);
        };
        match parse(&root)? {
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

    /// Checks whether a file of a folder is selected. For tables, every path with a part that
    /// begins with `.` or `_` is skipped, as Spark and Hive do; for images, only folders with an
    /// underscore are skipped.
    fn matches(&self, name: &Path) -> Result<(), SkipReason> {
        let is_selected = has_extension(name, self.extensions);
        let mut parts = name.iter().peekable();
        while let Some(part) = parts.next() {
            match part.as_encoded_bytes().first() {
                _ if part == STATE_DIR => return Err(SkipReason::Own),
                Some(b'.') => return Err(SkipReason::Hidden),
                Some(b'_') if parts.peek().is_some() || !(is_selected && self.underscore_files) => {
                    return Err(SkipReason::Underscore);
                }
                _ => {}
            }
        }
        keep_if(is_selected, SkipReason::Extension)
    }

    /// Whether nothing at or below this path of a folder can be selected, regardless of the
    /// extension.
    fn excludes(&self, name: &Path) -> bool {
        matches!(
            self.matches(name),
            Err(SkipReason::Hidden | SkipReason::Underscore | SkipReason::Own)
        )
    }

    fn not_found(&self) -> StageError {
        match fs::metadata(&self.path) {
            Err(error) if !is_url(&self.path) && !ErrorClass::of(&error).concerns_file() => {
                StageError::io(&self.path)(error)
            }
            _ => StageError::Other(format!(
                "`{}` does not exist; expected a folder, a file, or a glob such as \
                 `photos/**/*.jpg`",
                self.path
            )),
        }
    }

    /// The error of a listing without files.
    pub(super) fn no_matches(&self, listing: &Listing) -> StageError {
        if let Some(unavailable) = listing.failures().next() {
            return unavailable.to_stage_error();
        }
        let scanned = listing.files_scanned;
        let expected = match listing.is_folder {
            true => format!("has the extension {}", self.extensions.join(", ")),
            false => "matches".to_owned(),
        };
        let links = match listing.skipped_files.links() {
            0 => String::new(),
            links => {
                format!("; symbolic links skipped: {links} (`follow_links = true` follows them)")
            }
        };
        let skipped = match &listing.skipped_files {
            none if none.is_empty() => String::new(),
            some => format!("skips {some}; "),
        };
        let path = &self.path;
        StageError::Other(format!(
            "`{path}`: {skipped}files scanned: {scanned}; none {expected}{links}"
        ))
    }

    /// Lists the files at or below `below`, a path relative to `root`, down to `depth`. Ends after
    /// `max_files` files.
    fn walk(
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

    /// The glob; `None` for a plain path or an existing folder.
    fn folder_glob(&self) -> Result<Option<FileGlob>, String> {
        if !is_url(&self.path) && Path::new(&self.path).is_dir() {
            Ok(None)
        } else {
            self.glob()
        }
    }

    /// The glob; `None` for a plain path.
    fn glob(&self) -> Result<Option<FileGlob>, String> {
        let Some(meta) = self.path.find(['*', '?', '[', '{', '\\']) else {
            return Ok(None);
        };
        let (root, pattern) = match self.path[..meta].rfind('/') {
            Some(slash) => self.path.split_at(slash + 1),
            None => ("", self.path.as_str()),
        };
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| {
            format!("{error}; `**` matches folders of any depth, `*` a part of a name")
        })?;
        let depth = (!pattern.contains("**")).then(|| pattern.matches('/').count() + 1);
        Ok(Some(FileGlob {
            root: root.to_owned(),
            matcher: glob.compile_matcher(),
            depth,
        }))
    }
}

/// The callback for each folder, a path relative to the root, before its entries are read.
pub(super) type VisitFolder<'a> = dyn FnMut(&Path, FolderId) + 'a;

/// A folder or a glob that is watched for changes.
pub(super) struct WatchRoot {
    /// The folder that names are relative to, as written in the pipeline.
    pub(super) root: PathBuf,
    set: FileSet,
}

impl WatchRoot {
    /// Lists the selected files at or below `below`, a path relative to the root.
    ///
    /// # Errors
    /// If `below` cannot be read.
    pub(super) fn scan(
        &self,
        below: &Path,
        visit: &mut VisitFolder<'_>,
    ) -> Result<Listing, StageError> {
        let mut listing = match self.set.folder_glob().map_err(StageError::Other)? {
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

/// A path with wildcards.
struct FileGlob {
    /// The folder above the first wildcard.
    root: String,
    /// Matches paths relative to `root`.
    matcher: GlobMatcher,
    /// The maximum depth of a match; `None` if it is unlimited.
    depth: Option<usize>,
}

/// The folder of an output that holds latentflow's state. A listing that begins above it never
/// selects its files.
pub(crate) const STATE_DIR: &str = "_latentflow";

/// Checks whether a glob selects a file.
fn matches_glob(glob: &GlobMatcher, name: &Path) -> Result<(), SkipReason> {
    if name.iter().any(|part| part == STATE_DIR) {
        return Err(SkipReason::Own);
    }
    keep_if(glob.is_match(name), SkipReason::Unmatched)
}

fn keep_if(is_selected: bool, reason: SkipReason) -> Result<(), SkipReason> {
    if is_selected { Ok(()) } else { Err(reason) }
}

/// Whether a path ends in one of these extensions, regardless of case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    extensions.iter().any(|extension| {
        let start = name.len().saturating_sub(extension.len());
        start > 1
            && name[start - 1] == b'.'
            && name[start..].eq_ignore_ascii_case(extension.as_bytes())
    })
}

#[cfg(test)]
pub(super) mod testing {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    /// A folder of files that each contain their own name.
    pub(in crate::source) fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::testing::folder;
    use super::*;

    fn set(folder: &Path, path: &str) -> FileSet {
        FileSet::new(
            folder.join(path).to_str().unwrap().to_owned(),
            false,
            &["jpg", "png"],
        )
        .unwrap()
    }

    fn names(set: &FileSet) -> Vec<String> {
        set.list().unwrap().files.into_keys().collect()
    }

    #[test]
    fn folder_selects_images_in_bytewise_order_and_any_case() {
        let folder = folder(&[
            "b.jpg",
            "a/z.PNG",
            "a-b.jpg",
            "a.jpg",
            "Z.jpg",
            "notes.txt",
            "jpg",
        ]);
        let found = names(&set(folder.path(), ""));
        assert_eq!(found, ["Z.jpg", "a-b.jpg", "a.jpg", "a/z.PNG", "b.jpg"]);
    }

    #[test]
    fn glob_selects_its_matches_below_its_literal_folder() {
        let folder = folder(&[
            "p/a.jpg",
            "p/b.JPG",
            "p/c.bin",
            "p/.latentflow-c.bin.tmp",
            "p/s/d.jpg",
            "p/s/t/e.jpg",
            "q/f.jpg",
        ]);
        let found = |glob: &str| names(&set(folder.path(), glob));
        assert_eq!(found("p/*.jpg"), ["a.jpg"]);
        assert_eq!(found("p/*"), ["a.jpg", "b.JPG", "c.bin"]);
        assert_eq!(found("p/?.{bin,JPG}"), ["b.JPG", "c.bin"]);
        assert_eq!(found("p/**/*.jpg"), ["a.jpg", "s/d.jpg", "s/t/e.jpg"]);
        assert_eq!(found("*/[af].jpg"), ["p/a.jpg", "q/f.jpg"]);
        assert_eq!(found("p/{s/t/e,a}.jpg"), ["a.jpg", "s/t/e.jpg"]);
        assert_eq!(
            set(folder.path(), "p/*.jpg").list().unwrap().files_scanned,
            4
        );
    }

    #[test]
    fn names_with_underscore_are_skipped_except_photographs() {
        let folder = folder(&[
            "_DSC1.JPG",
            "a/_MG_2.png",
            "_delta_log/a.jpg",
            "_temporary/0/a.jpg",
            "_latentflow/a.jpg",
            "b/_latentflow/c.jpg",
            ".a.jpg",
            "_SUCCESS",
            "a.heic",
            "b.HEIC",
            ".latentflow-c.jpg.tmp",
        ]);
        let photos = set(folder.path(), "").with_underscore_files();
        assert_eq!(names(&photos), ["_DSC1.JPG", "a/_MG_2.png"]);
        let expected = "2 .heic, 1 hidden (a name begins with `.`), \
             3 not data by convention (a name begins with `_`), 3 internal files of latentflow";
        assert_eq!(photos.skipped_files().get().to_string(), expected);
        let table = set(folder.path(), "");
        assert!(names(&table).is_empty());
        assert!(
            names(&set(folder.path(), "**/*.jpg"))
                .iter()
                .all(|name| !name.contains("_latentflow"))
        );
    }

    #[test]
    fn existing_path_is_not_treated_as_glob() {
        let folder = folder(&["photos [2024]/a.jpg", "x*.dat", "xy.dat"]);
        assert_eq!(names(&set(folder.path(), "photos [2024]")), ["a.jpg"]);
        assert_eq!(names(&set(folder.path(), "x*.dat")), ["x*.dat"]);
    }

    #[test]
    fn error_of_a_wrong_path_states_the_cause() {
        let folder = folder(&["a.txt"]);
        let missing = set(folder.path(), "none").list().unwrap_err().to_string();
        assert!(
            missing.contains("/none` does not exist; expected a folder, a file, or a glob"),
            "{missing}"
        );
        assert!(
            set(folder.path(), "none/*.jpg")
                .list()
                .unwrap_err()
                .to_string()
                .contains("No such file or directory")
        );
        let nothing = set(folder.path(), "*.jpg");
        let nothing = nothing.no_matches(&nothing.list().unwrap()).to_string();
        assert!(
            nothing.ends_with(": skips 1 not matched by the glob; files scanned: 1; none matches"),
            "{nothing}"
        );
        assert_eq!(
            FileSet::new("a/[".into(), false, &[]).unwrap_err().key,
            "path"
        );
        assert_eq!(
            FileSet::new(String::new(), false, &[]).unwrap_err().key,
            "path"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_only_if_configured_and_loops_end() {
        use std::os::unix::fs::symlink;
        let folder = folder(&["a/x.jpg", "b/y.jpg"]);
        symlink("../b", folder.path().join("a/link")).unwrap();
        symlink("..", folder.path().join("a/loop")).unwrap();
        symlink("../b/y.jpg", folder.path().join("a/z.jpg")).unwrap();
        symlink("nowhere", folder.path().join("a/broken.jpg")).unwrap();
        let mut set = set(folder.path(), "a");
        assert_eq!(names(&set), ["x.jpg"]);
        assert_eq!(set.skipped_files().get().links(), 4);
        fs::remove_file(folder.path().join("a/x.jpg")).unwrap();
        let nothing = set.no_matches(&set.list().unwrap()).to_string();
        assert!(
            nothing.ends_with("; symbolic links skipped: 4 (`follow_links = true` follows them)")
        );
        fs::write(folder.path().join("a/x.jpg"), "x").unwrap();
        set.follow_links = true;
        let found = names(&set);
        assert!(
            ["link/y.jpg", "x.jpg", "z.jpg"]
                .iter()
                .all(|name| found.contains(&(*name).to_owned())),
            "{found:?}"
        );
    }
}
