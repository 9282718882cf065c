//! Scores the detection of anomalies by an ensemble: the mean over several models of the error of a
//! record, divided by the mean error in the card of the model.

use std::path::{Path, PathBuf};

use crate::data::PreparedDataset;
use crate::error::StageError;
use crate::evaluate::anomalies::ranking_of;
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::options::{EvaluateError, EvaluateOptions, EvaluationRequest, Progress};
use crate::evaluate::result::anomaly_scores::EnsembleScores;
use crate::evaluate::sampler::Subsample;
use crate::model::Model;

/// The models of an ensemble, each with its mean error on normal records.
pub(super) struct Ensemble<'a> {
    first: (&'a Model, f64),
    others: Vec<(Model, f64)>,
}

impl<'a> Ensemble<'a> {
    /// Opens the other models of an ensemble; `None` without others.
    ///
    /// # Errors
    /// If a model cannot be opened, or cannot be averaged with the first one.
    pub(super) fn open(
        first: &'a Model,
        folders: &[PathBuf],
        request: &EvaluationRequest,
    ) -> Result<Option<Self>, EvaluateError> {
        if folders.is_empty() {
            return Ok(None);
        }
        let with_error = |model: &Model| {
            let error = model.member_error(first);
            error.map_err(|error| EvaluateError::Argument(format!("ensemble: {error}")))
        };
        let open = |folder: &Path| {
            let model = request.open(folder)?;
            let error = with_error(&model)?;
            Ok::<_, EvaluateError>((model, error))
        };
        let first_error = with_error(first)?;
        let mut others: Vec<(Model, f64)> = Vec::with_capacity(folders.len());
        for folder in folders {
            let (model, error) = open(folder)?;
            let mut before = std::iter::once(first).chain(others.iter().map(|(other, _)| other));
            if let Some(same) = before.find(|other| other.digest() == model.digest()) {
                let (one, two) = (same.name(), model.name());
                return Err(EvaluateError::Argument(format!(
                    "ensemble: `{one}` and `{two}` are the same model; name each model once"
                )));
            }
            others.push((model, error));
        }
        Ok(Some(Self {
            first: (first, first_error),
            others,
        }))
    }

    /// Scores the ranking of records; returns `None` unless there are both anomalies and normal
    /// records. Records on which a model fails are left out.
    ///
    /// # Errors
    /// If the records cannot be read, or the error of `progress`.
    pub(super) fn measure(
        &self,
        prepared: &PreparedDataset,
        options: &EvaluateOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Option<EnsembleScores>, StageError> {
        let sample = Subsample::scored(prepared, options);
        let others = self.others.iter().map(|(model, mean)| (model, *mean));
        let members: Vec<(&Model, f64)> = std::iter::once(self.first).chain(others).collect();
        let mut records = vec![EnsembleRecord::default(); sample.len()];
        for &(model, mean_error) in &members {
            add_errors(&mut records, model, mean_error, &sample, progress)?;
        }
        records.retain(|record| record.models == members.len());
        let scores = records.iter().map(|record| record.sum).collect();
        let anomalies: Vec<bool> = records.iter().map(|record| record.anomaly).collect();
        Ok(
            ranking_of(scores, &anomalies).map(|ranking| EnsembleScores {
                models: members
                    .iter()
                    .map(|(model, _)| model.name().to_owned())
                    .collect(),
                ranking,
            }),
        )
    }
}

/// The errors of a record, summed over models.
#[derive(Clone, Default)]
struct EnsembleRecord {
    sum: f64,
    /// Number of models in the sum.
    models: usize,
    anomaly: bool,
}

fn add_errors(
    records: &mut [EnsembleRecord],
    model: &Model,
    mean_error: f64,
    sample: &Subsample<'_>,
    progress: &mut Progress<'_>,
) -> Result<(), StageError> {
    let mut runner = ModelRunner::new(model)?;
    sample.read(model.input(), &mut |batch| {
        let output = runner.run(batch, false);
        let outputs = output.outputs.as_deref().unwrap_or_default();
        for (entry, failed) in batch.records.iter().zip(&output.failed) {
            let Some(reconstruction) = outputs.get(entry.at.clone()).filter(|_| !failed) else {
                continue;
            };
            let record = &mut records[entry.sample_index];
            let error = model
                .loss()
                .error(batch.record_values(entry), reconstruction);
            record.sum += error / mean_error;
            record.models += 1;
            record.anomaly = entry.anomaly;
        }
        let last = batch.records.last();
        let done = last.map_or(0, |entry| entry.sample_index + 1);
        progress("scoring the ensemble", done, sample.len())
    })
}
