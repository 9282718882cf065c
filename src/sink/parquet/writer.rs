//! The writer of a dataset: files that roll over, and their commits.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::batch::Batch;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::sink::parquet::config::RollingPolicy;
use crate::sink::parquet::file::ParquetFileWriter;
use crate::sink::parquet::folder::{ClaimedFolder, FolderContents};
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::options::ParquetOptions;
use crate::sink::parquet::stored_columns::StoredColumns;
use crate::sink::{BatchEncoder, CommitProgress, CommitStats, OutputIdentity, SinkWriter};
use crate::storage::Location;

/// Maximum number of files whose footers a run reads when it starts. The snapshot includes the
/// history of earlier files.
pub(super) const FOLD_FILES: u32 = 256;

pub(super) struct ParquetWriter {
    pub(super) folder: Location,
    pub(super) columns: StoredColumns,
    pub(super) format: ParquetOptions,
    pub(super) file: RollingPolicy,
    pub(super) identity: OutputIdentity,
    /// The claim and the current contents of the folder.
    pub(super) claimed: ClaimedFolder,
    pub(super) open_file: Option<ParquetFileWriter>,
    /// The source rows of all batches since the last completed file.
    pub(super) taken: Coverage,
    pub(super) written: CommitStats,
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
        let stored = self.columns.store(&batch.records)?;
        let records = self.columns.name_writer(stored, &self.identity)?;
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
    pub(super) fn fold_when_long(&mut self) -> Result<(), StageError> {
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
