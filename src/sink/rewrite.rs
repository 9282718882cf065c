//! The rewrite of a dataset, which replaces files by one copy of their records and provenance.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression as Codec;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, try_lock_file};
use crate::sink::data_files::{DataFile, data_files};
use crate::sink::parquet_file::{
    ParquetCompression, ParquetFileWriter, ParquetOptions, RowGroupConfig,
};
use crate::sink::provenance_footer::{self, ProvenanceFooter};
use crate::sink::rewrite_commit::{RewriteCommit, RewriteIntent, STAGING_DIR};
use crate::sink::writer_lease::part_number;
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;

/// Maximum number of rows of a batch while records are copied.
const ROWS: usize = 8192;

/// The properties that files must have in common to be merged.
#[derive(Clone)]
pub(super) struct MergeKey {
    pub(super) identity: OutputIdentity,
    pub(super) schema: SchemaRef,
    pub(super) compression: ParquetCompression,
}

/// A data file that latentflow wrote.
pub(super) struct DatasetFile {
    pub(super) file: DataFile,
    pub(super) rows: u64,
    pub(super) coverage: Coverage,
}

/// A data file that may be rewritten, with its merge key.
pub(super) struct RewriteCandidate {
    pub(super) kind: MergeKey,
    pub(super) file: DatasetFile,
}

impl RewriteCandidate {
    /// Reads the footer of a file. Returns `None` if another program wrote the file.
    pub(super) fn read(file: DataFile) -> Result<Option<Self>, StageError> {
        let metadata = file.metadata()?;
        let Some(footer) = ProvenanceFooter::from_metadata(&file.location, &metadata)? else {
            return Ok(None);
        };
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let compression = compression(&metadata);
        let metadata = ArrowReaderMetadata::try_new(metadata.into(), ArrowReaderOptions::new());
        let metadata =
            metadata.map_err(|error| StageError::Other(format!("{}: {error}", file.location)))?;
        let kind = MergeKey {
            identity: footer.identity,
            schema: plain(metadata.schema()),
            compression,
        };
        Ok(Some(Self {
            kind,
            file: DatasetFile {
                file,
                rows,
                coverage: footer.coverage,
            },
        }))
    }
}

/// The schema without the footer entries of latentflow, which the reader adds to its metadata and
/// which describe the file rather than the columns.
fn plain(schema: &Schema) -> SchemaRef {
    let kept = schema
        .metadata()
        .iter()
        .filter(|(key, _)| !key.starts_with(provenance_footer::KEY_PREFIX));
    let metadata: HashMap<String, String> = kept
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// The compression of the first column, which is that of all columns.
fn compression(metadata: &ParquetMetaData) -> ParquetCompression {
    let first = metadata
        .row_groups()
        .first()
        .and_then(|group| group.columns().first());
    match first.map(ColumnChunkMetaData::compression) {
        Some(Codec::SNAPPY) => ParquetCompression::Snappy,
        Some(Codec::LZ4 | Codec::LZ4_RAW) => ParquetCompression::Lz4,
        Some(Codec::UNCOMPRESSED) => ParquetCompression::None,
        _ => ParquetCompression::Zstd,
    }
}

/// The exclusive right to rewrite files of a folder, which is held until it is dropped.
pub(super) struct DatasetRewrite<'a> {
    folder: &'a Path,
    _lock: File,
}

/// A file in a list of files that cannot be read.
pub(super) struct UnreadableFile {
    /// The index of the file in the list.
    pub(super) index: usize,
    pub(super) reason: String,
}

impl<'a> DatasetRewrite<'a> {
    /// Starts a rewrite, and completes or reverts a replacement that a crash has interrupted.
    ///
    /// # Errors
    /// If another rewrite of the folder is running, or if a file cannot be read, written or
    /// removed.
    pub(super) fn begin(folder: &'a Path) -> Result<Self, StageError> {
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
    pub(super) fn files(&self) -> Result<Vec<DataFile>, StageError> {
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
    pub(super) fn end(self) -> Result<(), StageError> {
        self.clear()
    }

    fn staging_dir(&self) -> PathBuf {
        self.folder.join(STAGING_DIR)
    }

    /// Removes the staging folder with files that have not become visible.
    fn clear(&self) -> Result<(), StageError> {
        match fs::remove_dir_all(self.staging_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StageError::io(self.staging_dir())(error))
            }
            _ => Ok(()),
        }
    }

    /// Copies the records of files, changed by `change`, into one file that replaces them and has
    /// the name of the last one. Returns its size. Its modification time is the latest of the
    /// files.
    ///
    /// # Errors
    /// If a file cannot be written, if one of the files was changed in the meantime, or if `change`
    /// fails.
    pub(super) fn replace(
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
            StageError::Other(format!("{}: {}", last.file.location, reasons.join("; ")))
        })?;
        let path = self.staging_dir().join(&last.file.entry.name);
        let mut part = ParquetFileWriter::begin(Location::from(path.as_path()), None, &format)?;
        let mut coverage = Coverage::default();
        for (index, file) in files.iter().enumerate() {
            if let Err(reason) = file.copy(&mut part, &change)? {
                return Ok(Err(UnreadableFile { index, reason }));
            }
            coverage.union(&file.coverage);
        }
        let footer = ProvenanceFooter::new(kind.identity.clone(), coverage);
        let written = part.finish(&footer, || Ok(()))?;
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
                return Err(StageError::Other(format!(
                    "{}: was changed or removed while it was copied; no file was replaced; run \
                     again",
                    file.location
                )));
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
        StageError::Other(format!(
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

impl DatasetFile {
    /// Appends all records to `part`. Returns the reason if they cannot be read.
    fn copy(
        &self,
        part: &mut ParquetFileWriter,
        change: &impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
    ) -> Result<Result<(), String>, StageError> {
        let (location, before) = (&self.file.location, part.records());
        if let Err(reason) = self.read(None, |records| part.write(&change(records)?))? {
            return Ok(Err(reason));
        }
        Ok(match part.records() - before {
            read if read == self.rows => Ok(()),
            read => Err(format!(
                "{location}: cannot be read: its footer records {} rows, but it has {read}",
                self.rows
            )),
        })
    }

    /// Calls `with` for all records, or for the given columns of them. Reads one row group at a
    /// time, so that memory does not hold several large ones. Returns the reason if they cannot be
    /// read.
    ///
    /// # Errors
    /// Those of `with`, and an error if the file cannot be opened.
    pub(super) fn read(
        &self,
        columns: Option<&[&str]>,
        mut with: impl FnMut(RecordBatch) -> Result<(), StageError>,
    ) -> Result<Result<(), String>, StageError> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Ok(Err(format!(
                "{}: cannot be read: {error}",
                self.file.location
            )))
        };
        let metadata =
            match ArrowReaderMetadata::load(&self.file.open()?, ArrowReaderOptions::new()) {
                Ok(metadata) => metadata,
                Err(error) => return unreadable(&error),
            };
        for group in 0..metadata.metadata().num_row_groups() {
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
                self.file.open()?,
                metadata.clone(),
            );
            let mask = columns.map(|columns| {
                ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied())
            });
            let reader = reader.with_projection(mask.unwrap_or_else(ProjectionMask::all));
            let reader = match reader
                .with_row_groups(vec![group])
                .with_batch_size(ROWS)
                .build()
            {
                Ok(reader) => reader,
                Err(error) => return unreadable(&error),
            };
            for records in reader {
                match records {
                    Ok(records) => with(records)?,
                    Err(error) => return unreadable(&error),
                }
            }
        }
        Ok(Ok(()))
    }
}
