//! The manifest of prepared data, which is written after the files of records and describes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PreparedDataset;
use super::config::{DataSpec, Subset};
use super::record_file::{ElementType, OffsetIndex, RecordFile};
use super::record_origin::OriginReader;
use super::record_writer::{SubsetSummary, ends_path, records_path};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::write_atomically;
use crate::model::input::spec::InputKind;

/// The contents of the manifest. Its existence means that the files of records are complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DatasetManifest {
    /// The version of the format, [`MANIFEST_VERSION`] if this version has written it.
    #[serde(default)]
    pub(super) version: u32,
    /// Whether features are stored as float64 instead of float32.
    #[serde(default)]
    pub(super) float64: bool,
    /// Whether the samples of images are stored as float32 instead of bytes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) fractional: bool,
    /// The digest that earlier versions computed, from features rounded to float32, if it differs
    /// from `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former_digest: Option<String>,
    /// A digest of the normalized spec and of its inputs; `None` if a change of the inputs cannot
    /// be detected.
    pub(super) key: Option<String>,
    /// A digest of the spec as written and of its inputs. Earlier versions stored only this one, as
    /// `key`.
    #[serde(default)]
    pub(super) written: Option<String>,
    pub(super) kind: InputKind,
    pub(super) channels: usize,
    pub(super) columns: Vec<String>,
    pub(super) columns_are_values: bool,
    /// The name of each value of a record. Earlier versions did not store them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) value_names: Vec<String>,
    /// The sorted classes.
    pub(super) labels: Vec<String>,
    /// For each class number in the records, the index of the class in `labels`.
    pub(super) classes: Vec<u32>,
    pub(super) digest: String,
    pub(super) rejects: u64,
    pub(super) reasons: Vec<String>,
    pub(super) left_out: u64,
    pub(super) anomalies: u64,
    /// Number of records without a value in the column of `normal`. Earlier versions counted them
    /// as anomalies.
    #[serde(default)]
    pub(super) without_label: u64,
    /// The number of records with a null or NaN, for each column where they are rejects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nulls: BTreeMap<String, u64>,
    /// The categories of columns whose rules count them; `None` for a column with too many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) categories: BTreeMap<String, Option<Vec<String>>>,
    /// The values of the column of `normal`, if no record satisfies the comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) normal_values: Option<String>,
    /// Whether there are files of origins. Earlier versions did not write them.
    #[serde(default)]
    pub(super) has_origins: bool,
    /// In the order of [`Subset::ALL`].
    pub(super) parts: [SubsetSummary; 3],
}

/// The version of prepared data. Version 0 rounded all features to float32 and counted records
/// without a value in the column of `normal` as anomalies.
pub(super) const MANIFEST_VERSION: u32 = 1;

fn is_false(value: &bool) -> bool {
    !value
}

fn path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

impl DatasetManifest {
    /// Reads the manifest of a folder; returns `None` if it is missing or cannot be parsed.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(folder)).ok()?).ok()
    }

    /// Whether one of these keys is a key of the manifest, and thus the data is the same.
    pub(super) fn is_of(&self, keys: &[String; 2]) -> bool {
        let known = [&self.key, &self.written];
        known.into_iter().flatten().any(|key| keys.contains(key))
    }

    /// Whether the records are those that this version prepares, with features in float64 or not. Images without `normal` have not
    /// changed since version 0.
    pub(super) fn is_current(&self, spec: &DataSpec, float64: bool) -> bool {
        let is_unchanged = self.kind == InputKind::Image && spec.normal.is_none();
        (self.version == MANIFEST_VERSION || is_unchanged) && self.float64 == float64
    }

    /// Writes the manifest, which marks the files as complete.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StageError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| StageError::new(ErrorCode::DataCorrupt, error.to_string()))?;
        write_atomically(&path(folder), &text)
    }

    /// Removes the manifest before the files are replaced.
    ///
    /// # Errors
    /// Returns an error if the file cannot be removed.
    pub(super) fn remove(folder: &Path) -> Result<(), StageError> {
        let path = path(folder);
        if path.exists() {
            fs::remove_file(&path).map_err(StageError::io(&path))
        } else {
            Ok(())
        }
    }

    /// Opens the files of the three parts.
    ///
    /// # Errors
    /// Returns an error if a file is missing or does not have the recorded length.
    pub(super) fn open(self, folder: &Path, reused: bool) -> Result<PreparedDataset, StageError> {
        let classes: Arc<[u32]> = Arc::from(self.classes.as_slice());
        let open = |part: Subset| self.open_subset(folder, part, &classes);
        let (training, validation, test) = (
            open(Subset::Training)?,
            open(Subset::Validation)?,
            open(Subset::Test)?,
        );
        let shape = common_shape(&[&training, &validation, &test]);
        let value_names = match self.columns_are_values {
            true => self.columns.clone(),
            false => self.value_names,
        };
        Ok(PreparedDataset {
            kind: self.kind,
            training,
            validation,
            test,
            shape,
            columns: self.columns,
            value_names,
            labels: self.labels,
            digest: self.digest,
            former_digest: self.former_digest,
            rejects: self.rejects,
            reasons: self.reasons,
            left_out: self.left_out,
            anomalies: self.anomalies,
            without_label: self.without_label,
            nulls: self.nulls,
            categories: self.categories,
            normal_values: self.normal_values,
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
                "{}: the file has {found} bytes; expected {}",
                path.display(),
                written.bytes
            );
            return Err(StageError::new(ErrorCode::DataCorrupt, message));
        }
        let len = usize::try_from(written.records).unwrap_or(usize::MAX);
        let offsets = match written.size {
            Some(size) => OffsetIndex::Same(size),
            None => OffsetIndex::Ends(read_ends(&ends_path(folder, part), len)?),
        };
        let origins = self
            .has_origins
            .then(|| OriginReader::open(folder, part, written.records))
            .transpose()?;
        let element = match self.kind {
            InputKind::Image if self.fractional => ElementType::F32,
            InputKind::Image => ElementType::U8,
            InputKind::Features if self.float64 => ElementType::F64,
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
            origins,
        })
    }
}

/// Returns the shape of the records if it is the same for all of them.
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
    Err(StageError::new(
        ErrorCode::DataCorrupt,
        format!(
            "{}: the file has the ends of {} records; expected {len}",
            path.display(),
            ends.len()
        ),
    ))
}
