//! The loss curve of a training, one row per epoch, stored as `training.parquet`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt32Array, UInt64Array};
use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::fs_durable::write_atomically;

/// The name of the file in a model folder.
pub const CURVE: &str = "training.parquet";

/// The measurements of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
    /// Mean loss over the validation part, without the penalty; `None` if the data has no
    /// validation part.
    pub validation_loss: Option<f64>,
}

/// Writes the curve: columns `epoch`, `step`, `seconds`, `learning_rate`, `loss`,
/// `validation_loss`.
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
    let columns: [(&str, ArrayRef, bool); 6] = [
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
    let records = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), records.schema(), None)?;
    writer.write(&records)?;
    write_atomically(path, &writer.into_inner()?)
}
