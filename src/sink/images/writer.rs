//! The sink `images` at work: every record has a file of its own, under a name that no other file
//! has.
//!
//! A name is taken where a file bears it, or will when it is committed: both can be seen in the
//! folder, whose file system decides which names are the same. So what is taken does not depend on
//! when files are committed, and a run that goes on after a crash gives the names that an
//! undisturbed one gives.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file_names::{holds_files, is_about_name, make_folders, rename_to_free};
use super::name_log::NameLog;
use crate::batch::Batch;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::file_descriptors;
use crate::fs_durable::{failpoint, fsync_dir, remove_stale_temp_files, temp_path};
use crate::sink::coverage_snapshot::{CoverageSnapshot, NamingState};
use crate::sink::file_lock::FileLock;
use crate::sink::file_naming::{NamingScheme, hash};
use crate::sink::image_encoder::{self, EncodedImage};
use crate::sink::{CommitProgress, CommitStats, OutputIdentity, SinkWriter};
use crate::storage::Location;

/// Files after which they are committed.
pub(super) const COMMIT_FILES: usize = 256;

/// Bytes after which the same is done.
const COMMIT_BYTES: u64 = 64 << 20;

/// How long a file waits to be committed at most, so that people see pictures appear, and a kill
/// costs few of them.
const COMMIT_AGE: Duration = Duration::from_secs(5);

/// Digits of a record's hash that its file's name takes where that without them is taken.
const SUFFIXES: [usize; 3] = [8, 16, 32];

/// An output as it was found.
pub(super) struct ClaimedImageFolder {
    pub(super) path: PathBuf,
    pub(super) lock: FileLock,
    pub(super) snapshot: CoverageSnapshot,
    pub(super) snapshot_file: Location,
}

impl ClaimedImageFolder {
    /// Whether it was begun before the names of files were noted.
    pub(super) fn is_former(&self) -> bool {
        self.snapshot
            .naming
            .map_or(!self.snapshot.history.writers.is_empty(), |naming| {
                naming.former
            })
    }
}

/// Files get their names when they are durable; then the snapshot says whose rows are done.
pub(super) struct ImageWriter {
    root: PathBuf,
    scheme: NamingScheme,
    extension: &'static str,
    identity: OutputIdentity,
    lock: FileLock,
    snapshot: CoverageSnapshot,
    snapshot_file: Location,
    naming: NamingState,
    listed: NameLog,
    /// The source rows since the snapshot was written.
    taken: Coverage,
    /// Folders in which names have changed, known to be no links.
    folders: BTreeSet<PathBuf>,
    /// Files that still have their temporary name.
    unnamed: Vec<UnnamedFile>,
    unnamed_bytes: u64,
    written: CommitStats,
    /// Whether it was said that names are not always those of the scheme.
    said: bool,
}

/// A file that still has its temporary name.
struct UnnamedFile {
    /// The name that it will have, relative to the folder.
    name: String,
    path: PathBuf,
    /// Whether a file that has the name already is the same one.
    replaces: bool,
}

impl ImageWriter {
    /// Removes the files of a commit that a crash cut short.
    pub(super) fn open(
        found: ClaimedImageFolder,
        scheme: NamingScheme,
        extension: &'static str,
        identity: OutputIdentity,
    ) -> Result<Self, StageError> {
        let former = found.is_former();
        let ClaimedImageFolder {
            path: root,
            lock,
            snapshot,
            snapshot_file,
        } = found;
        let listed = match snapshot.naming {
            Some(naming) => NameLog::open(&root, naming.listed)?,
            // A list without a snapshot does not show which rows are done: the files of the list
            // may be the only ones of their records.
            None => NameLog::start_over(&root)?,
        };
        remove_stale_temp_files(&root, usize::MAX)?;
        let adopts = match snapshot.naming {
            Some(naming) => naming.adopts,
            None => holds_files(&root)?,
        };
        Ok(Self {
            root,
            scheme,
            extension,
            identity,
            lock,
            snapshot,
            snapshot_file,
            naming: NamingState {
                former,
                adopts,
                listed: listed.bytes(),
            },
            listed,
            taken: Coverage::default(),
            folders: BTreeSet::new(),
            unnamed: Vec::new(),
            unnamed_bytes: 0,
            written: CommitStats::default(),
            said: false,
        })
    }

    /// Writes a record's file, under the first of its names that is free.
    fn put(
        &mut self,
        file: &EncodedImage<'_>,
        record: impl Fn() -> String,
    ) -> Result<(), StageError> {
        let place = self.scheme.place(file.source, file.row, self.extension);
        for (attempt, name) in names(&place, self.extension, &record).enumerate() {
            let Some(unnamed) = self.reserve(name, file.bytes)? else {
                continue;
            };
            if attempt > 0 && !self.said {
                self.said = true;
                let (wanted, name) = (format!("{place}.{}", self.extension), &unnamed.name);
                tracing::warn!(
                    "`{wanted}` is taken or cannot be a file's name: that file is `{name}`; others may follow"
                );
            }
            self.unnamed.push(unnamed);
            self.unnamed_bytes += file.bytes.len() as u64;
            return Ok(());
        }
        let root = self.root.display();
        Err(StageError::Other(format!(
            "{root}: no name is free for `{place}`; write to another path"
        )))
    }

    /// Writes a file under its temporary name; `None` where the name that it is to have is taken,
    /// or the system does not let a file have it.
    fn reserve(&mut self, name: String, bytes: &[u8]) -> Result<Option<UnnamedFile>, StageError> {
        let path = self.root.join(&name);
        if !make_folders(&self.root, &path, &mut self.folders)? {
            return Ok(None);
        }
        let replaces = match fs::symlink_metadata(&path) {
            Ok(found) if self.is_same(&name, &path, &found, bytes)? => true,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) if is_about_name(&error, &self.root, &path) => return Ok(None),
            Err(error) => return Err(StageError::io(&path)(error)),
        };
        let unfinished = temp_path(&path);
        // A file that is there already is one of this commit: temporary files of other runs are
        // removed before.
        let mut file = match file_descriptors::open(|| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&unfinished)
        }) {
            Ok(file) => file,
            Err(error) if is_about_name(&error, &self.root, &path) => return Ok(None),
            Err(error) => return Err(StageError::io(&unfinished)(error)),
        };
        file.write_all(bytes).map_err(StageError::io(&unfinished))?;
        Ok(Some(UnnamedFile {
            name,
            path,
            replaces,
        }))
    }

    /// Whether a file that is there is the record's own, from a run of which nothing is noted.
    fn is_same(
        &self,
        name: &str,
        path: &Path,
        found: &fs::Metadata,
        bytes: &[u8],
    ) -> Result<bool, StageError> {
        if !self.naming.adopts || !found.is_file() || found.len() != bytes.len() as u64 {
            return Ok(false);
        }
        // A file that cannot be read is another's.
        let is_equal = fs::read(path).is_ok_and(|there| there == bytes);
        Ok(is_equal && !self.listed.holds(name)?)
    }

    fn give_names(&mut self) -> Result<(), StageError> {
        for unnamed in &self.unnamed {
            let unfinished = temp_path(&unnamed.path);
            file_descriptors::open(|| File::open(&unfinished))
                .and_then(|file| file.sync_all())
                .map_err(StageError::io(&unfinished))?;
        }
        failpoint("pictures-synced");
        if self.snapshot.naming.is_none() {
            self.snapshot.naming = Some(self.naming);
            self.snapshot.save(&self.snapshot_file)?;
        }
        self.listed
            .append(self.unnamed.iter().map(|unnamed| unnamed.name.as_str()))?;
        failpoint("pictures-listed");
        for unnamed in &self.unnamed {
            unnamed.give_name()?;
            failpoint("picture-named");
        }
        self.folders
            .iter()
            .try_for_each(|folder| fsync_dir(folder))?;
        failpoint("pictures-named");
        self.naming.listed = self.listed.bytes();
        Ok(())
    }
}

impl UnnamedFile {
    fn give_name(&self) -> Result<(), StageError> {
        let (from, to) = (temp_path(&self.path), &self.path);
        let renamed = if self.replaces {
            fs::rename(&from, to)
        } else {
            rename_to_free(&from, to)
        };
        renamed.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let met = "another program has put a file here meanwhile, which is not replaced";
                StageError::Other(format!(
                    "{}: {met}; run again to go on with another name",
                    to.display()
                ))
            }
            _ => StageError::io(to)(error),
        })
    }
}

impl SinkWriter for ImageWriter {
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        for (place, file) in image_encoder::files(batch)?.enumerate() {
            self.put(&file, || record_hash(batch, place))?;
        }
        self.taken.insert(&batch.provenance);
        if self.unnamed.len() < COMMIT_FILES && self.unnamed_bytes < COMMIT_BYTES {
            return Ok(CommitProgress::Nothing);
        }
        self.commit()?;
        Ok(CommitProgress::All)
    }

    fn commit_age(&self) -> Option<Duration> {
        Some(COMMIT_AGE)
    }

    fn commit(&mut self) -> Result<(), StageError> {
        self.lock.check()?;
        if !self.unnamed.is_empty() {
            self.give_names()?;
        }
        if !self.taken.is_empty() {
            self.snapshot
                .history
                .add(&self.identity, &std::mem::take(&mut self.taken));
            self.snapshot.naming = Some(self.naming);
            self.snapshot.save(&self.snapshot_file)?;
        }
        self.written.files += self.unnamed.len() as u64;
        self.written.records += self.unnamed.len() as u64;
        self.written.bytes += std::mem::take(&mut self.unnamed_bytes);
        self.unnamed.clear();
        self.folders.clear();
        Ok(())
    }

    fn switch_identity(&mut self, identity: OutputIdentity) -> Result<(), StageError> {
        if identity.digest != self.identity.digest {
            self.snapshot
                .history
                .allow_mixing(&[self.identity.digests(), identity.digests()].concat());
            self.snapshot.naming = Some(self.naming);
            self.snapshot.save(&self.snapshot_file)?;
        }
        self.identity = identity;
        Ok(())
    }

    fn stats(&self) -> CommitStats {
        self.written
    }
}

/// The names of a record's file, from the one that is wanted to one that no other record has,
/// directly in the folder.
fn names<'a>(
    place: &'a str,
    extension: &'a str,
    record: &'a impl Fn() -> String,
) -> impl Iterator<Item = String> + 'a {
    let plain = std::iter::once_with(move || format!("{place}.{extension}"));
    let suffixed = SUFFIXES
        .into_iter()
        .map(move |digits| format!("{place}-{}.{extension}", &record()[..digits]));
    plain.chain(suffixed).chain(std::iter::once_with(move || {
        format!("%~{}.{extension}", record())
    }))
}

/// A hash of a record's identity: its split, its row in there, and its number among the records of
/// this row, where several arms of the pipeline give one each.
fn record_hash(batch: &Batch, place: usize) -> String {
    let ordinal = batch.row_ordinals[place];
    let arm = batch.row_ordinals[..place]
        .iter()
        .filter(|&&before| before == ordinal)
        .count();
    let (split, row) = batch
        .provenance
        .row(ordinal)
        .map_or(("", u64::from(ordinal)), |(split, row)| (split.name(), row));
    hash(&format!("{row} {arm} {split}"))
}
