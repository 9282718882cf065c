//! The folder of a dataset: its lease, its files, and their history.

use arrow::datatypes::SchemaRef;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::sink::OutputHistory;
use crate::sink::dataset::data_files::{DataFile, data_files};
use crate::sink::dataset::rewrite_commit::RewriteCommit;
use crate::sink::ownership::writer_lease::{WriterLease, part_number};
use crate::sink::parquet::coverage_snapshot;
use crate::sink::parquet::coverage_snapshot::CoverageSnapshot;
use crate::storage::Location;

/// A folder that this process may write to, and its contents.
pub(super) struct ClaimedFolder {
    pub(super) lease: WriterLease,
    pub(super) contents: FolderContents,
}

/// The contents of a folder.
pub(super) struct FolderContents {
    pub(super) snapshot: CoverageSnapshot,
    /// The files that `snapshot` was read from.
    snapshots: Vec<Location>,
    /// The history from the footers of files that the snapshot does not include.
    pub(super) files: OutputHistory,
    /// The number of the next file.
    pub(super) next: u32,
    /// The columns of the latest file.
    pub(super) schema: Option<SchemaRef>,
}

impl ClaimedFolder {
    pub(super) fn claim(folder: &Location) -> Result<Self, StageError> {
        let lease = WriterLease::acquire(folder)?;
        // Files must not be read during the replacement step of a compaction.
        let _rewrite_lock = folder.local().map(RewriteCommit::begin).transpose()?;
        Ok(Self {
            lease,
            contents: FolderContents::read(folder)?,
        })
    }

    /// Writes the snapshot durably, and removes the snapshots that it was read from.
    pub(super) fn save_snapshot(&mut self, folder: &Location) -> Result<(), StageError> {
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
    pub(super) fn read(folder: &Location) -> Result<Self, StageError> {
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

    pub(super) fn history(&self) -> OutputHistory {
        let mut history = self.snapshot.history.clone();
        history.union(&self.files);
        history
    }

    pub(super) fn add(&mut self, folder: &Location, file: &DataFile) -> Result<(), StageError> {
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
                return Err(StageError::new(
                    ErrorCode::OutputForeign,
                    format!(
                        "{}: this file was not written by latentflow; use a separate folder for the \
                     output, or move the file away",
                        file.location
                    ),
                ));
            }
        }
        if let Some(number) = number.filter(|&number| number >= self.next) {
            self.next = number.checked_add(1).ok_or_else(|| {
                StageError::new(
                    ErrorCode::OutputExhausted,
                    format!("{folder}: all file numbers are used; use another path"),
                )
            })?;
        }
        Ok(())
    }
}
