//! Which files a folder, a glob or a path means: found, named and sorted, the same whatever the
//! file system's order.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use crate::error::{ConfigError, ErrorClass, StageError};
use crate::fs_durable::is_temp_name;
use crate::source::WrittenFiles;
use crate::source::listed_file::{ListedFile, name_of};
use crate::source::listing::{Listing, io_error};
use crate::source::skipped_files::{LastSkippedFiles, SkipReason};
use crate::source::stat_cache::DirHandle;
use crate::storage::mounts::{FolderId, real_path};
use crate::storage::{Location, ObjectListing, is_url, reading_bytes};

/// What a source's `path` means, and whether symbolic links count.
#[derive(Debug, Clone)]
pub(super) struct FileSet {
    path: String,
    follow_links: bool,
    /// In a folder, files count that have one of these, but for hidden ones; in a glob, whatever
    /// matches.
    extensions: &'static [&'static str],
    /// Whether a file counts whose name begins with an underscore, as cameras name photographs.
    /// Folders of such names are never looked into.
    underscore_files: bool,
    /// What the last listing left out.
    skipped_files: LastSkippedFiles,
}

impl FileSet {
    /// Checks `path` as far as that goes without looking below it.
    ///
    /// # Errors
    /// A fault at `path` when it is empty, or a glob that is none.
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
        };
        if set.path.is_empty() {
            return Err(ConfigError::new(
                "path",
                "is empty; write a folder, a file, or a glob such as `photos/**/*.jpg`",
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

    /// The same, with files whose names begin with an underscore: cameras name photographs so.
    pub(super) fn with_underscore_files(self) -> Self {
        Self {
            underscore_files: true,
            ..self
        }
    }

    /// The same, whose listings report what they left out to `skipped_files`.
    pub(super) fn reporting_to(self, skipped_files: LastSkippedFiles) -> Self {
        Self {
            skipped_files,
            ..self
        }
    }

    /// What the last listing left out.
    pub(super) fn skipped_files(&self) -> LastSkippedFiles {
        self.skipped_files.clone()
    }

    /// Bytes that reading one of the files takes, beside what was read.
    pub(super) fn reading_bytes(&self) -> u64 {
        reading_bytes(&self.path)
    }

    /// Looks for the files. Only regular files count: neither folders, pipes, sockets nor devices
    /// are ever opened. A folder or file that cannot be read is left out; [`Listing::unread`] names
    /// it.
    ///
    /// # Errors
    /// When the folder to begin with cannot be read.
    pub(super) fn list(&self) -> Result<Listing, StageError> {
        self.list_visiting(&mut |_, _| {})
    }

    /// As [`Self::list`], where files are waited for: a prefix without objects is an empty folder,
    /// since a bucket has no folders.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(super) fn list_inbox(&self) -> Result<Listing, StageError> {
        if !is_url(&self.path) {
            return self.list();
        }
        let listing = match self.list_objects()? {
            Some(listing) => listing,
            None => {
                let root = Location::parse(&self.path).map_err(StageError::Other)?;
                Listing {
                    is_folder: true,
                    ..Listing::empty(root)
                }
            }
        };
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    /// Looks whether there is something where the files would lie, without listing them.
    ///
    /// # Errors
    /// When there is nothing, or that cannot be found out.
    pub(super) fn find(&self) -> Result<(), StageError> {
        let root = match self.folder_glob().map_err(StageError::Other)? {
            Some(glob) if glob.root.is_empty() => ".".to_owned(),
            Some(glob) => glob.root,
            None => self.path.clone(),
        };
        let exists = |path: &str| match Location::parse(path).map_err(StageError::Other)? {
            Location::Local(path) => path.try_exists().map_err(StageError::io(&path)),
            Location::Remote(place) => {
                let found = place
                    .head()
                    .and_then(|object| Ok(object.is_some() || place.has_objects()?));
                found.map_err(|error| Location::Remote(place.clone()).io_error(error))
            }
        };
        // A path that exists is no glob; what cannot be a key may still be one.
        let is_found = exists(&root)? || (root != self.path && exists(&self.path).unwrap_or(false));
        if is_found {
            Ok(())
        } else {
            Err(self.not_found())
        }
    }

    /// As [`Self::list`]; each folder is given to `visit` before its entries are read.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(super) fn list_visiting(&self, visit: &mut VisitFolder<'_>) -> Result<Listing, StageError> {
        let listing = self.scan(visit)?;
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    fn scan(&self, visit: &mut VisitFolder<'_>) -> Result<Listing, StageError> {
        if is_url(&self.path) {
            return self.list_objects()?.ok_or_else(|| self.not_found());
        }
        let place = Path::new(&self.path);
        if place.is_file() {
            let root = place.parent().map(Path::to_path_buf).unwrap_or_default();
            let is_place = |name: &Path| Some(name.as_os_str()) == place.file_name();
            return self.walk(&root, Path::new(""), Some(1), visit, |name| {
                keep_if(is_place(name), SkipReason::Unasked)
            });
        }
        if place.is_dir() {
            let mut listing =
                self.walk(place, Path::new(""), None, visit, |name| self.matches(name))?;
            // What is passed over need not be readable.
            let unread = listing
                .unread
                .iter_mut()
                .filter(|(name, _)| self.passes_over(Path::new(name)));
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
            }) => self.walk(Path::new(&root), Path::new(""), depth, visit, |name| {
                matches_glob(&matcher, name)
            }),
            None => Err(self.not_found()),
        }
    }

    /// How often all files are looked at where they are watched.
    pub(super) fn default_rescan(&self) -> Duration {
        Duration::from_secs(if is_url(&self.path) { 60 } else { 600 })
    }

    /// The folder that names are relative to, as it is written; `None` in a bucket.
    pub(super) fn local_root(&self) -> Option<PathBuf> {
        let place = Path::new(&self.path);
        if is_url(&self.path) {
            return None;
        }
        if place.is_file() {
            let above = place.parent().map(Path::to_path_buf).unwrap_or_default();
            return Some(if above.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                above
            });
        }
        Some(match self.folder_glob().ok().flatten() {
            Some(glob) if glob.root.is_empty() => PathBuf::from("."),
            Some(glob) => PathBuf::from(glob.root),
            None => place.to_path_buf(),
        })
    }

    /// The folder to watch; `None` in a bucket, which can only be listed again and again.
    ///
    /// # Errors
    /// When it is a single file.
    pub(super) fn watch_root(&self) -> Result<Option<WatchRoot>, StageError> {
        if Path::new(&self.path).is_file() {
            return Err(StageError::Other(format!(
                "`{}` is a file; watch a folder or a glob",
                self.path
            )));
        }
        Ok(self.local_root().map(|root| WatchRoot {
            root,
            set: self.clone(),
        }))
    }

    /// Whether files that a sink writes belong to the set, or would.
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
            (None, _) => !self.passes_over(&below),
            (Some(glob), Some(name)) => matches_glob(&glob.matcher, &below.join(name)).is_ok(),
            (Some(glob), None) => {
                let is_deep_enough = glob
                    .depth
                    .is_none_or(|depth| below.components().count() < depth);
                // Files of any name match, unless the pattern names an extension at its end.
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

    /// Whether a file with this extension may count: in a glob, whatever matches does.
    fn matches_extension(&self, extension: &str) -> bool {
        self.extensions.contains(&extension) || self.folder_glob().is_ok_and(|glob| glob.is_some())
    }

    /// As for folders: an object that exists is no glob, whatever characters it has; nor is a
    /// prefix with objects. `None` where there is neither.
    fn list_objects(&self) -> Result<Option<Listing>, StageError> {
        let parse = |path: &str| Location::parse(path).map_err(StageError::Other);
        // What cannot be a key may still be a glob.
        if let Ok(Location::Remote(place)) = Location::parse(&self.path) {
            let failed = |error| Location::Remote(place.clone()).io_error(error);
            if let Some((folder, _)) = place.parent()
                && let Some(object) = place.head().map_err(failed)?
            {
                let below = place.list().map_err(failed)?.entries.len() as u64;
                let object = ObjectListing {
                    entries: vec![object],
                    ..ObjectListing::default()
                };
                let mut listing = Listing::of_objects(folder, object, |_| Ok(()));
                listing.skipped_files.add_below_object(below);
                return Ok(Some(listing));
            }
            let objects = place.list().map_err(failed)?;
            if !objects.entries.is_empty() || objects.unusable.count > 0 {
                let listing = Listing::of_objects(place, objects, |name| self.matches(name));
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

    /// Whether a file counts where a folder is meant, or why not. Tables hide every path with a
    /// part that begins with `.` or `_`, as Spark and Hive do; of images, only folders with an
    /// underscore are not data.
    fn matches(&self, name: &Path) -> Result<(), SkipReason> {
        let is_wanted = has_extension(name, self.extensions);
        let mut parts = name.iter().peekable();
        while let Some(part) = parts.next() {
            match part.as_encoded_bytes().first() {
                _ if part == STATE_DIR => return Err(SkipReason::Own),
                Some(b'.') => return Err(SkipReason::Hidden),
                Some(b'_') if parts.peek().is_some() || !(is_wanted && self.underscore_files) => {
                    return Err(SkipReason::Underscore);
                }
                _ => {}
            }
        }
        keep_if(is_wanted, SkipReason::Extension)
    }

    /// Whether nothing at or below this path counts where a folder is meant, whatever its
    /// extension.
    fn passes_over(&self, name: &Path) -> bool {
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
                "`{}` does not exist; expected a folder, a file, or a glob such as `photos/**/*.jpg`",
                self.path
            )),
        }
    }

    /// That nothing was found, in a sentence.
    pub(super) fn no_matches(&self, listing: &Listing) -> StageError {
        if let Some(unavailable) = listing.failures().next() {
            return unavailable.to_stage_error();
        }
        let looked_at = listing.files_scanned;
        let wanted = match listing.is_folder {
            true => format!("has the extension {}", self.extensions.join(", ")),
            false => "matches".to_owned(),
        };
        let links = match listing.skipped_files.links() {
            0 => String::new(),
            links => {
                format!(
                    "; {links} symbolic links were passed over: `follow_links = true` takes what they lead to"
                )
            }
        };
        let passed_over = match &listing.skipped_files {
            none if none.is_empty() => String::new(),
            some => format!("passes over {some}; "),
        };
        let path = &self.path;
        StageError::Other(format!(
            "`{path}`: {passed_over}of {looked_at} files that were looked at, none {wanted}{links}"
        ))
    }

    /// Looks at the files at or below `below`, a path relative to `root`.
    fn walk(
        &self,
        root: &Path,
        below: &Path,
        depth: Option<usize>,
        visit: &mut VisitFolder<'_>,
        choose: impl Fn(&Path) -> Result<(), SkipReason>,
    ) -> Result<Listing, StageError> {
        let start = if root.as_os_str().is_empty() {
            Path::new(".")
        } else {
            root
        };
        let mut files = Listing::empty(Location::Local(start.to_path_buf()));
        // A file that the user names may be a link: it is the way to it that was asked for.
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
                    files.leave_out(error, start);
                    continue;
                }
            };
            let relative = entry.path().strip_prefix(start).unwrap_or(entry.path());
            let looked = if entry.file_type().is_dir() {
                let is_read = depth.is_none_or(|depth| entry.depth() < depth);
                entry.metadata().map_err(io_error).map(|metadata| {
                    let id = FolderId::from_metadata(&metadata);
                    files.folders.insert(name_of(relative), id);
                    if is_read && (depth.is_some() || !self.passes_over(relative)) {
                        visit(relative, id);
                    }
                })
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
                    Err(omission) => {
                        files.skipped_files.add(relative, omission);
                        Ok(())
                    }
                }
            } else {
                if entry.file_type().is_symlink() {
                    files.skipped_files.add(relative, SkipReason::Link);
                }
                Ok(())
            };
            if let Err(error) = looked {
                files.overlook(entry.path(), error);
            }
        }
        Ok(files)
    }

    /// `None` for a plain path, and for a folder of this name.
    fn folder_glob(&self) -> Result<Option<FileGlob>, String> {
        if !is_url(&self.path) && Path::new(&self.path).is_dir() {
            Ok(None)
        } else {
            self.glob()
        }
    }

    /// `None` for a plain path.
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
            format!("{error}; `**` stands for folders of any depth, `*` for a part of a name")
        })?;
        let depth = (!pattern.contains("**")).then(|| pattern.matches('/').count() + 1);
        Ok(Some(FileGlob {
            root: root.to_owned(),
            matcher: glob.compile_matcher(),
            depth,
        }))
    }
}

/// What is done with each folder, a path relative to the root, before its entries are read.
pub(super) type VisitFolder<'a> = dyn FnMut(&Path, FolderId) + 'a;

/// A folder, or a glob, whose files come and go.
pub(super) struct WatchRoot {
    /// What names are relative to, as it is written.
    pub(super) root: PathBuf,
    set: FileSet,
}

impl WatchRoot {
    /// What counts at or below `below`, a path relative to the root: a file, or those of a folder.
    ///
    /// # Errors
    /// When nothing can be read there.
    pub(super) fn scan(
        &self,
        below: &Path,
        visit: &mut VisitFolder<'_>,
    ) -> Result<Listing, StageError> {
        match self.set.folder_glob().map_err(StageError::Other)? {
            None => self.set.walk(&self.root, below, None, visit, |name| {
                self.set.matches(name)
            }),
            Some(FileGlob { matcher, depth, .. }) => {
                let depth = depth.map(|depth| depth.saturating_sub(below.components().count()));
                self.set.walk(&self.root, below, depth, visit, |name| {
                    matches_glob(&matcher, name)
                })
            }
        }
    }
}

/// A path with characters that stand for others.
struct FileGlob {
    /// The folder that it begins in.
    root: String,
    /// What it matches below.
    matcher: GlobMatcher,
    /// How deep that can lie.
    depth: Option<usize>,
}

/// The folder of an output that holds what latentflow remembers of it: never input of a listing
/// that begins above it.
pub(crate) const STATE_DIR: &str = "_latentflow";

/// Whether a file counts that a glob may match, or why not.
fn matches_glob(glob: &GlobMatcher, name: &Path) -> Result<(), SkipReason> {
    if name.iter().any(|part| part == STATE_DIR) {
        return Err(SkipReason::Own);
    }
    keep_if(glob.is_match(name), SkipReason::Unmatched)
}

fn keep_if(is_wanted: bool, omission: SkipReason) -> Result<(), SkipReason> {
    if is_wanted { Ok(()) } else { Err(omission) }
}

/// Whether a path ends in one of these extensions, in upper or lower case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path
        .extension()
        .map(|extension| extension.as_encoded_bytes());
    extension.is_some_and(|extension| {
        extensions
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known.as_bytes()))
    })
}

#[cfg(test)]
pub(super) mod testing {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    /// A folder of files, each of which holds its own name.
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
    fn a_folder_means_its_images_in_bytewise_order_whatever_their_case() {
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
    fn a_glob_means_exactly_what_it_matches_below_its_literal_folder() {
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
    fn underscores_hide_folders_and_what_is_no_photograph() {
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
        let expected = "2 .heic, 1 hidden (`.` begins a name), 3 not data by custom (`_` begins a name), \
             3 of latentflow itself";
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
    fn a_path_that_exists_is_no_glob() {
        let folder = folder(&["photos [2024]/a.jpg", "x*.dat", "xy.dat"]);
        assert_eq!(names(&set(folder.path(), "photos [2024]")), ["a.jpg"]);
        assert_eq!(names(&set(folder.path(), "x*.dat")), ["x*.dat"]);
    }

    #[test]
    fn what_is_wrong_with_a_path_is_said() {
        let folder = folder(&["a.txt"]);
        let missing = set(folder.path(), "none").list().unwrap_err().to_string();
        assert!(missing.contains("does not exist"), "{missing}");
        assert!(
            set(folder.path(), "none/*.jpg")
                .list()
                .unwrap_err()
                .to_string()
                .contains("none")
        );
        let nothing = set(folder.path(), "*.jpg");
        let nothing = nothing.no_matches(&nothing.list().unwrap()).to_string();
        assert!(
            nothing.contains("of 1 files that were looked at, none matches"),
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
    fn links_count_only_when_asked_and_loops_end() {
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
        assert!(nothing.ends_with(
            "4 symbolic links were passed over: `follow_links = true` takes what they lead to"
        ));
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
