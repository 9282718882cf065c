//! Checkpoints: everything that the rest of a training depends on, in one file that a crash cannot
//! break.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::loss_curve::EpochRecord;
use crate::error::StageError;
use crate::fs_durable::write_atomically;

/// Where a training stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingPosition {
    /// SHA-256 over what the training file means and the data: a checkpoint of another training is
    /// refused.
    pub digest: String,
    /// The same over the file as it is written; earlier programs have that alone, as `digest`.
    #[serde(default)]
    pub written: String,
    /// Epochs that are over.
    pub epoch: u32,
    /// Batches of the present epoch that were learned from.
    pub batch: u64,
    /// Steps in all.
    pub step: u64,
    /// Seconds of work in all.
    pub seconds: f64,
    /// The objective, added up over the present epoch.
    pub sum: f32,
    /// The least validation loss.
    pub best: Option<f64>,
    /// Epochs since then.
    pub since_best: u32,
    /// The epochs that are over.
    pub curve: Vec<EpochRecord>,
}

/// A training, cut between two steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingCheckpoint {
    /// Where it stands.
    pub position: TrainingPosition,
    /// The trainer's state.
    pub state: Vec<Vec<f32>>,
    /// The weights of the best epoch; empty before the first is over.
    pub best: Vec<Vec<f32>>,
}

const POSITION: &str = "position";

impl TrainingCheckpoint {
    /// The file in a folder of work.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("checkpoint.safetensors")
    }

    /// Puts it under `path`: after a crash there is the old one or the new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let named =
            |role: &'static str, tensors: &[Vec<f32>]| -> Vec<(String, Vec<usize>, Vec<u8>)> {
                let named = tensors.iter().enumerate().map(|(place, values)| {
                    let bytes = values
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect();
                    (format!("{role}.{place:04}"), vec![values.len()], bytes)
                });
                named.collect()
            };
        let tensors = [named("state", &self.state), named("best", &self.best)].concat();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let views: Vec<_> = views
            .collect::<Result<_, _>>()
            .map_err(|error| broken(path, &error))?;
        let position =
            serde_json::to_string(&self.position).map_err(|error| broken(path, &error))?;
        let metadata = HashMap::from([(POSITION.to_owned(), position)]);
        let bytes =
            safetensors::serialize(views, Some(metadata)).map_err(|error| broken(path, &error))?;
        write_atomically(path, &bytes)
    }

    /// Reads what [`TrainingCheckpoint::write`] has written; `None` where there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or is no checkpoint.
    pub fn read(path: &Path) -> Result<Option<Self>, StageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StageError::io(path)(error)),
        };
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| broken(path, &error))?;
        let position = metadata
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(POSITION));
        let position =
            position.ok_or_else(|| broken(path, &"it does not say where the training stands"))?;
        let position = serde_json::from_str(position).map_err(|error| broken(path, &error))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(path, &error))?;
        let mut names = tensors.names();
        names.sort_unstable();
        let read = |role: &str| -> Result<Vec<Vec<f32>>, StageError> {
            let own = names.iter().filter(|name| name.starts_with(role));
            let read = own.map(|name| {
                let view = tensors.tensor(name).map_err(|error| broken(path, &error))?;
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
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

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> StageError {
    StageError::Other(format!(
        "{}: no checkpoint: {reason}; begin anew with --restart",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_written_is_read_bit_for_bit() {
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
    fn a_file_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = TrainingCheckpoint::path(folder.path());
        for bytes in [&b""[..], b"no checkpoint", &[0xff; 100]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(
                TrainingCheckpoint::read(&path)
                    .unwrap_err()
                    .to_string()
                    .contains("begin anew with --restart")
            );
        }
    }
}
