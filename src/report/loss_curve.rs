//! The loss curve of a training, read from the model folder.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use maud::Markup;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::chart::{self, ChartLabels, LineSeries};
use super::scale::ScaleKind;
use crate::error::StageError;
use crate::error::code::ErrorCode;

/// The name of the file.
const FILE: &str = "training.parquet";
/// Maximum number of epochs that are read.
const MAX_POINTS: usize = 1 << 20;

/// The columns that a loss curve may lack.
const OPTIONAL: [&str; 7] = [
    "learning_rate",
    "loss",
    "validation_loss",
    "reconstruction",
    "validation_reconstruction",
    "kl",
    "validation_kl",
];

/// The losses of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossPoint {
    /// The epoch.
    pub epoch: f64,
    /// The learning rate at its end.
    pub learning_rate: Option<f64>,
    /// The mean loss on the training part.
    pub loss: Option<f64>,
    /// The mean loss on the validation part.
    pub validation_loss: Option<f64>,
    /// The mean loss on the training part without the penalty, for kinds that record it.
    pub reconstruction: Option<f64>,
    /// The mean loss on the validation part without the KL divergence.
    pub validation_reconstruction: Option<f64>,
    /// The mean KL divergence of a record of the training part.
    pub kl: Option<f64>,
    /// The mean KL divergence of a record of the validation part.
    pub validation_kl: Option<f64>,
}

/// Reads `training.parquet` of a model folder; returns no points if the file does not exist.
///
/// # Errors
/// If the file is not a loss curve.
pub(crate) fn read_curve(folder: &Path) -> Result<Vec<LossPoint>, StageError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let file = File::open(&path).map_err(StageError::io(&path))?;
    let invalid = |reason: String| {
        StageError::new(
            ErrorCode::StateCorrupt,
            format!(
                "{}: invalid loss curve: {reason}; restore the file, or remove it to omit the curve",
                path.display()
            ),
        )
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| invalid(error.to_string()))?;
    let mut points = Vec::new();
    for records in reader.build().map_err(|error| invalid(error.to_string()))? {
        let records = records.map_err(|error| invalid(error.to_string()))?;
        let epochs = column(&records, "epoch")
            .ok_or_else(|| invalid("no numeric column `epoch`".to_owned()))?;
        let other = OPTIONAL.map(|name| column(&records, name));
        let at = |column: &Option<ArrayRef>, row: usize| {
            let column = column.as_ref()?.as_primitive::<Float64Type>();
            column
                .is_valid(row)
                .then(|| column.value(row))
                .filter(|value| value.is_finite())
        };
        for row in 0..records.num_rows().min(MAX_POINTS - points.len()) {
            let [
                learning_rate,
                loss,
                validation_loss,
                reconstruction,
                validation_reconstruction,
                kl,
                validation_kl,
            ] = other.each_ref().map(|column| at(column, row));
            let Some(epoch) = at(&Some(epochs.clone()), row) else {
                continue;
            };
            points.push(LossPoint {
                epoch,
                learning_rate,
                loss,
                validation_loss,
                reconstruction,
                validation_reconstruction,
                kl,
                validation_kl,
            });
        }
    }
    Ok(points)
}

fn column(records: &RecordBatch, name: &str) -> Option<ArrayRef> {
    let column = records.column_by_name(name)?;
    column
        .data_type()
        .is_numeric()
        .then(|| cast(column, &DataType::Float64).ok())
        .flatten()
}

/// Draws the losses and the learning rate by epoch.
pub(super) fn charts(points: &[LossPoint], loss: &str) -> Vec<Markup> {
    let line = |name: &str, pick: fn(&LossPoint) -> Option<f64>| LineSeries {
        name: name.to_owned(),
        points: points
            .iter()
            .filter_map(|point| Some((point.epoch, pick(point)?)))
            .collect(),
    };
    let lines = |title: &str, y: &str, lines: Vec<LineSeries>| {
        let lines: Vec<LineSeries> = lines
            .into_iter()
            .filter(|series| !series.points.is_empty())
            .collect();
        let values = lines
            .iter()
            .flat_map(|series| series.points.iter().map(|point| point.1));
        let kind = ScaleKind::fitting(values);
        (!lines.is_empty()).then(|| {
            chart::line_chart(
                ChartLabels {
                    title,
                    x: "epoch",
                    y,
                },
                &lines,
                kind,
            )
        })
    };
    let losses = vec![
        line("training", |point| point.loss),
        line("validation", |point| point.validation_loss),
        line("training, reconstruction", |point| point.reconstruction),
        line("validation, reconstruction", |point| {
            point.validation_reconstruction
        }),
    ];
    let divergences = vec![
        line("training", |point| point.kl),
        line("validation", |point| point.validation_kl),
    ];
    let rates = vec![line("learning rate", |point| point.learning_rate)];
    [
        lines("Loss", loss, losses),
        lines("KL divergence of the code", "nats per record", divergences),
        lines("Learning rate", "learning rate", rates),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the epoch with the smallest validation loss, and that loss.
pub(super) fn best(points: &[LossPoint]) -> Option<(f64, f64)> {
    let losses = points
        .iter()
        .filter_map(|point| Some((point.epoch, point.validation_loss?)));
    losses.min_by(|a, b| a.1.total_cmp(&b.1))
}
