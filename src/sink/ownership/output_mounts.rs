//! Records of the disks on which outputs lie, stored outside of these disks, so that a run does not
//! write to an output whose disk is not mounted.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::write_atomically;
use crate::json::to_json;
use crate::storage::mounts::{is_unmounted, mount_of, real_path};

/// The record of an output.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OutputRecord {
    /// The folder of the output, with symbolic links resolved.
    path: PathBuf,
    /// The mount point of its file system.
    mount: PathBuf,
}

/// The folders in which records of outputs are stored: those of the pipeline, and one of the user.
#[derive(Debug, Clone)]
pub(crate) struct OutputMounts {
    record_folders: Vec<PathBuf>,
}

impl OutputMounts {
    /// The folders of a pipeline, and `latentflow` in `XDG_STATE_HOME` or `~/.local/state`, if the
    /// user has a home folder.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        let absolute = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state =
            absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        Self {
            record_folders: folders
                .into_iter()
                .chain(state.map(|state| state.join("latentflow")))
                .collect(),
        }
    }

    /// Refuses an output whose disk was mounted in an earlier run and is not mounted now.
    ///
    /// # Errors
    /// A message with the mount point of the missing disk.
    pub fn check(&self, output: &Path) -> Result<(), StageError> {
        let path = real_path(output);
        let records = self
            .record_folders
            .iter()
            .filter_map(|record_folder| read(&file(record_folder, &path)));
        let missing = records
            .filter(|record| record.path == path)
            .find(|record| is_unmounted(&record.mount, &path));
        missing.map_or(Ok(()), |record| {
            let (output, mount) = (output.display(), record.mount.display());
            Err(StageError::new(
                ErrorCode::OutputReplaced,
                format!(
                    "{output}: the output of earlier runs is on a file system that was mounted at \
                 `{mount}` and is not mounted now; mount it, or start over in the present folder \
                 with --start-over"
                ),
            ))
        })
    }

    /// Records the disk of an output, in the first folder that is not on the same disk. Temporary
    /// folders are not recorded.
    pub fn record(&self, output: &Path) {
        let path = real_path(output);
        let Some(mount) = mount_of(&path).filter(|mount| !env::temp_dir().starts_with(mount))
        else {
            return;
        };
        let is_elsewhere = |record_folder: &&PathBuf| {
            mount_of(&real_path(record_folder)).is_none_or(|at| !at.starts_with(&mount))
        };
        let Some(record_folder) = self.record_folders.iter().find(is_elsewhere) else {
            return;
        };
        let file = file(record_folder, &path);
        let record = OutputRecord { path, mount };
        if read(&file).as_ref() == Some(&record) {
            return;
        }
        if let Err(error) = to_json(&record).and_then(|text| write_atomically(&file, &text)) {
            tracing::debug!(%error, "cannot record the disk of an output");
        }
    }

    /// Removes the records of an output.
    ///
    /// # Errors
    /// If a record cannot be removed.
    pub(crate) fn remove_record(&self, output: &Path) -> Result<(), StageError> {
        let path = real_path(output);
        let files = self
            .record_folders
            .iter()
            .map(|record_folder| file(record_folder, &path))
            .filter(|file| file.exists());
        files
            .into_iter()
            .try_for_each(|file| fs::remove_file(&file).map_err(StageError::io(&file)))
    }
}

fn file(record_folder: &Path, output: &Path) -> PathBuf {
    let digest = Sha256::digest(output.as_os_str().as_encoded_bytes());
    let name: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    record_folder.join("outputs").join(format!("{name}.json"))
}

fn read(file: &Path) -> Option<OutputRecord> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn output_with_missing_disk_is_refused_until_reset() {
        let folder = tempfile::tempdir().unwrap();
        let (output, record_folder) = (folder.path().join("disk/out"), folder.path().join("state"));
        let mounts = OutputMounts {
            record_folders: vec![record_folder.clone()],
        };
        mounts.check(&output).unwrap();
        let path = real_path(&output);
        let mount = path.parent().unwrap().to_path_buf();
        let text = serde_json::to_vec(&OutputRecord {
            path: path.clone(),
            mount,
        })
        .unwrap();
        write_atomically(&file(&record_folder, &path), &text).unwrap();
        let error = mounts.check(&output).unwrap_err().to_string();
        assert!(
            error.contains("disk` and is not mounted now") && error.contains("--start-over"),
            "{error}"
        );
        mounts.check(&folder.path().join("disk/other")).unwrap();
        mounts.remove_record(&output).unwrap();
        mounts.check(&output).unwrap();
    }

    #[test]
    fn output_in_temporary_folder_is_not_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let mounts = OutputMounts {
            record_folders: vec![folder.path().join("state")],
        };
        mounts.record(&folder.path().join("out"));
        assert!(!folder.path().join("state").exists());
    }
}
