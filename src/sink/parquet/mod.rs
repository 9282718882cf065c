//! The sink `parquet`, which writes records to Parquet files that become visible when complete.

pub(crate) mod config;
pub mod coverage_snapshot;
pub(crate) mod dataset_schema;
pub mod file;
pub(crate) mod folder;
pub mod footer;
pub mod options;
pub(crate) mod row_groups;
pub(crate) mod stored_columns;
pub(crate) mod stored_types;
pub(crate) mod writer;
pub(crate) mod writer_columns;

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::fs_durable::{create_private_dir, fsync_dir, remove_stale_temp_files};
use crate::sink::dataset::data_files::data_files;
use crate::sink::dataset::rewrite_commit::RewriteCommit;
use crate::sink::ownership::writer_lease::WriterLease;
use crate::sink::parquet::config::{ChangeHandling, RollingPolicy};
use crate::sink::parquet::dataset_schema::DatasetSchema;
use crate::sink::parquet::folder::{ClaimedFolder, FolderContents};
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::options::{ParquetCompression, ParquetOptions};
use crate::sink::parquet::stored_columns::StoredColumns;
use crate::sink::parquet::writer::ParquetWriter;
use crate::sink::{
    BatchEncoder, ChangePolicy, CommitStats, OutputHistory, OutputIdentity, STATE_DIR, Sink,
    SinkWriter,
};
use crate::source::WrittenFiles;
use crate::storage::Location;

struct ParquetSink {
    folder: Location,
    columns: StoredColumns,
    format: ParquetOptions,
    compression: ParquetCompression,
    file: RollingPolicy,
    /// Whether only the user may access the folder, if the sink creates it.
    is_private: bool,
    on_change: ChangeHandling,
    /// Set by the first access, and kept until the sink is opened. Without a claim another process
    /// could add files after they were listed.
    claimed: RefCell<Option<ClaimedFolder>>,
    /// The columns of the latest file, once the history was read.
    latest_schema: RefCell<Option<SchemaRef>>,
}

impl ParquetSink {
    /// The columns of the next file; `None` if they are those of the plan.
    ///
    /// # Errors
    /// A refusal if readers do not unify them with the files of earlier runs.
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
            extensions: &["parquet"],
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

    fn change_policy(&self) -> ChangePolicy {
        match self.on_change {
            ChangeHandling::Refuse => ChangePolicy::Refuse,
            ChangeHandling::Continue => ChangePolicy::AllowModelsAndThresholds,
        }
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
        Some(Arc::new(self.columns.without_writer()))
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

#[cfg(test)]
mod tests;
