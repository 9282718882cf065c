//! Files that are written under a temporary name until their commit.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::batch::Batch;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::temp_path;
use crate::sink::images::file_names::rename_no_replace;
use crate::sink::images::file_naming::hash;
use crate::sink::images::writer::SUFFIXES;
use crate::sink::ownership::file_lock::FileLock;
use crate::sink::parquet::coverage_snapshot::CoverageSnapshot;
use crate::storage::Location;

/// A locked output and its snapshot.
pub(in crate::sink::images) struct ClaimedImageFolder {
    pub(in crate::sink::images) path: PathBuf,
    pub(in crate::sink::images) lock: FileLock,
    pub(in crate::sink::images) snapshot: CoverageSnapshot,
    pub(in crate::sink::images) snapshot_file: Location,
}

impl ClaimedImageFolder {
    /// Whether the output was started by a version that did not record names.
    pub(in crate::sink::images) fn is_legacy(&self) -> bool {
        self.snapshot
            .naming
            .map_or(!self.snapshot.history.writers.is_empty(), |naming| {
                naming.former
            })
    }
}

/// A file with a temporary name.
pub(super) struct UnnamedFile {
    /// The final name relative to the folder.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Whether a file with the final name exists and belongs to the same record.
    pub(super) replaces: bool,
}

impl UnnamedFile {
    pub(super) fn rename(&self) -> Result<(), StageError> {
        let (from, to) = (temp_path(&self.path), &self.path);
        let renamed = if self.replaces {
            fs::rename(&from, to)
        } else {
            rename_no_replace(&from, to)
        };
        renamed.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => StageError::new(
                ErrorCode::OutputForeign,
                format!(
                    "{}: another program has created this file during the run, and it is not \
                     replaced; run again to continue with another name",
                    to.display()
                ),
            ),
            _ => StageError::io(to)(error),
        })
    }
}

/// The names to try for a record's file, from the preferred one to one directly in the folder that
/// no other record has.
pub(super) fn names<'a>(
    path: &'a str,
    extension: &'a str,
    record: &'a impl Fn() -> String,
) -> impl Iterator<Item = String> + 'a {
    let plain = std::iter::once_with(move || format!("{path}.{extension}"));
    let suffixed = SUFFIXES
        .into_iter()
        .map(move |digits| format!("{path}-{}.{extension}", &record()[..digits]));
    plain.chain(suffixed).chain(std::iter::once_with(move || {
        format!("%~{}.{extension}", record())
    }))
}

/// The hash of a record's identity: its split, its row, and its number among the records of this
/// row, of which each arm of the pipeline may produce one.
pub(super) fn record_hash(batch: &Batch, index: usize) -> String {
    let ordinal = batch.row_ordinals[index];
    let arm = batch.row_ordinals[..index]
        .iter()
        .filter(|&&before| before == ordinal)
        .count();
    let (split, row) = batch
        .provenance
        .identity(ordinal)
        .map_or(("", u64::from(ordinal)), |identity| {
            (identity.split, identity.row)
        });
    hash(&format!("{row} {arm} {split}"))
}
