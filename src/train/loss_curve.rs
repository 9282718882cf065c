//! The loss curve of a training, one row per epoch, stored as `training.parquet`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt32Array, UInt64Array};
use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::fs_durable::write_atomically;

/// The name of the file in a model folder.
pub(crate) const CURVE: &str = "training.parquet";

/// The measurements of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Number of steps up to the end of the epoch.
    pub step: u64,
    /// Seconds of training up to the end of the epoch.
    pub seconds: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f64,
    /// Mean of the objective over the batches of the epoch, including the penalty.
    pub loss: f64,
    /// Mean loss over the validation part, without the penalty; with the KL divergence for
    /// variational autoencoders. `None` if the data has no validation part.
    pub validation_loss: Option<f64>,
    /// Variational and contractive autoencoders: mean of the loss without the penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<f64>,
    /// Variational autoencoders: mean KL divergence of a record, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Contractive autoencoders: mean squared norm of the derivatives of the code of a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contraction: Option<f64>,
    /// Variational autoencoders: mean loss over the validation part without the KL divergence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_reconstruction: Option<f64>,
    /// Variational autoencoders: mean KL divergence of a record of the validation part, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_kl: Option<f64>,
}

/// Returns the first epoch with the lowest validation loss, or the last epoch if none was
/// validated.
pub(crate) fn best(curve: &[EpochRecord]) -> Option<&EpochRecord> {
    let loss = |point: &EpochRecord| point.validation_loss.unwrap_or(f64::INFINITY);
    let validated = curve.iter().filter(|point| point.validation_loss.is_some());
    validated
        .min_by(|a, b| loss(a).total_cmp(&loss(b)))
        .or(curve.last())
}

/// A term of the loss of an epoch.
type TermOfEpoch = fn(&EpochRecord) -> Option<f64>;

/// Writes the curve: columns `epoch`, `step`, `seconds`, `learning_rate`, `loss`,
/// `validation_loss`, and the terms of the loss that the kind of autoencoder has.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, points: &[EpochRecord]) -> Result<(), StageError> {
    let floats = |of: fn(&EpochRecord) -> f64| -> ArrayRef {
        Arc::new(
            points
                .iter()
                .map(of)
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Float64Array>(),
        )
    };
    let validation: Float64Array = points.iter().map(|point| point.validation_loss).collect();
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        (
            "epoch",
            Arc::new(UInt32Array::from_iter_values(
                points.iter().map(|point| point.epoch),
            )),
            false,
        ),
        (
            "step",
            Arc::new(UInt64Array::from_iter_values(
                points.iter().map(|point| point.step),
            )),
            false,
        ),
        ("seconds", floats(|point| point.seconds), false),
        ("learning_rate", floats(|point| point.learning_rate), false),
        ("loss", floats(|point| point.loss), false),
        ("validation_loss", Arc::new(validation), true),
    ];
    let terms: [(&str, TermOfEpoch); 5] = [
        ("reconstruction", |point| point.reconstruction),
        ("kl", |point| point.kl),
        ("contraction", |point| point.contraction),
        ("validation_reconstruction", |point| {
            point.validation_reconstruction
        }),
        ("validation_kl", |point| point.validation_kl),
    ];
    for (name, of) in terms {
        let values: Float64Array = points.iter().map(of).collect();
        if points.iter().any(|point| of(point).is_some()) {
            columns.push((name, Arc::new(values), true));
        }
    }
    let records = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), None)?;
    writer.write(&records)?;
    write_atomically(path, &writer.into_inner()?)
}
