//! Which files a folder, a glob or a path means: found, named and sorted, the same whatever the file system's order.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::batch::RejectCode;
use crate::durable::is_temporary;
use crate::error::{ErrorClass, Fault, StageError, Unavailable};
use crate::source::content_digest::ContentDigest;
use crate::source::folder::{self, Folder, size_and_time};
use crate::source::identity::{self, Verdict};
use crate::source::passed_over::{LastPassedOver, Omission, PassedOver};
use crate::store::mounts::FolderId;
use crate::store::{Entry, Input, Location, Remote, is_url, reading_bytes};

/// What a source's `path` means, and whether symbolic links count.
#[derive(Debug, Clone)]
pub(super) struct FileSet {
    path: String,
    follow_links: bool,
    /// In a folder, files count that have one of these, but for hidden ones; in a glob, whatever matches.
    extensions: &'static [&'static str],
    /// Whether a file counts whose name begins with an underscore, as cameras name photographs. Folders of such names are never
    /// looked into.
    underscore_files: bool,
    /// What the last listing left out.
    passed_over: LastPassedOver,
}

/// A file, as it is known from run to run; [`identity`] defines when two of them are the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedFile {
    /// Path relative to the set's root, `/` between folders; bytes that are no UTF-8 are percent-encoded.
    #[serde(rename = "path")]
    pub(super) name: String,
    /// Length in bytes.
    pub(super) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(super) mtime_ns: i64,
    /// What a store calls its content; the time counts only where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// The digest of its content, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<ContentDigest>,
    /// The relative path as the system knows it, where that is no UTF-8.
    #[serde(skip)]
    pub(super) raw: Option<Box<Path>>,
}

/// Why a file is refused that became another under its reader.
pub(super) const CHANGED_MEANWHILE: &str = "was changed while it was read; the next run takes it anew";

/// Why a file is refused that is no longer what it was.
pub(super) const CHANGED: &str = "was changed since it was listed; the next run takes it anew";

/// The files of a set at some moment.
#[derive(Debug)]
pub(super) struct Listing {
    /// The folder or prefix that names are relative to.
    pub(super) root: Location,
    /// By name, bytewise.
    pub(super) files: BTreeMap<String, ListedFile>,
    /// Files that were looked at, those that did not match among them.
    pub(super) looked_at: u64,
    /// Files that were left out, by reason.
    pub(super) passed_over: PassedOver,
    /// Whether all files of a folder were looked at, rather than those that a path or a glob means.
    pub(super) is_folder: bool,
    /// The folders that were met on a disk of this machine, by their names; the root has the empty name.
    pub(super) folders: BTreeMap<String, FolderId>,
    /// The names of folders and files that could not be looked at. What lies there is not known to be gone.
    pub(super) unread: Vec<String>,
    /// Those of them that an error of the environment kept from being looked at, with the error.
    pub(super) unseen: BTreeMap<PathBuf, Unavailable>,
}

/// Why a record cannot be had.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For metrics.
    pub(super) code: RejectCode,
    /// For people.
    pub(super) reason: String,
    /// A reference to the file that could not be read, as JSON, where there is one.
    pub(super) reference: Option<Vec<u8>>,
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// Its record is rejected.
    Rejected(Refusal),
    /// It is left for a later attempt.
    Unavailable(Unavailable),
}

impl From<Refusal> for ReadFailure {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(refusal)
    }
}

impl FileSet {
    /// Checks `path` as far as that goes without looking below it.
    ///
    /// # Errors
    /// A fault at `path` when it is empty, or a glob that is none.
    pub(super) fn new(path: String, follow_links: bool, extensions: &'static [&'static str]) -> Result<Self, Fault> {
        let passed_over = LastPassedOver::default();
        let set = Self { path, follow_links, extensions, underscore_files: false, passed_over };
        if set.path.is_empty() {
            return Err(Fault::new("path", "is empty; write a folder, a file, or a glob such as `photos/**/*.jpg`"));
        }
        if is_url(&set.path) || !Path::new(&set.path).exists() {
            let glob = set.glob().map_err(|message| Fault::new("path", message))?;
            let root = glob.map_or_else(|| set.path.clone(), |glob| glob.root);
            Location::parse(&root).map_err(|message| Fault::new("path", message))?;
        }
        Ok(set)
    }

    /// The same, with files whose names begin with an underscore: cameras name photographs so.
    pub(super) fn with_underscore_files(self) -> Self {
        Self { underscore_files: true, ..self }
    }

    /// The same, whose listings report what they left out to `passed_over`.
    pub(super) fn reporting_to(self, passed_over: LastPassedOver) -> Self {
        Self { passed_over, ..self }
    }

    /// What the last listing left out.
    pub(super) fn passed_over(&self) -> LastPassedOver {
        self.passed_over.clone()
    }

    /// Bytes that reading one of the files takes, beside what was read.
    pub(super) fn reading_bytes(&self) -> u64 {
        reading_bytes(&self.path)
    }

    /// Looks for the files. Only regular files count: neither folders, pipes, sockets nor devices are ever opened.
    /// A folder or file that cannot be read is left out; [`Listing::unseen`] names it.
    ///
    /// # Errors
    /// When the folder to begin with cannot be read.
    pub(super) fn list(&self) -> Result<Listing, StageError> {
        self.list_visiting(&mut |_, _| {})
    }

    /// As [`Self::list`]; each folder is given to `visit` before its entries are read.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(super) fn list_visiting(&self, visit: &mut Visit<'_>) -> Result<Listing, StageError> {
        let listing = self.look(visit)?;
        self.passed_over.set(listing.passed_over.clone());
        Ok(listing)
    }

    fn look(&self, visit: &mut Visit<'_>) -> Result<Listing, StageError> {
        if is_url(&self.path) {
            return self.list_objects();
        }
        let place = Path::new(&self.path);
        if place.is_file() {
            let root = place.parent().map(Path::to_path_buf).unwrap_or_default();
            let is_place = |name: &Path| Some(name.as_os_str()) == place.file_name();
            return self.walk(&root, Path::new(""), Some(1), visit, |name| keep_if(is_place(name), Omission::Unasked));
        }
        if place.is_dir() {
            let mut listing = self.walk(place, Path::new(""), None, visit, |name| self.choose(name))?;
            listing.unseen.retain(|path, _| path.strip_prefix(place).is_ok_and(|name| !self.passes_over(name)));
            return Ok(Listing { is_folder: true, ..listing });
        }
        match self.glob().map_err(StageError::Other)? {
            Some(Glob { root, matcher, depth }) => {
                self.walk(Path::new(&root), Path::new(""), depth, visit, |name| matched(&matcher, name))
            }
            None => Err(self.nothing_there()),
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
            return Some(if above.as_os_str().is_empty() { PathBuf::from(".") } else { above });
        }
        let glob = if place.is_dir() { None } else { self.glob().ok().flatten() };
        Some(match glob {
            Some(glob) if glob.root.is_empty() => PathBuf::from("."),
            Some(glob) => PathBuf::from(glob.root),
            None => place.to_path_buf(),
        })
    }

    /// The folder to watch; `None` in a bucket, which can only be listed again and again.
    ///
    /// # Errors
    /// When it is a single file.
    pub(super) fn watched(&self) -> Result<Option<Watched>, StageError> {
        if Path::new(&self.path).is_file() {
            return Err(StageError::Other(format!("`{}` is a file; watch a folder or a glob", self.path)));
        }
        Ok(self.local_root().map(|root| Watched { root, set: self.clone() }))
    }

    /// Whether image files with this extension, in `folder` of this machine or below it, belong to the set or would.
    pub(super) fn takes_images_of(&self, folder: &Path, extension: &str) -> bool {
        let place = Path::new(&self.path);
        if is_url(&self.path) || place.is_file() {
            return false;
        }
        let glob = if place.is_dir() { None } else { self.glob().ok().flatten() };
        let root = glob.as_ref().map_or(place, |glob| Path::new(if glob.root.is_empty() { "." } else { &glob.root }));
        let (Some(root), Some(folder)) = (real_path(root), real_path(folder)) else { return false };
        let Ok(below) = folder.strip_prefix(&root) else { return false };
        glob.is_none_or(|glob| {
            let is_deep_enough = glob.depth.is_none_or(|depth| below.components().count() < depth);
            // Files of any extension match, unless the pattern names one at its end.
            let end = self.path.rsplit(['/', '*', '?', ']', '}', '\\']).next().unwrap_or_default();
            is_deep_enough && end.rsplit_once('.').is_none_or(|(_, end)| end == extension)
        })
    }

    /// As for folders: an object that exists is no glob, whatever characters it has; nor is a prefix with objects.
    fn list_objects(&self) -> Result<Listing, StageError> {
        let parse = |path: &str| Location::parse(path).map_err(StageError::Other);
        // What cannot be a key may still be a glob.
        if let Ok(Location::Remote(place)) = Location::parse(&self.path) {
            let failed = |error| Location::Remote(place.clone()).failed(error);
            if let Some((folder, _)) = place.parent()
                && let Some(object) = place.head().map_err(failed)?
            {
                return Ok(Listing::of_objects(folder, vec![object], |_| Ok(())));
            }
            let objects = place.list().map_err(failed)?;
            if !objects.is_empty() {
                let listing = Listing::of_objects(place, objects, |name| self.choose(name));
                return Ok(Listing { is_folder: true, ..listing });
            }
        }
        let Some(Glob { root, matcher, .. }) = self.glob().map_err(StageError::Other)? else {
            return Err(self.nothing_there());
        };
        match parse(&root)? {
            Location::Remote(root) => {
                let objects = root.list().map_err(|error| Location::Remote(root.clone()).failed(error))?;
                Ok(Listing::of_objects(root, objects, |name| matched(&matcher, name)))
            }
            Location::Local(_) => Err(self.nothing_there()),
        }
    }

    /// Whether a file counts where a folder is meant, or why not. Tables hide every path with a part that begins with `.` or `_`,
    /// as Spark and Hive do; of images, only folders with an underscore are not data.
    fn choose(&self, name: &Path) -> Result<(), Omission> {
        let is_wanted = has_extension(name, self.extensions);
        let mut parts = name.iter().peekable();
        while let Some(part) = parts.next() {
            match part.as_encoded_bytes().first() {
                _ if part == STATE => return Err(Omission::Own),
                Some(b'.') => return Err(Omission::Hidden),
                Some(b'_') if parts.peek().is_some() || !(is_wanted && self.underscore_files) => {
                    return Err(Omission::Underscore);
                }
                _ => {}
            }
        }
        keep_if(is_wanted, Omission::Extension)
    }

    /// Whether nothing at or below this path counts where a folder is meant, whatever its extension.
    fn passes_over(&self, name: &Path) -> bool {
        matches!(self.choose(name), Err(Omission::Hidden | Omission::Underscore | Omission::Own))
    }

    fn nothing_there(&self) -> StageError {
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
    pub(super) fn nothing_found(&self, listing: &Listing) -> StageError {
        if let Some(unavailable) = listing.unseen.values().next() {
            return unavailable.to_stage_error();
        }
        let looked_at = listing.looked_at;
        let wanted = match listing.is_folder {
            true => format!("has the extension {}", self.extensions.join(", ")),
            false => "matches".to_owned(),
        };
        let links = match listing.passed_over.links() {
            0 => String::new(),
            links => {
                format!("; {links} symbolic links were passed over: `follow_links = true` takes what they lead to")
            }
        };
        StageError::Other(format!("`{}`: of {looked_at} files that were looked at, none {wanted}{links}", self.path))
    }

    /// Looks at the files at or below `below`, a path relative to `root`.
    fn walk(
        &self,
        root: &Path,
        below: &Path,
        depth: Option<usize>,
        visit: &mut Visit<'_>,
        choose: impl Fn(&Path) -> Result<(), Omission>,
    ) -> Result<Listing, StageError> {
        let start = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let mut files = Listing::empty(Location::Local(start.to_path_buf()));
        // A file that the user names may be a link: it is the way to it that was asked for.
        let follow = self.follow_links || Path::new(&self.path).is_file();
        let walk = WalkDir::new(start.join(below)).follow_links(follow).max_depth(depth.unwrap_or(usize::MAX));
        let mut folder = Folder::default();
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.depth() == 0 => return Err(StageError::Other(format!("cannot list: {error}"))),
                Err(error) => {
                    files.pass_over(error, start);
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
                files.looked_at += 1;
                let chosen = if is_temporary(entry.file_name()) { Err(Omission::Own) } else { choose(relative) };
                match chosen {
                    Ok(()) => folder.look(&entry).map(|found| files.add(ListedFile::new(relative, found))),
                    Err(omission) => {
                        files.passed_over.add(relative, omission);
                        Ok(())
                    }
                }
            } else {
                if entry.file_type().is_symlink() {
                    files.passed_over.add(relative, Omission::Link);
                }
                Ok(())
            };
            if let Err(error) = looked {
                files.overlook(entry.path(), error);
            }
        }
        Ok(files)
    }

    /// `None` for a plain path.
    fn glob(&self) -> Result<Option<Glob>, String> {
        let Some(meta) = self.path.find(['*', '?', '[', '{', '\\']) else { return Ok(None) };
        let (root, pattern) = match self.path[..meta].rfind('/') {
            Some(slash) => self.path.split_at(slash + 1),
            None => ("", self.path.as_str()),
        };
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob =
            glob.map_err(|error| format!("{error}; `**` stands for folders of any depth, `*` for a part of a name"))?;
        let depth = (!pattern.contains("**")).then(|| pattern.matches('/').count() + 1);
        Ok(Some(Glob { root: root.to_owned(), matcher: glob.compile_matcher(), depth }))
    }
}

/// What is done with each folder, a path relative to the root, before its entries are read.
pub(super) type Visit<'a> = dyn FnMut(&Path, FolderId) + 'a;

/// A folder, or a glob, whose files come and go.
pub(super) struct Watched {
    /// What names are relative to, as it is written.
    pub(super) root: PathBuf,
    set: FileSet,
}

impl Watched {
    /// What counts at or below `below`, a path relative to the root: a file, or those of a folder.
    ///
    /// # Errors
    /// When nothing can be read there.
    pub(super) fn look(&self, below: &Path, visit: &mut Visit<'_>) -> Result<Listing, StageError> {
        let glob =
            if Path::new(&self.set.path).is_dir() { None } else { self.set.glob().map_err(StageError::Other)? };
        match glob {
            None => self.set.walk(&self.root, below, None, visit, |name| self.set.choose(name)),
            Some(Glob { matcher, depth, .. }) => {
                let depth = depth.map(|depth| depth.saturating_sub(below.components().count()));
                self.set.walk(&self.root, below, depth, visit, |name| matched(&matcher, name))
            }
        }
    }
}

/// The path without links, as far as it exists.
fn real_path(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let (above, real) = there?;
    Some(path.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest)))
}

/// A relative path as a name: `/` between folders, bytes that are no UTF-8 percent-encoded.
pub(super) fn name_of(relative: &Path) -> String {
    let mut name = String::with_capacity(relative.as_os_str().len());
    for part in relative {
        if !name.is_empty() {
            name.push('/');
        }
        push_encoded(&mut name, part.as_encoded_bytes());
    }
    name
}

/// A path with characters that stand for others.
struct Glob {
    /// The folder that it begins in.
    root: String,
    /// What it matches below.
    matcher: GlobMatcher,
    /// How deep that can lie.
    depth: Option<usize>,
}

impl Listing {
    fn empty(root: Location) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            looked_at: 0,
            passed_over: PassedOver::default(),
            is_folder: false,
            folders: BTreeMap::new(),
            unread: Vec::new(),
            unseen: BTreeMap::new(),
        }
    }

    /// A listing of which nothing could be read.
    pub(super) fn unread(root: Location) -> Self {
        Self { unread: vec![String::new()], ..Self::empty(root) }
    }

    /// Whether the folder of a file, or the nearest one that is left above it, was read, so that a file that is not listed is
    /// gone.
    pub(super) fn has_seen(&self, name: &str) -> bool {
        !self.unread.iter().any(|unread| is_at_or_below(name, unread))
    }

    /// The device of the folder that a file lies in, or would lie in: of the nearest one above it that was met.
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
        let above = |name: &str| name.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
        let differs = move |(name, id): &(&String, &FolderId)| {
            !name.is_empty() && self.folders.get(&above(name)).is_some_and(|above| above.device != id.device)
        };
        self.folders.iter().filter(differs).map(|(name, _)| name.clone())
    }

    fn relative_name(&self, path: &Path) -> String {
        let below = self.root.local().and_then(|root| path.strip_prefix(root).ok());
        below.map(name_of).unwrap_or_default()
    }

    /// Leaves out what a walk from `start` reported an error for. The walk does not name a folder that it could list in part:
    /// then anything below `start` may be unseen.
    fn pass_over(&mut self, error: walkdir::Error, start: &Path) {
        let path = error.path().unwrap_or(start).to_path_buf();
        let text = error.to_string();
        match error.into_io_error() {
            Some(error) => self.overlook(&path, error),
            None => {
                self.unread.push(self.relative_name(&path));
                tracing::warn!("left out: {text}");
            }
        }
    }

    /// Leaves out a path that cannot be looked at.
    pub(super) fn overlook(&mut self, path: &Path, error: io::Error) {
        if ErrorClass::of(&error) != ErrorClass::Gone {
            self.unread.push(self.relative_name(path));
        }
        // The folder of a disk's own, which holds no files of users.
        if path.file_name().is_some_and(|name| name == "lost+found") {
            return tracing::warn!("left out: {}: {error}", path.display());
        }
        match Unavailable::from_error(path.to_path_buf(), ErrorClass::of(&error), error) {
            Ok(unavailable) => drop(self.unseen.insert(path.to_path_buf(), unavailable)),
            Err(error) => tracing::warn!("left out: {}: {error}", path.display()),
        }
    }

    fn of_objects(root: Remote, objects: Vec<Entry>, choose: impl Fn(&Path) -> Result<(), Omission>) -> Self {
        let mut listing = Self::empty(Location::Remote(root));
        listing.looked_at = objects.len() as u64;
        for object in objects {
            match choose(Path::new(&object.name)) {
                Ok(()) => listing.add(ListedFile::from(object)),
                // An empty object stands for a folder; its name comes without the slash at its end.
                Err(_) if object.size == 0 && Path::new(&object.name).extension().is_none() => {}
                Err(omission) => listing.passed_over.add(Path::new(&object.name), omission),
            }
        }
        listing
    }

    /// The files, each with its size and time.
    ///
    /// # Errors
    /// When an error of the environment hides some of them.
    pub(super) fn identities(self) -> Result<Vec<String>, StageError> {
        match self.unseen.into_values().next() {
            Some(unavailable) => Err(unavailable.into()),
            None => Ok(self.files.values().map(ListedFile::identity).collect()),
        }
    }

    fn add(&mut self, file: ListedFile) {
        if let Some(other) = self.files.insert(file.name.clone(), file) {
            tracing::warn!("two files have the name {:?} once its bytes are encoded; one is left out", other.name);
        }
    }
}

impl ListedFile {
    fn new(relative: &Path, (size, mtime_ns): (u64, i64)) -> Self {
        let raw = relative.to_str().is_none().then(|| relative.into());
        Self { name: name_of(relative), size, mtime_ns, etag: None, digest: None, raw }
    }

    /// Whether both are known to be the same file, without reading its content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        identity::compare(self, other) == Verdict::Same
    }

    /// As [`Self::is_same`], whatever the names.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        identity::compare(self, &Self { name: self.name.clone(), ..other.clone() }) == Verdict::Same
    }

    /// `<name>:<size>:<etag, or modification time in ns>`: written anew, it is another file.
    pub(super) fn identity(&self) -> String {
        let Self { name, size, mtime_ns, etag, .. } = self;
        match etag {
            Some(etag) => format!("{name}:{size}:{etag}"),
            None => format!("{name}:{size}:{mtime_ns}"),
        }
    }

    /// Its path relative to the root of the listing.
    pub(super) fn relative_path(&self) -> PathBuf {
        self.raw.as_deref().unwrap_or(Path::new(&self.name)).to_path_buf()
    }

    /// Where it lies.
    pub(super) fn location(&self, root: &Location) -> Location {
        match root {
            Location::Local(root) => Location::Local(root.join(self.relative_path())),
            Location::Remote(root) => Location::Remote(root.join(&self.name)),
        }
    }

    /// Opens the file if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if it is gone or changed; else what makes it unavailable.
    pub(super) fn open(&self, root: &Location) -> Result<Input, ReadFailure> {
        let location = self.location(root);
        let failed = |error: io::Error| self.failure(&location, error);
        let Some(path) = location.local() else {
            return location.open(self.size, self.etag.as_deref()).map_err(failed);
        };
        let file = folder::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || size_and_time(&metadata) != (self.size, self.mtime_ns) {
            return Err(self.unreadable(CHANGED).into());
        }
        Ok(Input::from(file))
    }

    /// The digest of the file's content; `None` if it is not the file that was listed any more.
    ///
    /// # Errors
    /// What makes it unavailable.
    pub(super) fn digest_of_content(&self, root: &Location) -> Result<Option<ContentDigest>, Unavailable> {
        let file = match self.open(root) {
            Ok(file) => file,
            Err(ReadFailure::Rejected(_)) => return Ok(None),
            Err(ReadFailure::Unavailable(unavailable)) => return Err(unavailable),
        };
        ContentDigest::of_prefix(file, self.size)
            .or_else(|error| self.location(root).unavailable(error).map_or(Ok(None), Err))
    }

    /// The failure that an I/O error of this file, which lies at `location`, amounts to.
    pub(super) fn failure(&self, location: &Location, error: io::Error) -> ReadFailure {
        match location.unavailable(error) {
            Ok(unavailable) => ReadFailure::Unavailable(unavailable),
            Err(error) => ReadFailure::Rejected(self.unreadable(&error.to_string())),
        }
    }

    /// That it cannot be read.
    pub(super) fn unreadable(&self, reason: &str) -> Refusal {
        Refusal::new(RejectCode::Unreadable, format!("{}: {reason}", self.name))
    }

    /// The file's bytes, if it is still the one that was listed.
    ///
    /// # Errors
    /// A rejection: `too_large` above `limit` bytes, without reading it; `unreadable`, with the reason, if it is gone or
    /// changed. Else what makes it unavailable.
    pub(super) fn read(&self, root: &Location, limit: u64) -> Result<Vec<u8>, ReadFailure> {
        if self.size > limit {
            return Err(Refusal::too_large(&self.name, self.size, limit).into());
        }
        let file = self.open(root)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        let read = file.take(self.size + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.failure(&self.location(root), error))?;
        if bytes.len() as u64 != self.size {
            return Err(self.unreadable(CHANGED_MEANWHILE).into());
        }
        Ok(bytes)
    }
}

impl From<Entry> for ListedFile {
    fn from(Entry { name, size, mtime_ns, etag }: Entry) -> Self {
        Self { name, size, mtime_ns, etag, digest: None, raw: None }
    }
}

impl Refusal {
    pub(super) fn new(code: RejectCode, reason: String) -> Self {
        Self { code, reason, reference: None }
    }

    pub(super) fn too_large(name: &str, size: u64, limit: u64) -> Self {
        let reason = format!("{name}: {size} bytes, more than the limit of {limit} bytes (limits.record_bytes)");
        Self::new(RejectCode::TooLarge, reason)
    }
}

/// The error of the system that a walk met.
fn io_error(error: walkdir::Error) -> io::Error {
    let text = error.to_string();
    error.into_io_error().unwrap_or_else(|| io::Error::other(text))
}

/// A name as text: what is UTF-8 stays, other bytes become `%` and two hexadecimal digits.
pub(super) fn encode_name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    push_encoded(&mut text, name);
    text
}

fn push_encoded(text: &mut String, name: &[u8]) {
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
}

/// Whether a name is `folder` or lies below it; the empty name is the root.
pub(super) fn is_at_or_below(name: &str, folder: &str) -> bool {
    folder.is_empty() || name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The folder of an output that holds what latentflow remembers of it: never input of a listing that begins above it.
pub(crate) const STATE: &str = "_latentflow";

/// Whether a file counts that a glob may match, or why not.
fn matched(glob: &GlobMatcher, name: &Path) -> Result<(), Omission> {
    if name.iter().any(|part| part == STATE) {
        return Err(Omission::Own);
    }
    keep_if(glob.is_match(name), Omission::Unmatched)
}

fn keep_if(is_wanted: bool, omission: Omission) -> Result<(), Omission> {
    if is_wanted { Ok(()) } else { Err(omission) }
}

/// Whether a path ends in one of these extensions, in upper or lower case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().map(|extension| extension.as_encoded_bytes());
    extension.is_some_and(|extension| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known.as_bytes())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    fn set(folder: &Path, path: &str) -> FileSet {
        FileSet::new(folder.join(path).to_str().unwrap().to_owned(), false, &["jpg", "png"]).unwrap()
    }

    fn names(set: &FileSet) -> Vec<String> {
        set.list().unwrap().files.into_keys().collect()
    }

    #[test]
    fn a_folder_means_its_images_in_bytewise_order_whatever_their_case() {
        let folder = folder(&["b.jpg", "a/z.PNG", "a-b.jpg", "a.jpg", "Z.jpg", "notes.txt", "jpg"]);
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
        assert_eq!(set(folder.path(), "p/*.jpg").list().unwrap().looked_at, 4);
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
        assert_eq!(photos.passed_over().get().to_string(), expected);
        let table = set(folder.path(), "");
        assert!(names(&table).is_empty());
        assert!(names(&set(folder.path(), "**/*.jpg")).iter().all(|name| !name.contains("_latentflow")));
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
        assert!(set(folder.path(), "none/*.jpg").list().unwrap_err().to_string().contains("none"));
        let nothing = set(folder.path(), "*.jpg");
        let nothing = nothing.nothing_found(&nothing.list().unwrap()).to_string();
        assert!(nothing.contains("of 1 files that were looked at, none matches"), "{nothing}");
        assert_eq!(FileSet::new("a/[".into(), false, &[]).unwrap_err().key, "path");
        assert_eq!(FileSet::new(String::new(), false, &[]).unwrap_err().key, "path");
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
        assert_eq!(set.passed_over().get().links(), 4);
        fs::remove_file(folder.path().join("a/x.jpg")).unwrap();
        let nothing = set.nothing_found(&set.list().unwrap()).to_string();
        assert!(nothing.ends_with("4 symbolic links were passed over: `follow_links = true` takes what they lead to"));
        fs::write(folder.path().join("a/x.jpg"), "x").unwrap();
        set.follow_links = true;
        let found = names(&set);
        assert!(["link/y.jpg", "x.jpg", "z.jpg"].iter().all(|name| found.contains(&(*name).to_owned())), "{found:?}");
    }

    #[test]
    fn a_place_that_cannot_be_looked_at_hides_its_files() {
        let folder = folder(&["a.jpg", "s/b.jpg"]);
        let mut listing = set(folder.path(), "").list().unwrap();
        listing.files.clear();
        listing.overlook(&folder.path().join("s"), rustix::io::Errno::NOENT.into());
        assert!(listing.has_seen("s/b.jpg"), "nothing is there");
        listing.overlook(&folder.path().join("s"), rustix::io::Errno::ACCESS.into());
        assert!(!listing.has_seen("s/b.jpg") && listing.has_seen("a.jpg"));
        assert!(listing.identities().unwrap_err().to_string().contains("denied"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_no_utf8_is_encoded_and_can_be_read() {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder(&[]);
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"gr\xfcn %41.jpg")), b"data").unwrap();
        let listing = set(folder.path(), "").list().unwrap();
        let file = listing.files.get("gr%FCn %41.jpg").unwrap();
        assert_eq!(file.read(&listing.root, 100).unwrap(), b"data");
    }

    #[test]
    fn a_file_that_was_changed_or_is_too_large_is_refused_with_the_reason() {
        let folder = folder(&["a.jpg", "b.jpg"]);
        let listing = set(folder.path(), "").list().unwrap();
        fs::write(folder.path().join("a.jpg"), b"longer than before").unwrap();
        let refusal = |name: &str, limit| match listing.files[name].read(&listing.root, limit).unwrap_err() {
            ReadFailure::Rejected(refusal) => refusal,
            ReadFailure::Unavailable(unavailable) => panic!("{unavailable:?}"),
        };
        assert_eq!(refusal("a.jpg", 100).code, RejectCode::Unreadable);
        assert!(refusal("a.jpg", 100).reason.starts_with("a.jpg: was changed"));
        assert_eq!(refusal("b.jpg", 4).code, RejectCode::TooLarge);
        fs::remove_file(folder.path().join("b.jpg")).unwrap();
        assert!(refusal("b.jpg", 5).reason.contains("b.jpg: "));
    }
}
