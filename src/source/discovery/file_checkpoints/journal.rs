//! The journal of checkpoints in the state folder.

use std::fs::File;
use std::io::Write;

use crate::error::StageError;
use crate::json::to_json_lines;
use crate::source::discovery::file_checkpoints::checkpoint::{
    CheckpointMap, FileCheckpoint, MAX_SPLITS,
};
use crate::storage::Location;

/// Number of lines per valid line above which the file is rewritten.
pub(super) const STALE: usize = 4;

pub(super) enum CheckpointFiles {
    /// Files on a local disk.
    Local {
        records: File,
        reading: File,
        path: std::path::PathBuf,
    },
    /// An object, which is written when the source has ended, if there are new checkpoints.
    Remote { location: Location, is_new: bool },
}

/// The checkpoints of earlier runs.
pub(super) struct LoadedCheckpoints {
    pub(super) records: CheckpointMap,
    /// The checkpoint of the file that was being read, if it has more rows than the line of its
    /// split. It is also part of `records`.
    pub(super) begun: Option<FileCheckpoint>,
    /// Number of lines of the file.
    pub(super) lines: usize,
    /// Whether the last line lacks a line end.
    pub(super) is_truncated: bool,
}

pub(super) fn load(stage: &str, state: &Location) -> Result<LoadedCheckpoints, StageError> {
    let (mut records, mut lines) = (CheckpointMap::new(), 0);
    let location = records_of(stage, state);
    let text = location.read()?.unwrap_or_default();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        match serde_json::from_slice(line) {
            Ok(record) => add(&mut records, record),
            // The machine lost power while the line was written. Its file counts as unknown.
            Err(error) => tracing::warn!(
                path = %location,
                line = lines,
                %error,
                "skipping an invalid line of the file checkpoints"
            ),
        }
    }
    let begun = last_begun(&reading_of(stage, state))?.filter(|begun| {
        let known = of(&records, &begun.file.name)
            .iter()
            .find(|known| known.split == begun.split);
        known.is_none_or(|known| known.rows < begun.rows)
    });
    if let Some(begun) = &begun {
        add(&mut records, begun.clone());
    }
    let is_truncated = text.last().is_some_and(|&byte| byte != b'\n');
    Ok(LoadedCheckpoints {
        records,
        begun,
        lines,
        is_truncated,
    })
}

/// Reads the checkpoints of earlier runs.
///
/// # Errors
/// If they cannot be read.
pub(super) fn read(stage: &str, state: &Location) -> Result<CheckpointMap, StageError> {
    Ok(load(stage, state)?.records)
}

/// The checkpoints of a file name, with the newest split last.
pub(super) fn of<'a>(records: &'a CheckpointMap, name: &str) -> &'a [FileCheckpoint] {
    records.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// Removes the checkpoints of a stage.
///
/// # Errors
/// If a file cannot be removed.
pub(crate) fn remove_records(stage: &str, state: &Location) -> Result<(), StageError> {
    reading_of(stage, state).remove()?;
    records_of(stage, state).remove()
}

pub(super) fn records_of(stage: &str, state: &Location) -> Location {
    state.join("inputs").join(&format!("{stage}.ndjson"))
}

pub(super) fn reading_of(stage: &str, state: &Location) -> Location {
    state.join("inputs").join(&format!("{stage}.reading"))
}

/// The checkpoint of the file that was being read last.
fn last_begun(location: &Location) -> Result<Option<FileCheckpoint>, StageError> {
    if location.local().is_none() {
        return Ok(None);
    }
    // The rest of an earlier, longer line may follow the first line.
    let text = location.read()?.unwrap_or_default();
    Ok(text
        .split(|&byte| byte == b'\n')
        .next()
        .and_then(|line| serde_json::from_slice(line).ok()))
}

pub(super) fn add(records: &mut CheckpointMap, record: FileCheckpoint) {
    let of_name = records.entry(record.file.name.clone()).or_default();
    of_name.retain(|known| known.split != record.split);
    of_name.push(record);
    let excess = of_name.len().saturating_sub(MAX_SPLITS);
    of_name.drain(..excess);
}

pub(super) fn append(
    file: &mut File,
    path: &std::path::Path,
    record: &FileCheckpoint,
) -> Result<(), StageError> {
    file.write_all(&to_json_lines([record])?)
        .map_err(StageError::io(path))
}

pub(super) fn text_of(records: &CheckpointMap) -> Result<Vec<u8>, StageError> {
    to_json_lines(records.values().flatten())
}
