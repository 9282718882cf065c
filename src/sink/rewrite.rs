//! Files of a dataset that are copied, with their provenance, into one that takes their place.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
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
use crate::fs_durable::{create_dir_all_synced, state_file};
use crate::sink::data_files::{DataFile, data_files};
use crate::sink::parquet_file::{
    ParquetCompression, ParquetFileWriter, ParquetOptions, RowGroupConfig,
};
use crate::sink::provenance_footer::{self, ProvenanceFooter};
use crate::sink::rewrite_commit::{RewriteCommit, RewriteIntent, STAGING_DIR};
use crate::sink::writer_lease::part_number;
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;

/// Rows that are copied at a time.
const ROWS: usize = 8192;

/// What files must have in common to become one.
#[derive(Clone)]
pub(super) struct MergeKey {
    pub(super) identity: OutputIdentity,
    pub(super) schema: SchemaRef,
    pub(super) compression: ParquetCompression,
}

/// A file of ours.
pub(super) struct DatasetFile {
    pub(super) file: DataFile,
    pub(super) rows: u64,
    pub(super) coverage: Coverage,
}

pub(super) struct RewriteCandidate {
    pub(super) kind: MergeKey,
    pub(super) file: DatasetFile,
}

impl RewriteCandidate {
    /// `None` where it is another program's.
    pub(super) fn of(file: DataFile) -> Result<Option<Self>, StageError> {
        let metadata = file.metadata()?;
        let Some(footer) = ProvenanceFooter::of(&file.location, &metadata)? else {
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

/// The columns, and what is said of them; the reader adds what the footer says of the file, which
/// is no part of that.
fn plain(schema: &Schema) -> SchemaRef {
    let said = schema
        .metadata()
        .iter()
        .filter(|(key, _)| !key.starts_with(provenance_footer::KEYS));
    let said: HashMap<String, String> = said
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), said))
}

/// How the first column is compressed: as all others are.
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

/// The right to rewrite files of a folder, held as long as it lives: one at a time has it.
pub(super) struct DatasetRewrite<'a> {
    folder: &'a Path,
    _lock: File,
}

/// A file of several that cannot be read.
pub(super) struct UnreadableFile {
    /// Its place among them.
    pub(super) place: usize,
    pub(super) reason: String,
}

impl<'a> DatasetRewrite<'a> {
    /// Ends, or takes back, an exchange that a crash cut short.
    ///
    /// # Errors
    /// When another is at work in the folder, or the system refuses.
    pub(super) fn begin(folder: &'a Path) -> Result<Self, StageError> {
        let rewrite = Self {
            folder,
            _lock: lock(folder)?,
        };
        drop(RewriteCommit::begin(folder)?);
        rewrite.clear()?;
        Ok(rewrite)
    }

    /// The data files, in the order of their numbers.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn files(&self) -> Result<Vec<DataFile>, StageError> {
        let files = data_files(&self.folder.into())?.into_iter();
        let mut files: Vec<_> = files
            .filter_map(|file| Some((part_number(&file.entry.name)?, file)))
            .collect();
        files.sort_by_key(|(number, _)| *number);
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    /// Leaves nothing behind.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn end(self) -> Result<(), StageError> {
        self.clear()
    }

    fn place(&self) -> PathBuf {
        self.folder.join(STAGING_DIR)
    }

    /// Removes the folder of files that have not taken their place.
    fn clear(&self) -> Result<(), StageError> {
        match fs::remove_dir_all(self.place()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StageError::io(self.place())(error))
            }
            _ => Ok(()),
        }
    }

    /// Copies files into one, records as `change` makes them, and puts it in the place of the last;
    /// says how large it is. It is as old as the youngest of them.
    ///
    /// # Errors
    /// When the system refuses, a file was changed meanwhile, or `change` fails.
    pub(super) fn replace(
        &self,
        kind: &MergeKey,
        files: &[DatasetFile],
        change: impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
    ) -> Result<Result<u64, UnreadableFile>, StageError> {
        let Some(last) = files.last() else {
            return Ok(Ok(0));
        };
        create_dir_all_synced(&self.place())?;
        let format = ParquetOptions::new(
            SchemaRef::clone(&kind.schema),
            kind.compression,
            RowGroupConfig::default(),
        );
        let format = format.map_err(|faults| {
            let reasons: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::Other(format!("{}: {}", last.file.location, reasons.join("; ")))
        })?;
        let path = self.place().join(&last.file.entry.name);
        let mut part = ParquetFileWriter::begin(Location::from(path.as_path()), None, &format)?;
        let mut coverage = Coverage::default();
        for (place, file) in files.iter().enumerate() {
            if let Err(reason) = file.copy(&mut part, &change)? {
                return Ok(Err(UnreadableFile { place, reason }));
            }
            coverage.union(&file.coverage);
        }
        let footer = ProvenanceFooter::new(kind.identity.clone(), coverage);
        let written = part.finish(&footer, || Ok(()))?;
        let youngest = files.iter().map(|file| file.file.entry.mtime_ns).max();
        // Who may read it does not change by its being rewritten.
        let same = last.file.location.local().map_or(Ok(()), |old| {
            let permissions = fs::metadata(old)?.permissions();
            fs::set_permissions(&path, permissions)
        });
        same.and_then(|()| set_time(&path, youngest))
            .map_err(StageError::io(&path))?;
        self.exchange(files, written.bytes).map(Ok)
    }

    fn exchange(&self, files: &[DatasetFile], bytes: u64) -> Result<u64, StageError> {
        let exchange = RewriteCommit::begin(self.folder)?;
        for DatasetFile { file, .. } in files {
            let now = file
                .location
                .file()?
                .map(|entry| (entry.size, entry.mtime_ns));
            if now != Some((file.entry.size, file.entry.mtime_ns)) {
                let message =
                    "was changed or removed while it was copied; nothing was exchanged, run again";
                return Err(StageError::Other(format!("{}: {message}", file.location)));
            }
        }
        let inputs: Vec<String> = files
            .iter()
            .map(|file| file.file.entry.name.clone())
            .collect();
        let merged = inputs.last().cloned().unwrap_or_default();
        exchange.replace(&RewriteIntent {
            merged,
            bytes,
            inputs,
        })?;
        Ok(bytes)
    }
}

/// One at a time rewrites the files of a folder.
fn lock(folder: &Path) -> Result<File, StageError> {
    let state = folder.join(STATE_DIR);
    create_dir_all_synced(&state)?;
    let path = state.join("compact-lock");
    let file = state_file()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(StageError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let folder = folder.display();
            Err(StageError::Other(format!(
                "{folder}: another compaction is at work here; wait for it to end"
            )))
        }
        Err(TryLockError::Error(error)) => Err(StageError::io(&path)(error)),
    }
}

/// Gives a file the time of its last change, in nanoseconds since 1970.
fn set_time(path: &Path, nanoseconds: Option<i64>) -> std::io::Result<()> {
    let Some(since) = nanoseconds.and_then(|time| u64::try_from(time).ok()) else {
        return Ok(());
    };
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(since))?;
    file.sync_all()
}

impl DatasetFile {
    /// Appends all records, or says why they cannot be read.
    fn copy(
        &self,
        part: &mut ParquetFileWriter,
        change: &impl Fn(RecordBatch) -> Result<RecordBatch, StageError>,
    ) -> Result<Result<(), String>, StageError> {
        let (place, before) = (&self.file.location, part.records());
        if let Err(reason) = self.read(None, |records| part.write(&change(records)?))? {
            return Ok(Err(reason));
        }
        Ok(match part.records() - before {
            read if read == self.rows => Ok(()),
            read => Err(format!(
                "{place}: cannot be read: its footer tells of {} records, {read} are there",
                self.rows
            )),
        })
    }

    /// Gives all records to `with`, those of one row group at a time, so that large ones do not add
    /// up; only `columns`, where some are named. Says why they cannot be read.
    ///
    /// # Errors
    /// Those of `with`, and when the system refuses to open the file.
    pub(super) fn read(
        &self,
        columns: Option<&[&str]>,
        mut with: impl FnMut(RecordBatch) -> Result<(), StageError>,
    ) -> Result<Result<(), String>, StageError> {
        let broken = |error: &dyn std::fmt::Display| {
            Ok(Err(format!(
                "{}: cannot be read: {error}",
                self.file.location
            )))
        };
        let metadata =
            match ArrowReaderMetadata::load(&self.file.open()?, ArrowReaderOptions::new()) {
                Ok(metadata) => metadata,
                Err(error) => return broken(&error),
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
                Err(error) => return broken(&error),
            };
            for records in reader {
                match records {
                    Ok(records) => with(records)?,
                    Err(error) => return broken(&error),
                }
            }
        }
        Ok(Ok(()))
    }
}
