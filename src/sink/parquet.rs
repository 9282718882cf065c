//! The sink `parquet`, which writes records to Parquet files that become visible when complete.

use std::borrow::Cow;
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arrow_size::record_bytes;
use crate::batch::Batch;
use crate::coverage::Coverage;
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::fs_durable::{create_private_dir, fsync_dir, remove_stale_temp_files};
use crate::plan_context::PlanContext;
use crate::sink::column_selection::ColumnSelection;
use crate::sink::coverage_snapshot::{self, CoverageSnapshot};
use crate::sink::data_files::{DataFile, data_files};
use crate::sink::dataset_schema::DatasetSchema;
use crate::sink::parquet_file::{
    ParquetCompression, ParquetFileWriter, ParquetOptions, RowGroupConfig,
};
use crate::sink::provenance_footer::ProvenanceFooter;
use crate::sink::rewrite_commit::RewriteCommit;
use crate::sink::stored_columns::StoredColumns;
use crate::sink::writer_lease::{WriterLease, part_number};
use crate::sink::{
    BatchEncoder, CommitProgress, CommitStats, OutputHistory, OutputIdentity, STATE_DIR, Sink,
    SinkConfig, SinkWriter,
};
use crate::source::WrittenFiles;
use crate::storage::Location;
use crate::units::ByteSize;

/// Options of the sink `parquet`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ParquetSinkConfig {
    /// The folder of the files, which is created if it does not exist. It holds only the output of
    /// this stage. May be `s3://bucket/prefix` in a build with object stores.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    pub path: PathBuf,
    /// The columns to write, in this order. Default: all columns.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub columns: Option<Vec<String>>,
    /// Limits of a file, after which the next one starts.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub file: RollingPolicy,
    /// Limits of a row group.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub row_group: RowGroupConfig,
    /// Compression of pages.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub compression: ParquetCompression,
    /// Whether the files hold originals of records, which only the user may read.
    #[serde(skip)]
    is_private: bool,
}

/// Limits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RollingPolicy {
    /// Maximum size of a file in bytes before encoding. A batch is not split for this limit: a
    /// single larger batch gets its own file. Default: 256 MiB.
    pub bytes: ByteSize,
    /// Maximum number of records of a file. A larger batch is split, except that the records of one
    /// source row, such as the tiles of an image, stay together. `latentflow compact` merges such
    /// files, and limits them with its option `--records`. Default: unlimited.
    pub records: Option<NonZeroU64>,
}

impl Default for RollingPolicy {
    fn default() -> Self {
        Self {
            bytes: ByteSize(256 << 20),
            records: None,
        }
    }
}

impl SinkConfig for ParquetSinkConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        self.sink_in(context.output_folder(&self.path), input)
    }
}

impl ParquetSinkConfig {
    /// The options of a rejects dataset: defaults without encoder threads, since rejects are few.
    pub(super) fn new(path: &Path) -> Self {
        let (file, compression) = (RollingPolicy::default(), ParquetCompression::default());
        let row_group = RowGroupConfig {
            encoders: Some(0),
            ..RowGroupConfig::default()
        };
        Self {
            path: path.to_path_buf(),
            columns: None,
            file,
            row_group,
            compression,
            is_private: true,
        }
    }

    /// The sink for records of this schema.
    ///
    /// # Errors
    /// All faults of the options.
    pub(super) fn sink(&mut self, input: &Schema) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        self.sink_in(Location::from_path(&self.path), input)
    }

    /// As [`Self::sink`], in `folder` instead of the configured path.
    fn sink_in(
        &mut self,
        folder: Result<Location, String>,
        input: &Schema,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(ConfigError::new("path", "is empty; expected a folder"));
        }
        for (key, bytes) in [
            ("file.bytes", self.file.bytes),
            ("row_group.bytes", self.row_group.bytes),
        ] {
            if bytes.0 == 0 {
                faults.push(ConfigError::new(
                    key,
                    "is 0; expected a size such as \"64MiB\"",
                ));
            }
        }
        let folder = faults.record(folder.map_err(|message| ConfigError::new("path", message)));
        let selected = ColumnSelection::select(self.columns.as_deref(), input);
        let planned = selected.and_then(|columns| {
            self.columns = Some(columns.names());
            let columns = StoredColumns::new(columns);
            let format = ParquetOptions::new(
                SchemaRef::clone(columns.schema()),
                self.compression,
                self.row_group,
            )?;
            Ok((columns, format))
        });
        match (planned, folder) {
            (Ok((columns, format)), Some(folder)) if faults.is_empty() => {
                let file = self.file;
                let is_private = self.is_private;
                Ok(Box::new(ParquetSink {
                    folder,
                    columns,
                    format,
                    compression: self.compression,
                    file,
                    is_private,
                    claimed: RefCell::default(),
                    latest_schema: RefCell::default(),
                }))
            }
            (Ok(_), _) => Err(faults),
            (Err(more), _) => Err(faults.into_iter().chain(more).collect()),
        }
    }
}

struct ParquetSink {
    folder: Location,
    columns: StoredColumns,
    format: ParquetOptions,
    compression: ParquetCompression,
    file: RollingPolicy,
    /// Whether only the user may access the folder, if the sink creates it.
    is_private: bool,
    /// Set by the first access, and kept until the sink is opened. Without a claim another process
    /// could add files after they were listed.
    claimed: RefCell<Option<ClaimedFolder>>,
    /// The columns of the latest file, once the history was read.
    latest_schema: RefCell<Option<SchemaRef>>,
}

/// A folder that this process may write to, and its contents.
struct ClaimedFolder {
    lease: WriterLease,
    contents: FolderContents,
}

/// The contents of a folder.
struct FolderContents {
    snapshot: CoverageSnapshot,
    /// The files that `snapshot` was read from.
    snapshots: Vec<Location>,
    /// The history from the footers of files that the snapshot does not include.
    files: OutputHistory,
    /// The number of the next file.
    next: u32,
    /// The columns of the latest file.
    schema: Option<SchemaRef>,
}

impl ClaimedFolder {
    fn claim(folder: &Location) -> Result<Self, StageError> {
        let lease = WriterLease::acquire(folder)?;
        // Files must not be read during the replacement step of a compaction.
        let _rewrite_lock = folder.local().map(RewriteCommit::begin).transpose()?;
        Ok(Self {
            lease,
            contents: FolderContents::read(folder)?,
        })
    }

    /// Writes the snapshot durably, and removes the snapshots that it was read from.
    fn save_snapshot(&mut self, folder: &Location) -> Result<(), StageError> {
        let FolderContents {
            snapshot,
            snapshots,
            ..
        } = &mut self.contents;
        let location = self.lease.snapshot_location(folder);
        self.lease.check()?;
        snapshot.save(&location)?;
        for old in snapshots.drain(..).filter(|old| *old != location) {
            if let Err(error) = old.remove() {
                tracing::debug!(%error, "cannot remove an old coverage snapshot");
            }
        }
        Ok(())
    }
}

impl FolderContents {
    fn read(folder: &Location) -> Result<Self, StageError> {
        // The list is read first, so that the snapshot includes all listed files.
        let snapshots = coverage_snapshot::locations(folder)?;
        let snapshot = CoverageSnapshot::load(folder)?;
        let mut contents = Self {
            next: snapshot.folded_below,
            files: OutputHistory::default(),
            schema: None,
            snapshot,
            snapshots,
        };
        let files = data_files(folder)?;
        for file in &files {
            contents.add(folder, file)?;
        }
        let latest = files
            .iter()
            .filter_map(|file| Some((part_number(&file.entry.name)?, file)))
            .max_by_key(|(number, _)| *number);
        contents.schema = latest.map(|(_, file)| file.schema()).transpose()?;
        Ok(contents)
    }

    fn history(&self) -> OutputHistory {
        let mut history = self.snapshot.history.clone();
        history.union(&self.files);
        history
    }

    fn add(&mut self, folder: &Location, file: &DataFile) -> Result<(), StageError> {
        let number = part_number(&file.entry.name);
        if number.is_some_and(|number| number < self.snapshot.folded_below) {
            return Ok(());
        }
        match file.footer()? {
            Some(footer) => self.files.add(&footer.identity, &footer.coverage),
            // A user may have merged folded files with another program. The snapshot includes the
            // rows of such a file.
            None if self.snapshot.folded_below > 0 => {}
            None => {
                return Err(StageError::Other(format!(
                    "{}: this file was not written by latentflow; use a separate folder for the \
                     output, or move the file away",
                    file.location
                )));
            }
        }
        if let Some(number) = number.filter(|&number| number >= self.next) {
            self.next = number.checked_add(1).ok_or_else(|| {
                StageError::Other(format!(
                    "{folder}: all file numbers are used; use another path"
                ))
            })?;
        }
        Ok(())
    }
}

impl ParquetSink {
    /// The columns of the next file; `None` if they are those of the plan.
    ///
    /// # Errors
    /// [`StageError::Refused`] if readers do not unify them with the files of earlier runs.
    fn next_schema(&self, latest: Option<&SchemaRef>) -> Result<Option<DatasetSchema>, StageError> {
        let planned = self.columns.schema();
        latest
            .filter(|dataset| *dataset != planned)
            .map(|dataset| DatasetSchema::next(&self.folder, dataset, planned))
            .transpose()
    }

    fn claimed(&self) -> Result<ClaimedFolder, StageError> {
        if let (true, Some(folder)) = (self.is_private, self.folder.local()) {
            create_private_dir(folder)?;
        }
        self.claimed
            .take()
            .map_or_else(|| ClaimedFolder::claim(&self.folder), Ok)
    }
}

impl Sink for ParquetSink {
    fn folder(&self) -> Option<Location> {
        Some(self.folder.clone())
    }

    fn written_files(&self) -> Option<WrittenFiles<'_>> {
        Some(WrittenFiles {
            folder: &self.folder,
            extension: "parquet",
            name: Some("part-00000.parquet"),
        })
    }

    fn history(&self) -> Result<OutputHistory, StageError> {
        let found = self.claimed()?;
        let history = found.contents.history();
        self.latest_schema.replace(found.contents.schema.clone());
        self.claimed.replace(Some(found));
        Ok(history)
    }

    fn read_history(&self) -> Result<OutputHistory, StageError> {
        let read = || FolderContents::read(&self.folder);
        // Another process may replace files between the listing and the reads.
        let contents = read().or_else(|_| read())?;
        self.latest_schema.replace(contents.schema.clone());
        Ok(contents.history())
    }

    fn check_columns(&self) -> Result<(), StageError> {
        self.next_schema(self.latest_schema.borrow().as_ref())
            .map(drop)
    }

    fn allow_mixing(&self, digests: &[String]) -> Result<(), StageError> {
        let mut found = self.claimed()?;
        found.contents.snapshot.history.allow_mixing(digests);
        found.save_snapshot(&self.folder)?;
        self.claimed.replace(Some(found));
        Ok(())
    }

    fn reset(&self, remove: bool) -> Result<CommitStats, StageError> {
        // In a bucket a claim would stop a running pipeline, which counting must not do.
        let claims = remove || self.folder.local().is_some();
        let _claim = claims
            .then(|| WriterLease::acquire(&self.folder))
            .transpose()?;
        let _rewrite_lock = self.folder.local().map(RewriteCommit::begin).transpose()?;
        let mut found = CommitStats::default();
        // The snapshot is removed first. After a crash in between, the remaining files still
        // account for their rows, while the rows of folded files are recorded only in the snapshot.
        if remove {
            coverage_snapshot::locations(&self.folder)?
                .iter()
                .try_for_each(Location::remove)?;
        }
        for file in data_files(&self.folder)? {
            let metadata = file.metadata()?;
            if ProvenanceFooter::from_metadata(&file.location, &metadata)?.is_some() {
                found.files += 1;
                found.bytes += file.entry.size;
                found.records += u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
                if remove {
                    file.location.remove()?;
                }
            }
        }
        if let Some(path) = self.folder.local().filter(|_| remove) {
            fsync_dir(path)?;
        }
        Ok(found)
    }

    fn buffer_bytes(&self) -> u64 {
        self.format.buffer_bytes()
    }

    fn embedded_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(self.columns.clone()))
    }

    fn can_reject(&self) -> bool {
        true
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let claimed = self.claimed()?;
        if let Some(path) = self.folder.local() {
            // Subfolders may belong to other sinks that are writing.
            remove_stale_temp_files(path, 1)?;
            remove_stale_temp_files(&path.join(STATE_DIR), usize::MAX)?;
        }
        let next_schema = self.next_schema(claimed.contents.schema.as_ref())?;
        let Self {
            folder,
            mut columns,
            mut format,
            compression,
            file,
            ..
        } = *self;
        if let Some(next) = next_schema {
            format = format.with_schema(SchemaRef::clone(next.schema()), compression)?;
            columns = columns.with_dataset(next);
        }
        let (open_file, taken, written) = (None, Coverage::default(), CommitStats::default());
        let mut writer = ParquetWriter {
            folder,
            columns,
            format,
            file,
            identity,
            claimed,
            open_file,
            taken,
            written,
        };
        writer.fold_when_long()?;
        Ok(Box::new(writer))
    }
}

/// Maximum number of files whose footers a run reads when it starts. The snapshot includes the
/// history of earlier files.
const FOLD_FILES: u32 = 256;

struct ParquetWriter {
    folder: Location,
    columns: StoredColumns,
    format: ParquetOptions,
    file: RollingPolicy,
    identity: OutputIdentity,
    /// The claim and the current contents of the folder.
    claimed: ClaimedFolder,
    open_file: Option<ParquetFileWriter>,
    /// The source rows of all batches since the last completed file.
    taken: Coverage,
    written: CommitStats,
}

impl SinkWriter for ParquetWriter {
    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        let encoder = || Arc::new(self.columns.clone()) as _;
        self.columns.can_fail().then(encoder)
    }

    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        let (mut progress, mut rest) = (CommitProgress::Nothing, Cow::Borrowed(batch));
        while let Some(room) = self.insufficient_room(&rest) {
            let is_new = self.open_file.is_none();
            let (first, others) = rest.split_at_records(room, is_new)?;
            if first.records.num_rows() == 0 && !is_new {
                self.finish_part()?;
                progress = CommitProgress::Before;
                continue;
            }
            progress = progress.max(self.write_to_file(&first)?);
            rest = Cow::Owned(others);
        }
        Ok(progress.max(self.write_to_file(&rest)?))
    }

    fn commit(&mut self) -> Result<(), StageError> {
        if self.open_file.is_some() {
            return self.finish_part();
        }
        if self.taken.is_empty() {
            return Ok(());
        }
        // These rows have no records, so no file accounts for them.
        self.claimed
            .contents
            .snapshot
            .history
            .add(&self.identity, &std::mem::take(&mut self.taken));
        self.claimed.save_snapshot(&self.folder)
    }

    fn switch_identity(&mut self, identity: OutputIdentity) -> Result<(), StageError> {
        if identity.digest != self.identity.digest {
            self.claimed
                .contents
                .snapshot
                .history
                .allow_mixing(&[self.identity.digests(), identity.digests()].concat());
            self.claimed.save_snapshot(&self.folder)?;
        }
        self.identity = identity;
        Ok(())
    }

    fn stats(&self) -> CommitStats {
        self.written
    }
}

impl ParquetWriter {
    /// The number of records that fit into the open file, if the batch has more.
    fn insufficient_room(&self, batch: &Batch) -> Option<usize> {
        let limit = self.file.records?.get();
        let room = limit.saturating_sub(
            self.open_file
                .as_ref()
                .map_or(0, ParquetFileWriter::records),
        );
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        (batch.records.num_rows() > room).then_some(room)
    }

    /// Writes a batch whose number of records fits into one file.
    fn write_to_file(&mut self, batch: &Batch) -> Result<CommitProgress, StageError> {
        let records = self.columns.store(&batch.records)?;
        let mut progress = CommitProgress::Nothing;
        if records.num_rows() > 0 {
            if self
                .open_file
                .as_ref()
                .is_some_and(|part| !self.file.has_room(part, &records))
            {
                self.finish_part()?;
                progress = CommitProgress::Before;
            }
            self.append(&records)?;
        }
        self.taken.insert(&batch.provenance);
        Ok(progress)
    }

    fn append(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        let mut part = match self.open_file.take() {
            Some(part) => part,
            None => {
                let name = self.claimed.lease.part_name(self.claimed.contents.next);
                ParquetFileWriter::begin(
                    self.folder.join(&name),
                    self.claimed.lease.upload_record(),
                    &self.format,
                )?
            }
        };
        // If the write fails, the file is dropped, and its rows must not be committed.
        let taken = std::mem::take(&mut self.taken);
        part.write(records)?;
        self.taken = taken;
        self.open_file = Some(part);
        Ok(())
    }

    fn finish_part(&mut self) -> Result<(), StageError> {
        let Some(part) = self.open_file.take() else {
            return Ok(());
        };
        let footer = ProvenanceFooter::new(self.identity.clone(), std::mem::take(&mut self.taken));
        let file = part.finish(&footer, || self.claimed.lease.check())?;
        let FolderContents { files, next, .. } = &mut self.claimed.contents;
        files.add(&footer.identity, &footer.coverage);
        *next = next.saturating_add(1);
        self.written.files += file.files;
        self.written.bytes += file.bytes;
        self.written.records += file.records;
        self.fold_when_long()
    }

    /// Folds the history of many footers into the snapshot, so that the startup time does not grow
    /// with the number of files.
    fn fold_when_long(&mut self) -> Result<(), StageError> {
        let FolderContents {
            snapshot,
            files,
            next,
            ..
        } = &mut self.claimed.contents;
        if *next - snapshot.folded_below < FOLD_FILES {
            return Ok(());
        }
        snapshot.history.union(&std::mem::take(files));
        snapshot.folded_below = *next;
        self.claimed.save_snapshot(&self.folder)
    }
}

impl RollingPolicy {
    fn has_room(&self, part: &ParquetFileWriter, records: &RecordBatch) -> bool {
        let bytes = part.bytes().saturating_add(record_bytes(records));
        let rows = part.records().saturating_add(records.num_rows() as u64);
        bytes <= self.bytes.0 && self.records.is_none_or(|limit| rows <= limit.get())
    }
}

#[cfg(test)]
mod tests;
