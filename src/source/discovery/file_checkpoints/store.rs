//! The checkpoints of the input files of a stage in the state folder.
//!
//! `inputs/<stage>.ndjson` has one line for each file that was read to its end; the last line of a
//! split is valid. `inputs/<stage>.reading` holds the same data about the beginning of the file
//! that is being read, and is overwritten before each batch is sent. Neither file is synced during
//! the run: a killed process loses nothing that it wrote, and after a power failure a file whose
//! checkpoint is missing is treated as changed.

use std::io::{Seek, SeekFrom, Write};

use crate::error::StageError;
use crate::fs_durable::{create_dir_all_synced, failpoint, state_file};
use crate::json::to_json_lines;
use crate::source::discovery::file_checkpoints::checkpoint::{CheckpointMap, FileCheckpoint};
use crate::source::discovery::file_checkpoints::journal::{
    CheckpointFiles, LoadedCheckpoints, STALE, add, append, load, of, reading_of, records_of,
    text_of,
};
use crate::storage::Location;

/// The checkpoints of a stage and the files that store them.
pub(in crate::source) struct CheckpointStore {
    records: CheckpointMap,
    files: CheckpointFiles,
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
