//! The inputs of sources over files: the files that exist, their identity across runs, and the journals of both.

pub(crate) mod append_log;
pub(crate) mod arrival_log;
pub(crate) mod compression;
pub(crate) mod content_digest;
pub(crate) mod digest_log;
pub(crate) mod file_checkpoints;
pub(crate) mod file_identity;
pub(crate) mod file_reference;
pub(crate) mod file_set;
pub(crate) mod hive_partitions;
pub(crate) mod input_file;
pub(crate) mod journal_lines;
pub(crate) mod listed_file;
pub(crate) mod listing;
pub(crate) mod listing_journal;
pub(crate) mod missing_rows;
pub(crate) mod object_prefetch;
pub(crate) mod read_end;
pub(crate) mod root_folder;
pub(crate) mod share;
pub(crate) mod skipped_files;
pub(crate) mod stat_cache;

use crate::error::StageError;
use crate::storage::Location;

/// Deletes the listings and checkpoints of a stage, so that its next run lists all files again.
///
/// # Errors
/// If a journal cannot be removed.
pub(crate) fn delete_state(stage: &str, state: &Location) -> Result<(), StageError> {
    file_checkpoints::remove_records(stage, state)?;
    listing_journal::remove_journal(stage, state)
}

/// Deletes the record of the folder that a stage has read, so that its next run accepts the current
/// folder.
///
/// # Errors
/// If the record cannot be removed.
pub(crate) fn accept_folder(stage: &str, state: &Location) -> Result<(), StageError> {
    root_folder::RootRecord::remove_record(stage, state)
}
