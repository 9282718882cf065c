//! What earlier runs read of a stage's input files, as it is kept in the state folder.
//!
//! `inputs/<stage>.ndjson` has a line for each file that was read to its end; the last line of a
//! split counts. Beside it, `inputs/<stage>.reading` holds the same about the beginning of the file
//! that is being read, and is overwritten before each batch is handed over. Neither waits for the
//! disk on the way: a killed process loses nothing that it wrote, and after a power failure a file
//! whose record is missing is treated as changed.

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

/// How the content ended that a record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum CheckpointEnding {
    /// Rows were handed over up to somewhere inside of it.
    Within,
    /// With a line end.
    Line,
    /// Within a line, which is a record.
    Text,
    /// Within a quoted value.
    Quote,
    /// As a whole that cannot be continued: the format has a footer or an index.
    Whole,
}

/// The content of a file, or its beginning, and the rows that it gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::source) struct FileCheckpoint {
    /// The file as it was listed when it was last recognized.
    #[serde(flatten)]
    pub(super) file: ListedFile,
    /// The split of its rows.
    pub(super) split: String,
    /// What else decides its records and stands in the split's name, such as a file of labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) companion: String,
    /// Bytes that `digest` is of.
    pub(super) length: u64,
    /// The digest of so many bytes from the beginning.
    pub(super) digest: ContentDigest,
    /// Rows that they gave.
    pub(super) rows: u64,
    /// How they ended.
    pub(super) ending: CheckpointEnding,
}

/// Splits that are remembered for one name: a file that is replaced again and again is recognized
/// by its last contents.
const SPLITS: usize = 8;
/// Lines beyond which a file is written anew, for each line that counts.
const STALE: usize = 4;

/// Records by file name, those of one name from the oldest split to the newest.
pub(super) type CheckpointMap = BTreeMap<String, Vec<FileCheckpoint>>;

/// The records of a stage, and where they are kept.
pub(in crate::source) struct CheckpointStore {
    records: CheckpointMap,
    place: CheckpointFiles,
}

enum CheckpointFiles {
    /// On a disk of this machine.
    Local {
        records: File,
        reading: File,
        path: std::path::PathBuf,
    },
    /// In a bucket: written as a whole when the source has ended, if there is more than was read.
    Remote { location: Location, is_new: bool },
}

impl CheckpointStore {
    /// Reads the records of earlier runs.
    ///
    /// # Errors
    /// When they cannot be read, or the files cannot be opened for writing.
    pub(super) fn open(stage: &str, state: &Location) -> Result<Self, StageError> {
        let LoadedCheckpoints {
            records,
            begun,
            lines,
            is_torn,
        } = find(stage, state)?;
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
                place: CheckpointFiles::Remote {
                    location,
                    is_new: false,
                },
            });
        };
        create_dir_all_synced(path.parent().unwrap_or(path))?;
        let open = |path: &std::path::Path, append: bool| {
            let mut options = state_file();
            if append {
                options.append(true)
            } else {
                options.write(true)
            };
            options
                .create(true)
                .open(path)
                .map_err(StageError::io(path))
        };
        let mut file = open(path, true)?;
        if is_torn && !is_stale {
            file.write_all(b"\n").map_err(StageError::io(path))?;
        }
        // The next file's beginning is noted in the place of this one.
        if let Some(begun) = begun.filter(|_| !is_stale) {
            append(&mut file, path, &begun)?;
        }
        let place = CheckpointFiles::Local {
            records: file,
            reading: open(reading, false)?,
            path: path.to_path_buf(),
        };
        Ok(Self { records, place })
    }

    /// The records of a file name, the newest split last.
    pub(super) fn of(&self, name: &str) -> &[FileCheckpoint] {
        of(&self.records, name)
    }

    /// Adds a record. One that knows less of its split than what is there changes nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&mut self, record: FileCheckpoint) -> Result<(), StageError> {
        let known = self
            .of(&record.file.name)
            .iter()
            .find(|known| known.split == record.split);
        if known.is_some_and(|known| known.rows > record.rows || *known == record) {
            return Ok(());
        }
        match &mut self.place {
            CheckpointFiles::Local { records, path, .. } => append(records, path, &record)?,
            CheckpointFiles::Remote { is_new, .. } => *is_new = true,
        }
        add(&mut self.records, record);
        failpoint("input-recorded");
        Ok(())
    }

    /// DigestLog what was read of the file that is being read, before its rows are handed over.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn begin(&mut self, record: &FileCheckpoint) -> Result<(), StageError> {
        let CheckpointFiles::Local { reading, path, .. } = &mut self.place else {
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

    /// Makes all records durable.
    ///
    /// # Errors
    /// When the system or the store refuses.
    pub(super) fn sync(&mut self) -> Result<(), StageError> {
        match &self.place {
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

/// The records that earlier runs left.
struct LoadedCheckpoints {
    records: CheckpointMap,
    /// What was noted of the file that was being read, where no line says as much. It is among the
    /// records.
    begun: Option<FileCheckpoint>,
    /// Lines of the file.
    lines: usize,
    /// Whether the last line has no end.
    is_torn: bool,
}

fn find(stage: &str, state: &Location) -> Result<LoadedCheckpoints, StageError> {
    let (mut records, mut lines) = (CheckpointMap::new(), 0);
    let location = records_of(stage, state);
    let text = location.read()?.unwrap_or_default();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        match serde_json::from_slice(line) {
            Ok(record) => add(&mut records, record),
            // The machine lost power while the line was written; its file counts as one that is not
            // known.
            Err(error) => {
                tracing::warn!(%error, "{location}:{lines}: is damaged, and is passed over")
            }
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
    let is_torn = text.last().is_some_and(|&byte| byte != b'\n');
    Ok(LoadedCheckpoints {
        records,
        begun,
        lines,
        is_torn,
    })
}

/// The records of earlier runs.
///
/// # Errors
/// When they cannot be read.
pub(super) fn read(stage: &str, state: &Location) -> Result<CheckpointMap, StageError> {
    Ok(find(stage, state)?.records)
}

/// The records of a file name, the newest split last.
pub(super) fn of<'a>(records: &'a CheckpointMap, name: &str) -> &'a [FileCheckpoint] {
    records.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// Removes the records of a stage.
///
/// # Errors
/// When one cannot be removed.
pub(in crate::source) fn forget(stage: &str, state: &Location) -> Result<(), StageError> {
    reading_of(stage, state).remove()?;
    records_of(stage, state).remove()
}

fn records_of(stage: &str, state: &Location) -> Location {
    state.join("inputs").join(&format!("{stage}.ndjson"))
}

fn reading_of(stage: &str, state: &Location) -> Location {
    state.join("inputs").join(&format!("{stage}.reading"))
}

/// What was noted of the file that was being read last.
fn last_begun(location: &Location) -> Result<Option<FileCheckpoint>, StageError> {
    if location.local().is_none() {
        return Ok(None);
    }
    // The rest of a longer line may stand behind the first.
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
    let over = of_name.len().saturating_sub(SPLITS);
    of_name.drain(..over);
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
