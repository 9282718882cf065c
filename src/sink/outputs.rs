//! Remembers on which mounted disk an output lies, in places off that disk: before the disk is mounted again, nothing is written.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::durable::write_atomically;
use crate::error::StageError;
use crate::store::mounts::{is_unmounted, mount_of};

/// What is remembered of an output.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OutputRecord {
    /// The folder of the output, without links.
    path: PathBuf,
    /// Where its file system is mounted.
    mount: PathBuf,
}

/// The places where outputs are remembered: folders of the pipeline's own, and one of the user.
#[derive(Debug, Clone)]
pub struct Memory {
    places: Vec<PathBuf>,
}

impl Memory {
    /// The folders of a pipeline, and `latentflow` in `XDG_STATE_HOME` or `~/.local/state`, where there is a home.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        Self { places: folders.into_iter().chain(state.map(|state| state.join("latentflow"))).collect() }
    }

    /// Refuses an output whose disk was mounted in an earlier run and is not now.
    ///
    /// # Errors
    /// Which disk is missing.
    pub fn check(&self, output: &Path) -> Result<(), StageError> {
        let path = real(output);
        let records = self.places.iter().filter_map(|place| read(&file(place, &path)));
        let missing = records.filter(|record| record.path == path).find(|record| is_unmounted(&record.mount, &path));
        missing.map_or(Ok(()), |record| {
            let (output, mount) = (output.display(), record.mount.display());
            Err(StageError::Other(format!(
                "{output}: earlier runs wrote here to a file system that was mounted at `{mount}`, where none is mounted \
                 now; mount it, or start over in the folder as it is with --start-over"
            )))
        })
    }

    /// Remembers where an output lies, in the first place that does not lie on the same disk. Temporary folders are not remembered.
    pub fn record(&self, output: &Path) {
        let path = real(output);
        let Some(mount) = mount_of(&path).filter(|mount| !env::temp_dir().starts_with(mount)) else { return };
        let is_elsewhere = |place: &&PathBuf| mount_of(&real(place)).is_none_or(|at| !at.starts_with(&mount));
        let Some(place) = self.places.iter().find(is_elsewhere) else { return };
        let file = file(place, &path);
        let record = OutputRecord { path, mount };
        if read(&file).as_ref() == Some(&record) {
            return;
        }
        let written = serde_json::to_vec(&record).map_err(|error| StageError::Other(error.to_string()));
        if let Err(error) = written.and_then(|text| write_atomically(&file, &text)) {
            tracing::debug!("it cannot be remembered which disk an output lies on: {error}");
        }
    }

    /// Forgets where an output lay.
    ///
    /// # Errors
    /// When a record cannot be removed.
    pub fn forget(&self, output: &Path) -> Result<(), StageError> {
        let path = real(output);
        let files = self.places.iter().map(|place| file(place, &path)).filter(|file| file.exists());
        files.into_iter().try_for_each(|file| fs::remove_file(&file).map_err(StageError::io(&file)))
    }
}

fn file(place: &Path, output: &Path) -> PathBuf {
    let digest = Sha256::digest(output.as_os_str().as_encoded_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    place.join("outputs").join(format!("{name}.json"))
}

fn read(file: &Path) -> Option<OutputRecord> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let there = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        // Joined with an empty path, it would end in a slash.
        Some((above, real)) if above == absolute => real,
        Some((above, real)) => absolute.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest)),
        None => absolute,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn output_whose_disk_is_missing_is_refused_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (output, place) = (folder.path().join("disk/out"), folder.path().join("state"));
        let memory = Memory { places: vec![place.clone()] };
        memory.check(&output).unwrap();
        let path = real(&output);
        let mount = path.parent().unwrap().to_path_buf();
        let text = serde_json::to_vec(&OutputRecord { path: path.clone(), mount }).unwrap();
        write_atomically(&file(&place, &path), &text).unwrap();
        let error = memory.check(&output).unwrap_err().to_string();
        assert!(error.contains("--start-over") && error.contains("disk`"), "{error}");
        memory.check(&folder.path().join("disk/other")).unwrap();
        memory.forget(&output).unwrap();
        memory.check(&output).unwrap();
    }

    #[test]
    fn output_in_temporary_folder_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory { places: vec![folder.path().join("state")] };
        memory.record(&folder.path().join("out"));
        assert!(!folder.path().join("state").exists());
    }

    #[test]
    fn path_that_does_not_exist_lies_below_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        assert_eq!(real(&folder.path().join("a/b")), base.join("a/b"));
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        assert_eq!(text(&real(&folder.path().join("a/b"))), text(&base.join("a/b")), "its record has the same name");
    }
}
