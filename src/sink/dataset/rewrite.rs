//! The rewrite of a dataset, which replaces files by one copy of their records and provenance.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{create_dir_all_synced, remove_dir_all_if_exists, try_lock_file};
use crate::sink::STATE_DIR;
use crate::sink::dataset::data_files::{DataFile, data_files};
use crate::sink::dataset::dataset_file::{DatasetFile, MergeKey};
use crate::sink::dataset::rewrite_commit::{RewriteCommit, RewriteIntent, STAGING_DIR};
use crate::sink::dataset::rewrite_verification::verify;
use crate::sink::ownership::writer_lease::part_number;
use crate::sink::parquet::file::ParquetFileWriter;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::options::{ParquetOptions, RowGroupConfig};
use crate::sink::parquet::stored_types::store;
use crate::storage::Location;

/// The exclusive right to rewrite files of a folder, which is held until it is dropped.
pub(crate) struct DatasetRewrite<'a> {
    folder: &'a Path,
    _lock: File,
}

/// A file in a list of files that cannot be read.
pub(crate) struct UnreadableFile {
    /// The index of the file in the list.
    pub(crate) index: usize,
    pub(crate) reason: String,
}

impl<'a> DatasetRewrite<'a> {
    /// Starts a rewrite, and completes or reverts a replacement that a crash has interrupted.
    ///
    /// # Errors
    /// If another rewrite of the folder is running, or if a file cannot be read, written or
    /// removed.
    pub(crate) fn begin(folder: &'a Path) -> Result<Self, StageError> {
        let rewrite = Self {
            folder,
            _lock: lock(folder)?,
        };
        drop(RewriteCommit::begin(folder)?);
        rewrite.clear()?;
        Ok(rewrite)
    }

    /// The data files in ascending order of their numbers.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<DataFile>, StageError> {
        let files = data_files(&self.folder.into())?.into_iter();
        let mut files: Vec<_> = files
            .filter_map(|file| Some((part_number(&file.entry.name)?, file)))
            .collect();
        files.sort_by_key(|(number, _)| *number);
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    /// Ends the rewrite, and removes its staging folder.
    ///
    /// # Errors
    /// If the staging folder cannot be removed.
    pub(crate) fn end(self) -> Result<(), StageError> {
        self.clear()
    }

    fn staging_dir(&self) -> PathBuf {
        self.folder.join(STAGING_DIR)
    }

    /// Removes the staging folder with files that have not become visible.
    fn clear(&self) -> Result<(), StageError> {
        remove_dir_all_if_exists(&self.staging_dir())
    }

    /// Copies the records of files, changed by `change`, into one file that replaces them and has
    /// the name of the last one. Returns its size. Its modification time is the latest of the
    /// files. Before it replaces them, it is read back and compared with them.
    ///
    /// # Errors
    /// If a file cannot be written, if the written file differs from the files, if one of the files
    /// was changed in the meantime, or if `change` fails. No file is then replaced.
    pub(crate) fn replace(
        &self,
        kind: &MergeKey,
        files: &[DatasetFile],
        change: impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
    ) -> Result<Result<u64, UnreadableFile>, StageError> {
        let Some(last) = files.last() else {
            return Ok(Ok(0));
        };
        create_dir_all_synced(&self.staging_dir())?;
        let format = ParquetOptions::new(
            SchemaRef::clone(&kind.schema),
            kind.compression,
            RowGroupConfig::default(),
        );
        let format = format.map_err(|faults| {
            let reasons: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::new(
                ErrorCode::DatasetCorrupt,
                format!("{}: {}", last.file.location, reasons.join("; ")),
            )
        })?;
        let path = self.staging_dir().join(&last.file.entry.name);
        let mut part = ParquetFileWriter::begin(Location::from(path.as_path()), None, &format)?;
        let mut coverage = Coverage::default();
        for (index, file) in files.iter().enumerate() {
            if let Err(reason) = copy(file, &mut part, &kind.schema, &change)? {
                return Ok(Err(UnreadableFile { index, reason }));
            }
            coverage.union(&file.coverage);
        }
        let footer = ProvenanceFooter::new(kind.identity.clone(), coverage);
        let written = part.finish(&footer, || Ok(()))?;
        verify(&Location::from(path.as_path()), kind, files, &change)?;
        let latest = files.iter().map(|file| file.file.entry.mtime_ns).max();
        // The rewritten file keeps its permissions.
        let permissions_set = last.file.location.local().map_or(Ok(()), |old| {
            let permissions = fs::metadata(old)?.permissions();
            fs::set_permissions(&path, permissions)
        });
        permissions_set
            .and_then(|()| set_time(&path, latest))
            .map_err(StageError::io(&path))?;
        self.commit(files, written.bytes).map(Ok)
    }

    fn commit(&self, files: &[DatasetFile], bytes: u64) -> Result<u64, StageError> {
        let commit = RewriteCommit::begin(self.folder)?;
        for DatasetFile { file, .. } in files {
            let now = file
                .location
                .file()?
                .map(|entry| (entry.size, entry.mtime_ns));
            if now != Some((file.entry.size, file.entry.mtime_ns)) {
                return Err(StageError::new(
                    ErrorCode::DatasetCorrupt,
                    format!(
                        "{}: was changed or removed while it was copied; no file was replaced; run \
                     again",
                        file.location
                    ),
                ));
            }
        }
        let inputs: Vec<String> = files
            .iter()
            .map(|file| file.file.entry.name.clone())
            .collect();
        let merged = inputs.last().cloned().unwrap_or_default();
        commit.replace(&RewriteIntent {
            merged,
            bytes,
            inputs,
        })?;
        Ok(bytes)
    }
}

/// Takes the lock that admits one rewrite of a folder at a time.
fn lock(folder: &Path) -> Result<File, StageError> {
    let state = folder.join(STATE_DIR);
    create_dir_all_synced(&state)?;
    let path = state.join("compact-lock");
    let file = try_lock_file(&path).map_err(StageError::io(&path))?;
    file.ok_or_else(|| {
        let folder = folder.display();
        StageError::new(ErrorCode::OutputLocked, format!(
            "{folder}: another compaction or purge of this folder is running; wait until it ends"
        ))
    })
}

/// Sets the modification time of a file, in nanoseconds since 1970.
fn set_time(path: &Path, nanoseconds: Option<i64>) -> std::io::Result<()> {
    let Some(since) = nanoseconds.and_then(|time| u64::try_from(time).ok()) else {
        return Ok(());
    };
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(since))?;
    file.sync_all()
}

/// Appends all records of a file to `part` in its schema. Returns the reason if they cannot be
/// read.
fn copy(
    from: &DatasetFile,
    part: &mut ParquetFileWriter,
    schema: &SchemaRef,
    change: &impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
) -> Result<Result<(), String>, StageError> {
    let (location, before) = (&from.file.location, part.records());
    let copied = from.read(None, |records| {
        part.write(&store(&change(records)?, schema)?)
    })?;
    if let Err(reason) = copied {
        return Ok(Err(reason));
    }
    Ok(match part.records() - before {
        read if read == from.rows => Ok(()),
        read => Err(format!(
            "{location}: cannot be read: its footer records {} rows, but it has {read}",
            from.rows
        )),
    })
}
