//! Training checkpoints: the complete state that the rest of a training depends on, in one file
//! that is replaced atomically.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::loss_curve::EpochRecord;
use super::step_schedule::StepSchedule;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::{read_if_exists, write_atomically};

/// The position of a training between two steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingPosition {
    /// SHA-256 over the resolved training file and the data. A checkpoint of a different training
    /// is refused.
    pub digest: String,
    /// SHA-256 over the training file as written and the data. Earlier versions store only this
    /// one, as `digest`.
    #[serde(default)]
    pub written: String,
    /// SHA-256 as `digest`, without the number of epochs; empty in checkpoints of earlier versions.
    #[serde(default)]
    pub without_epochs: String,
    /// The batch size and the warm-up; `None` in checkpoints of earlier versions.
    #[serde(default)]
    pub schedule: Option<StepSchedule>,
    /// Number of completed epochs.
    pub epoch: u32,
    /// Number of completed batches of the current epoch.
    pub batch: u64,
    /// Total number of steps.
    pub step: u64,
    /// Total seconds of training.
    pub seconds: f64,
    /// The sum of the objective over the batches of the current epoch.
    pub sum: f32,
    /// The sum of the loss without penalties over these batches.
    #[serde(default)]
    pub reconstruction: f64,
    /// The sum of the KL divergence, or else of the contraction, over these batches.
    #[serde(default)]
    pub divergence: f64,
    /// The lowest validation loss so far.
    pub best: Option<f64>,
    /// Number of epochs since the lowest validation loss.
    pub since_best: u32,
    /// The completed epochs.
    pub curve: Vec<EpochRecord>,
}

/// The state of a training between two steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TrainingCheckpoint {
    /// The position of the training.
    pub position: TrainingPosition,
    /// The trainer's state.
    pub state: Vec<Vec<f32>>,
    /// The weights of the best epoch; empty before the first epoch is complete.
    pub best: Vec<Vec<f32>>,
}

/// A tensor whose bytes are made one tensor at a time, so that a checkpoint takes its size only once
/// more while it is written.
struct FloatTensor<'a> {
    shape: [usize; 1],
    values: &'a [f32],
}

fn named<'a>(
    role: &'static str,
    tensors: &'a [Vec<f32>],
) -> impl Iterator<Item = (String, FloatTensor<'a>)> {
    let tensors = tensors.iter().enumerate();
    tensors.map(move |(index, values)| {
        let shape = [values.len()];
        (format!("{role}.{index:04}"), FloatTensor { shape, values })
    })
}

impl View for FloatTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.values.iter().flat_map(|value| value.to_le_bytes());
        Cow::Owned(bytes.collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

const POSITION: &str = "position";

impl TrainingCheckpoint {
    /// Returns the path of the checkpoint in a work folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("checkpoint.safetensors")
    }

    /// Writes the checkpoint to `path` atomically: after a crash, the file is either the old one or
    /// the new one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let views = named("state", &self.state).chain(named("best", &self.best));
        let position = serde_json::to_string(&self.position)
            .map_err(|error| invalid_checkpoint(path, &error))?;
        let metadata = HashMap::from([(POSITION.to_owned(), position)]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|error| invalid_checkpoint(path, &error))?;
        write_atomically(path, &bytes)
    }

    /// Reads a checkpoint; `None` if the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or is not a checkpoint.
    pub fn read(path: &Path) -> Result<Option<Self>, StageError> {
        let Some(bytes) = read_if_exists(path)? else {
            return Ok(None);
        };
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| invalid_checkpoint(path, &error))?;
        let position = metadata
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(POSITION));
        let position = position
            .ok_or_else(|| invalid_checkpoint(path, &"the position of the training is missing"))?;
        let position =
            serde_json::from_str(position).map_err(|error| invalid_checkpoint(path, &error))?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| invalid_checkpoint(path, &error))?;
        let mut names = tensors.names();
        names.sort_unstable();
        let read = |role: &str| -> Result<Vec<Vec<f32>>, StageError> {
            let own = names.iter().filter(|name| name.starts_with(role));
            let read = own.map(|name| {
                let view = tensors
                    .tensor(name)
                    .map_err(|error| invalid_checkpoint(path, &error))?;
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
                Ok(values.collect())
            });
            read.collect()
        };
        Ok(Some(Self {
            position,
            state: read("state.")?,
            best: read("best.")?,
        }))
    }
}

fn invalid_checkpoint(path: &Path, reason: &dyn std::fmt::Display) -> StageError {
    StageError::new(
        ErrorCode::StateCorrupt,
        format!(
            "{}: not a valid checkpoint: {reason}; start from scratch with --restart",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn written_checkpoint_is_read_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = TrainingCheckpoint::path(folder.path());
        assert_eq!(TrainingCheckpoint::read(&path).unwrap(), None);
        let point = EpochRecord {
            epoch: 1,
            step: 7,
            seconds: 1.25,
            learning_rate: 0.1,
            loss: 0.5,
            validation_loss: Some(0.1 + 0.2),
            ..EpochRecord::default()
        };
        let position = TrainingPosition {
            step: u64::MAX,
            best: Some(0.1 + 0.2),
            curve: vec![point],
            ..TrainingPosition::default()
        };
        let state = (0..12)
            .map(|i| vec![0.1 + i as f32, f32::MIN_POSITIVE, f32::NAN.copysign(-1.0)])
            .collect();
        let checkpoint = TrainingCheckpoint {
            position,
            state,
            best: vec![vec![], vec![1.0]],
        };
        checkpoint.write(&path).unwrap();
        let read = TrainingCheckpoint::read(&path).unwrap().unwrap();
        assert_eq!(read.position, checkpoint.position);
        let bits = |tensors: &[Vec<f32>]| -> Vec<Vec<u32>> {
            tensors
                .iter()
                .map(|values| values.iter().map(|value| value.to_bits()).collect())
                .collect()
        };
        assert_eq!(
            (bits(&read.state), bits(&read.best)),
            (bits(&checkpoint.state), bits(&checkpoint.best))
        );
    }

    #[test]
    fn invalid_checkpoint_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = TrainingCheckpoint::path(folder.path());
        for bytes in [&b""[..], b"not a checkpoint", &[0xff; 100]] {
            std::fs::write(&path, bytes).unwrap();
            let error = TrainingCheckpoint::read(&path).unwrap_err().to_string();
            let start = format!("{}: not a valid checkpoint: ", path.display());
            assert!(error.starts_with(&start), "{error}");
            assert!(
                error.ends_with("; start from scratch with --restart"),
                "{error}"
            );
        }
    }
}
