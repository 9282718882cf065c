//! The distribution of a model's reconstruction error on recent data, which replaces that of its card.

use std::path::Path;
use std::time::SystemTime;

use crate::data::{PreparedDataset, Subset};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::options::{EvaluateError, EvaluateEvent, EvaluationRequest};
use crate::evaluate::request::dataset::model_input;
use crate::evaluate::sampler::Subsample;
use crate::model::Model;
use crate::model::attribution::ATTRIBUTION;
use crate::model::card::ModelCard;
use crate::model::card::error_stats::{ErrorMeasurement, ErrorStats};
use crate::model::feature_errors::{FeatureErrors, FeatureStats};
use crate::model::files::ModelPath;

/// Maximum number of records whose errors are measured: 8 MB of errors.
const MAX_MEASURED: usize = 1_000_000;
/// Maximum number of former distributions in a card; the oldest ones are dropped.
const MAX_FORMER: usize = 20;

/// A new distribution of the reconstruction error.
#[derive(Debug)]
pub(crate) struct Calibration {
    /// The distribution.
    pub(crate) stats: ErrorStats,
    /// The share of the records whose error is above the 99 % quantile of the former distribution.
    pub(crate) above_former_p99: Option<f64>,
    /// What a reader of the numbers should consider, as sentences.
    pub(crate) notes: Vec<String>,
}

impl EvaluationRequest {
    /// Measures the reconstruction error of the model in `folder` on the normal records of the
    /// sources. They are prepared in `temporary`, unless the request names a folder.
    ///
    /// # Errors
    /// If the model does not reconstruct, the data cannot be read, or no record is left.
    pub(crate) fn calibrate(
        &self,
        model: &Model,
        folder: &Path,
        temporary: &Path,
        watch: &mut dyn FnMut(EvaluateEvent<'_>) -> Result<(), StageError>,
    ) -> Result<Calibration, EvaluateError> {
        if model.files(ModelPath::Reconstruct).is_none() {
            return Err(EvaluateError::Argument(format!(
                "{}: cannot calibrate a model that does not return reconstructions",
                model.name()
            )));
        }
        let spec = self.data_spec(model, folder)?;
        let records = self.prepared.as_deref().unwrap_or(temporary);
        let prepared = self.prepare(&model_input(model), &spec, records, watch)?;
        watch(EvaluateEvent::Prepared(&prepared))?;
        let mut calibration = measure(model, &prepared, watch)?;
        calibration.notes.extend(self.unseparated_anomalies(model));
        calibration.stats.measured = Some(ErrorMeasurement {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            sources: self.sources.clone(),
        });
        Ok(calibration)
    }
}

fn measure(
    model: &Model,
    prepared: &PreparedDataset,
    watch: &mut dyn FnMut(EvaluateEvent<'_>) -> Result<(), StageError>,
) -> Result<Calibration, EvaluateError> {
    let parts = Subset::ALL.map(|subset| (subset, prepared.subset(subset)));
    let sample = Subsample::new(parts.to_vec(), MAX_MEASURED);
    let mut runner = ModelRunner::new(model)?;
    let mut errors = Vec::with_capacity(sample.len());
    let features = model
        .feature_input()
        .filter(|input| !input.columns.is_empty());
    let mut features = features.map(|input| FeatureErrors::new(input.groups(input.columns.len())));
    let (loss, mut anomalies) = (model.loss(), 0);
    sample.read(model.input(), &mut |batch| {
        let output = runner.run(batch, false);
        let outputs = output.outputs.as_deref().unwrap_or_default();
        for (row, entry) in batch.records.iter().enumerate() {
            anomalies += usize::from(entry.anomaly);
            let target = batch.record_values(entry);
            let Some(reconstruction) = outputs.get(entry.at.clone()) else {
                continue;
            };
            let error = loss.error(target, reconstruction);
            if output.failed[row] || entry.anomaly || !error.is_finite() {
                continue;
            }
            errors.push(error);
            if let Some(features) = &mut features {
                features.push(target, reconstruction);
            }
        }
        watch(EvaluateEvent::Step {
            name: "measuring the error",
            done: batch
                .records
                .last()
                .map_or(0, |entry| entry.sample_index + 1),
            total: sample.len(),
        })
    })?;
    let unusable = sample.len() - errors.len() - anomalies;
    if errors.is_empty() {
        let reason = runner.failure().unwrap_or("none is normal");
        return Err(StageError::new(
            ErrorCode::InputEmpty,
            format!("the sources have no record that the error can be measured on: {reason}"),
        )
        .into());
    }
    if errors.iter().all(|error| *error == errors[0]) {
        return Err(StageError::new(
            ErrorCode::InputEmpty,
            format!(
                "the errors of all records ({}) are equal, so that no error is unusual; calibrate on more records",
                errors.len()
            ),
        )
        .into());
    }
    let known = model
        .card()
        .and_then(|card| card.reconstruction_error.as_ref());
    let above = |limit: f64| {
        let above = errors.iter().filter(|&&error| error > limit).count();
        above as f64 / errors.len() as f64
    };
    let above_former_p99 = known.map(|known| above(known.quantiles.p99));
    let features = features.and_then(|features| features.stats());
    let features = features.map(|stats| FeatureStats {
        ranking: Some(ATTRIBUTION.to_owned()),
        ..stats
    });
    let mut notes = notes(prepared, &sample, anomalies, unusable);
    notes.extend(
        runner
            .failure()
            .map(|reason| format!("the model fails on a record: {reason}")),
    );
    let stats = ErrorStats::from_errors(&mut errors).map(|stats| ErrorStats { features, ..stats });
    let stats = stats.ok_or_else(|| {
        StageError::Model("the standard deviation of the errors is not finite".to_owned())
    })?;
    Ok(Calibration {
        stats,
        above_former_p99,
        notes,
    })
}

fn notes(
    prepared: &PreparedDataset,
    sample: &Subsample<'_>,
    anomalies: usize,
    unusable: usize,
) -> Vec<String> {
    let counted = [
        (prepared.rejects as usize, "rejected records were left out"),
        (
            prepared.without_label as usize,
            "records without a value in the column of `normal` were left out",
        ),
        (anomalies, "anomalies were left out"),
        (
            unusable,
            "records were left out, on which the model fails or that do not fit it",
        ),
    ];
    let mut notes: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, text)| format!("{count} {text}"))
        .collect();
    if sample.len() < sample.total() {
        notes.push(format!(
            "{} of {} records were measured, evenly spaced",
            sample.len(),
            sample.total()
        ));
    }
    notes
}

/// Returns the card with another distribution. The former one is kept in
/// `previous_reconstruction_error`.
pub(crate) fn calibrated(card: &ModelCard, stats: ErrorStats) -> ModelCard {
    let mut card = card.clone();
    let former = card.reconstruction_error.replace(stats);
    card.previous_reconstruction_error.extend(former);
    let dropped = card
        .previous_reconstruction_error
        .len()
        .saturating_sub(MAX_FORMER);
    card.previous_reconstruction_error.drain(..dropped);
    card
}
