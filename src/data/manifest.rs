//! The manifest of prepared data: written last, it says that the files beside it are whole, and
//! what they hold.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PreparedDataset;
use super::config::Subset;
use super::record_file::{ElementType, OffsetIndex, RecordFile};
use super::record_writer::{SubsetSummary, ends_path, records_path};
use crate::error::StageError;
use crate::fs_durable::write_atomically;
use crate::model::input::InputKind;

/// What was prepared, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DatasetManifest {
    /// A digest of what the spec means and of its inputs; `None` where it cannot be known whether
    /// they stay the same.
    pub(super) key: Option<String>,
    /// The same of the spec as it is written; earlier programs have that alone, as `key`.
    #[serde(default)]
    pub(super) written: Option<String>,
    pub(super) kind: InputKind,
    pub(super) channels: usize,
    pub(super) columns: Vec<String>,
    pub(super) columns_are_values: bool,
    /// Sorted.
    pub(super) labels: Vec<String>,
    /// For each label as records have it, its place among the sorted ones.
    pub(super) classes: Vec<u32>,
    pub(super) digest: String,
    pub(super) rejects: u64,
    pub(super) reasons: Vec<String>,
    pub(super) left_out: u64,
    pub(super) anomalies: u64,
    /// As [`Subset::ALL`] has them.
    pub(super) parts: [SubsetSummary; 3],
}

fn path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

impl DatasetManifest {
    /// The manifest in a folder; `None` where there is none, or none of ours.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(folder)).ok()?).ok()
    }

    /// Whether it is of the same data as one that has these keys.
    pub(super) fn is_of(&self, keys: &[String; 2]) -> bool {
        let known = [&self.key, &self.written];
        known.into_iter().flatten().any(|key| keys.contains(key))
    }

    /// Says that the files are whole.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StageError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| StageError::Other(error.to_string()))?;
        write_atomically(&path(folder), &text)
    }

    /// Says that the files are not whole any more.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn remove(folder: &Path) -> Result<(), StageError> {
        let path = path(folder);
        if path.exists() {
            fs::remove_file(&path).map_err(StageError::io(&path))
        } else {
            Ok(())
        }
    }

    /// Opens the files.
    ///
    /// # Errors
    /// When one is not there, or not as long as it was.
    pub(super) fn open(self, folder: &Path, reused: bool) -> Result<PreparedDataset, StageError> {
        let classes: Arc<[u32]> = Arc::from(self.classes.as_slice());
        let open = |part: Subset| self.open_subset(folder, part, &classes);
        let (training, validation, test) = (
            open(Subset::Training)?,
            open(Subset::Validation)?,
            open(Subset::Test)?,
        );
        let shape = common_shape(&[&training, &validation, &test]);
        Ok(PreparedDataset {
            kind: self.kind,
            training,
            validation,
            test,
            shape,
            columns: self.columns,
            columns_are_values: self.columns_are_values,
            labels: self.labels,
            digest: self.digest,
            rejects: self.rejects,
            reasons: self.reasons,
            left_out: self.left_out,
            anomalies: self.anomalies,
            reused,
        })
    }

    fn open_subset(
        &self,
        folder: &Path,
        part: Subset,
        classes: &Arc<[u32]>,
    ) -> Result<RecordFile, StageError> {
        let written = &self.parts[part as usize];
        let path = records_path(folder, part);
        let file = File::open(&path).map_err(StageError::io(&path))?;
        let found = file.metadata().map_err(StageError::io(&path))?.len();
        if found != written.bytes {
            let message = format!(
                "{}: has {found} bytes, not {}",
                path.display(),
                written.bytes
            );
            return Err(StageError::Other(message));
        }
        let len = usize::try_from(written.records).unwrap_or(usize::MAX);
        let offsets = match written.size {
            Some(size) => OffsetIndex::Same(size),
            None => OffsetIndex::Ends(read_ends(&ends_path(folder, part), len)?),
        };
        let element = match self.kind {
            InputKind::Image => ElementType::U8,
            InputKind::Features => ElementType::F32,
        };
        Ok(RecordFile {
            path,
            file,
            len,
            offsets,
            element,
            channels: self.channels,
            classes: Arc::clone(classes),
        })
    }
}

/// The shape of all records, where they have the same.
fn common_shape(parts: &[&RecordFile]) -> Option<[usize; 3]> {
    let mut shapes = parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.shape());
    let first = shapes.next().flatten();
    first.filter(|_| shapes.all(|shape| shape == first))
}

fn read_ends(path: &Path, len: usize) -> Result<Vec<u64>, StageError> {
    let bytes = fs::read(path).map_err(StageError::io(path))?;
    let ends: Vec<u64> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| u64::from_le_bytes(bytes))
        .collect();
    if ends.len() == len {
        return Ok(ends);
    }
    Err(StageError::Other(format!(
        "{}: has the ends of {} records, not of {len}",
        path.display(),
        ends.len()
    )))
}
