//! The writer of the sink `images`, which writes each record to its own file with a unique name.
//!
//! A name is taken if a file has it or will have it after the next commit. Both are visible in the
//! folder, and the file system decides which names are equal. The names therefore do not depend on
//! the times of commits, and a run that resumes after a crash assigns the same names as an
//! uninterrupted run.

pub(crate) mod unnamed;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file_names::{holds_files, is_about_name, make_folders};
use super::name_log::NameLog;
use crate::batch::Batch;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::file_descriptors;
use crate::fs_durable::{failpoint, fsync_dir, remove_stale_temp_files, temp_path};
use crate::sink::images::encoder;
use crate::sink::images::encoder::{EncodedImage, ImageEncoder};
use crate::sink::images::file_naming::NamingScheme;
use crate::sink::images::writer::unnamed::{ClaimedImageFolder, UnnamedFile, names, record_hash};
use crate::sink::ownership::file_lock::FileLock;
use crate::sink::parquet::coverage_snapshot::{CoverageSnapshot, NamingState};
use crate::sink::{BatchEncoder, CommitProgress, CommitStats, OutputIdentity, SinkWriter};
use crate::storage::Location;

/// Number of files after which the sink commits.
pub(super) const COMMIT_FILES: usize = 256;

/// Size of files in bytes after which the sink commits.
const COMMIT_BYTES: u64 = 64 << 20;

/// Maximum age of an uncommitted file, so that images become visible soon, and a crash loses few of
/// them.
const COMMIT_AGE: Duration = Duration::from_secs(5);

/// Numbers of digits of the record's hash that are tried as a suffix if a name is taken.
const SUFFIXES: [usize; 3] = [8, 16, 32];

/// The writer. Files are renamed when they are durable; then the snapshot records their rows.
pub(super) struct ImageWriter {
    root: PathBuf,
    scheme: NamingScheme,
    encoder: ImageEncoder,
    identity: OutputIdentity,
    lock: FileLock,
    snapshot: CoverageSnapshot,
    snapshot_file: Location,
    naming: NamingState,
    log: NameLog,
    /// The source rows that were written since the last snapshot.
    taken: Coverage,
    /// Folders with changed names, which are not symbolic links.
    folders: BTreeSet<PathBuf>,
    /// Files with a temporary name.
    unnamed: Vec<UnnamedFile>,
    unnamed_bytes: u64,
    written: CommitStats,
    /// Whether a warning about a name that differs from the scheme was logged.
    warned: bool,
}

impl ImageWriter {
    /// Opens the writer, and removes the files of an interrupted commit.
    pub(super) fn open(
        found: ClaimedImageFolder,
        scheme: NamingScheme,
        encoder: ImageEncoder,
        identity: OutputIdentity,
    ) -> Result<Self, StageError> {
        let is_legacy = found.is_legacy();
        let ClaimedImageFolder {
            path: root,
            lock,
            snapshot,
            snapshot_file,
        } = found;
        let log = match snapshot.naming {
            Some(naming) => NameLog::open(&root, naming.listed)?,
            // A log without a snapshot does not show which rows are committed, so its files may be
            // the only copies of their records.
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
            encoder,
            identity,
            lock,
            snapshot,
            snapshot_file,
            naming: NamingState {
                former: is_legacy,
                adopts,
                listed: log.bytes(),
            },
            log,
            taken: Coverage::default(),
            folders: BTreeSet::new(),
            unnamed: Vec::new(),
            unnamed_bytes: 0,
            written: CommitStats::default(),
            warned: false,
        })
    }

    /// Writes the file of a record with the first of its names that is not taken.
    fn put(
        &mut self,
        file: &EncodedImage<'_>,
        record: impl Fn() -> String,
    ) -> Result<(), StageError> {
        let path = self.scheme.path(file.source, file.row, file.extension);
        for (attempt, name) in names(&path, file.extension, &record).enumerate() {
            let Some(unnamed) = self.reserve(name, file.bytes)? else {
                continue;
            };
            if attempt > 0 && !self.warned {
                self.warned = true;
                tracing::warn!(
                    expected = %format!("{path}.{}", file.extension), name = %unnamed.name,
                    "the name of an image file is taken or invalid, and a suffix is added; \
                     later cases are not logged"
                );
            }
            self.unnamed.push(unnamed);
            self.unnamed_bytes += file.bytes.len() as u64;
            return Ok(());
        }
        let root = self.root.display();
        Err(StageError::new(
            ErrorCode::OutputExhausted,
            format!("{root}: all names for the record `{path}` are taken; use another path"),
        ))
    }

    /// Writes a file with a temporary name. Returns `None` if its final name is taken or invalid.
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
        let temporary = temp_path(&path);
        // An existing temporary file belongs to this commit, since those of other runs were removed
        // when the writer was opened.
        let mut file = match file_descriptors::open(|| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&temporary)
        }) {
            Ok(file) => file,
            Err(error) if is_about_name(&error, &self.root, &path) => return Ok(None),
            Err(error) => return Err(StageError::io(&temporary)(error)),
        };
        file.write_all(bytes).map_err(StageError::io(&temporary))?;
        Ok(Some(UnnamedFile {
            name,
            path,
            replaces,
        }))
    }

    /// Whether an existing file belongs to the record, from a run that is not in the snapshot.
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
        // A file that cannot be read belongs to another program.
        let is_equal = fs::read(path).is_ok_and(|existing| existing == bytes);
        Ok(is_equal && !self.log.contains(name)?)
    }

    fn rename_files(&mut self) -> Result<(), StageError> {
        for unnamed in &self.unnamed {
            let temporary = temp_path(&unnamed.path);
            file_descriptors::open(|| File::open(&temporary))
                .and_then(|file| file.sync_all())
                .map_err(StageError::io(&temporary))?;
        }
        failpoint("pictures-synced");
        if self.snapshot.naming.is_none() {
            self.snapshot.naming = Some(self.naming);
            self.snapshot.save(&self.snapshot_file)?;
        }
        self.log
            .append(self.unnamed.iter().map(|unnamed| unnamed.name.as_str()))?;
        failpoint("pictures-listed");
        for unnamed in &self.unnamed {
            unnamed.rename()?;
            failpoint("picture-named");
        }
        self.folders
            .iter()
            .try_for_each(|folder| fsync_dir(folder))?;
        failpoint("pictures-named");
        self.naming.listed = self.log.bytes();
        Ok(())
    }
}

impl SinkWriter for ImageWriter {
    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(self.encoder.clone()))
    }

    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        for (index, file) in encoder::files(batch)?.enumerate() {
            self.put(&file, || record_hash(batch, index))?;
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
            self.rename_files()?;
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
