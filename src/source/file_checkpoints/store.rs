//! The checkpoints of the input files of a stage in the state folder.
//!
//! `inputs/<stage>.ndjson` has one line for each file that was read to its end; the last line of a
//! split is valid. `inputs/<stage>.reading` holds the same data about the beginning of the file
//! that is being read, and is overwritten before each batch is sent. Neither file is synced during
//! the run: a killed process loses nothing that it wrote, and after a power failure a file whose
//! checkpoint is missing is treated as changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, failpoint, state_file};
use crate::json::to_json_lines;
use crate::source::content_digest::ContentDigest;
use crate::source::listed_file::ListedFile;
use crate::storage::Location;

/// How the content of a checkpoint ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum CheckpointEnding {
    /// Rows were sent up to a position inside of the content.
    Within,
    /// The content ends with a line end.
    Line,
    /// The content ends within a line, which is a record.
    Text,
    /// The content ends within a quoted value.
    Quote,
    /// The content cannot be appended to, because the format has a footer or an index.
    Whole,
}

/// The digest of a file or of its beginning, with the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::source) struct FileCheckpoint {
    /// The file as it was listed when it was last recognized.
    #[serde(flatten)]
    pub(super) file: ListedFile,
    /// The split of its rows.
    pub(super) split: String,
    /// Other inputs that determine its records and are part of the split's name, such as a file of
    /// labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) companion: String,
    /// Number of bytes, from the beginning of the file, that `digest` covers.
    pub(super) length: u64,
    /// The digest of the first `length` bytes.
    pub(super) digest: ContentDigest,
    /// Number of rows in these bytes; `u64::MAX` if it is unknown.
    pub(super) rows: u64,
    /// How these bytes end.
    pub(super) ending: CheckpointEnding,
}

/// Maximum number of splits per file name. A file that is replaced repeatedly is recognized by its
/// last contents.
const MAX_SPLITS: usize = 8;
/// Number of lines per valid line above which the file is rewritten.
const STALE: usize = 4;

/// Checkpoints by file name; those of one name are sorted from the oldest split to the newest.
pub(super) type CheckpointMap = BTreeMap<String, Vec<FileCheckpoint>>;

/// The checkpoints of a stage and the files that store them.
pub(in crate::source) struct CheckpointStore {
    records: CheckpointMap,
    files: CheckpointFiles,
}

enum CheckpointFiles {
    /// Files on a local disk.
    Local {
        records: File,
        reading: File,
        path: std::path::PathBuf,
    },
    /// An object, which is written when the source has ended, if there are new checkpoints.
    Remote { location: Location, is_new: bool },
}

impl CheckpointStore {
    /// Reads the checkpoints of earlier runs.
    ///
    /// # Errors
    /// If they cannot be read, or the files cannot be opened for writing.
    pub(super) fn open(stage: &str, state: &Location) -> Result<Self, StageError> {
        let LoadedCheckpoints {
            records,
            begun,
            lines,
            is_truncated,
        } = load(stage, state)?;
        let kept: usize = records.values().map(Vec::len).sum();
        let location = records_of(stage, state);
        let is_stale = lines > STALE * kept.max(64);
        if is_stale {
            location.put(&text_of(&records)?)?;
        }
        let reading = reading_of(stage, state);
        let (Some(path), Some(reading)) = (location.local(), reading.local()) else {
            return Ok(Self {
                records,
                files: CheckpointFiles::Remote {
                    location,
                    is_new: false,
                },
            });
        };
        create_dir_all_synced(path.parent().unwrap_or(path))?;
        let open = |file_path: &std::path::Path, append: bool| {
            let mut options = state_file();
            if append {
                options.append(true)
            } else {
                options.write(true)
            };
            options
                .create(true)
                .open(file_path)
                .map_err(StageError::io(file_path))
        };
        let mut file = open(path, true)?;
        if is_truncated && !is_stale {
            file.write_all(b"\n").map_err(StageError::io(path))?;
        }
        // The `.reading` file is overwritten for the next input file.
        if let Some(begun) = begun.filter(|_| !is_stale) {
            append(&mut file, path, &begun)?;
        }
        let files = CheckpointFiles::Local {
            records: file,
            reading: open(reading, false)?,
            path: path.to_path_buf(),
        };
        Ok(Self { records, files })
    }

    /// The checkpoints of a file name, with the newest split last.
    pub(super) fn of(&self, name: &str) -> &[FileCheckpoint] {
        of(&self.records, name)
    }

    /// Adds a checkpoint, unless the existing one of its split has more rows.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn add(&mut self, record: FileCheckpoint) -> Result<(), StageError> {
        let known = self
            .of(&record.file.name)
            .iter()
            .find(|known| known.split == record.split);
        if known.is_some_and(|known| known.rows > record.rows || *known == record) {
            return Ok(());
        }
        match &mut self.files {
            CheckpointFiles::Local { records, path, .. } => append(records, path, &record)?,
            CheckpointFiles::Remote { is_new, .. } => *is_new = true,
        }
        add(&mut self.records, record);
        failpoint("input-recorded");
        Ok(())
    }

    /// Stores the checkpoint of the file that is being read, before its rows are sent.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(&mut self, record: &FileCheckpoint) -> Result<(), StageError> {
        let CheckpointFiles::Local { reading, path, .. } = &mut self.files else {
            return Ok(());
        };
        let line = to_json_lines([record])?;
        let written = reading
            .seek(SeekFrom::Start(0))
            .and_then(|_| reading.write_all(&line));
        written.map_err(StageError::io(path.as_path()))?;
        failpoint("input-begun");
        Ok(())
    }

    /// Makes all checkpoints durable.
    ///
    /// # Errors
    /// The error of the system or the store.
    pub(super) fn sync(&mut self) -> Result<(), StageError> {
        match &self.files {
            CheckpointFiles::Local { records, path, .. } => {
                records.sync_all().map_err(StageError::io(path.as_path()))
            }
            CheckpointFiles::Remote { is_new: false, .. } => Ok(()),
            CheckpointFiles::Remote {
                location,
                is_new: true,
            } => location.put(&text_of(&self.records)?),
        }
    }
}

/// The checkpoints of earlier runs.
struct LoadedCheckpoints {
    records: CheckpointMap,
    /// The checkpoint of the file that was being read, if it has more rows than the line of its
    /// split. It is also part of `records`.
    begun: Option<FileCheckpoint>,
    /// Number of lines of the file.
    lines: usize,
    /// Whether the last line lacks a line end.
    is_truncated: bool,
}

fn load(stage: &str, state: &Location) -> Result<LoadedCheckpoints, StageError> {
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
pub(in crate::source) fn remove_records(stage: &str, state: &Location) -> Result<(), StageError> {
    reading_of(stage, state).remove()?;
    records_of(stage, state).remove()
}

fn records_of(stage: &str, state: &Location) -> Location {
    state.join("inputs").join(&format!("{stage}.ndjson"))
}

fn reading_of(stage: &str, state: &Location) -> Location {
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

fn add(records: &mut CheckpointMap, record: FileCheckpoint) {
    let of_name = records.entry(record.file.name.clone()).or_default();
    of_name.retain(|known| known.split != record.split);
    of_name.push(record);
    let excess = of_name.len().saturating_sub(MAX_SPLITS);
    of_name.drain(..excess);
}

fn append(
    file: &mut File,
    path: &std::path::Path,
    record: &FileCheckpoint,
) -> Result<(), StageError> {
    file.write_all(&to_json_lines([record])?)
        .map_err(StageError::io(path))
}

fn text_of(records: &CheckpointMap) -> Result<Vec<u8>, StageError> {
    to_json_lines(records.values().flatten())
}
