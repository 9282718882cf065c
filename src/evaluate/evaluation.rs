//! The steps of an evaluation, in their order.

use crate::data::{PreparedDataset, Subset};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::evaluate::accumulator::LatentSample;
use crate::evaluate::denoising::{MAX_CORRUPTED, corruption_levels};
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::notes::{notes, pca_note};
use crate::evaluate::options::{EvaluateError, EvaluateOptions, Progress};
use crate::evaluate::pca_baseline::fit_pca;
use crate::evaluate::result::{Evaluation, LabeledLatents};
use crate::evaluate::sampler::Subsample;
use crate::evaluate::scoring::score;
use crate::evaluate::summaries::{
    baseline, classify_latents, compression, data_summary, latent_usage, model_summary,
    reconstruction,
};
use crate::evaluate::{anomalies, denoising};
use crate::model::Model;

/// Maximum number of records of the training part that principal components and classifiers are
/// fitted to.
const MAX_FITTED: usize = 60_000;

/// Scores a model with prepared data. `progress` is called with the current step, the number of
/// records it has processed, and the number of all its records.
///
/// # Errors
/// Returns an error if the model cannot run or fails on every record, the records cannot be read, a
/// corruption does not apply to them, or the parts have no records; or the error of `progress`.
pub fn evaluate(
    model: &Model,
    prepared: &PreparedDataset,
    options: &EvaluateOptions,
    progress: &mut Progress<'_>,
) -> Result<Evaluation, EvaluateError> {
    let format = model.image_input().map(|image| image.format);
    let levels =
        corruption_levels(model, options, format.as_ref()).map_err(EvaluateError::Faults)?;
    let mut runner = ModelRunner::new(model)?;
    let scored = Subsample::scored(prepared, options);
    check_has_records(&scored)?;
    let fitted = Subsample::new(vec![(Subset::Training, &prepared.training)], MAX_FITTED);
    let pca = fit_pca(&runner, model.input(), &fitted, progress)?;
    let tally = score(
        &mut runner,
        model,
        &scored,
        pca.as_ref().map(|(pca, _)| pca),
        format.clone(),
        progress,
    )?;
    let mut evaluation = Evaluation {
        model: model_summary(model, &runner),
        data: data_summary(prepared, &scored, &tally),
        compression: compression(&runner, format.is_some()),
        reconstruction: reconstruction(&tally, prepared)?,
        code: latent_usage(&tally, runner.code_size()),
        pca: pca
            .as_ref()
            .and_then(|(pca, fitted_records)| baseline(pca, *fitted_records, &tally)),
        labels: None,
        anomalies: anomalies::measure(
            &tally.scores,
            model
                .card()
                .and_then(|card| card.reconstruction_error.as_ref()),
            prepared,
        )?,
        denoising: Vec::new(),
        decode_distance: None,
        notes: notes(prepared, &scored, &fitted, &tally, runner.failure()),
        records: Vec::new(),
        codes: None,
    };
    evaluation.notes.extend(pca_note(&runner, pca.as_ref()));
    classify_latents(
        &mut evaluation,
        &mut runner,
        model.input(),
        prepared,
        (&fitted, pca.as_ref()),
        &tally,
        progress,
    )?;
    let corrupted = scored.at_most(MAX_CORRUPTED);
    for level in &levels {
        let mut report_progress = |done| progress("denoising", done, corrupted.len());
        evaluation.denoising.extend(denoising::measure(
            &mut runner,
            model.input(),
            &corrupted,
            level,
            &mut report_progress,
        )?);
    }
    if !levels.is_empty() && corrupted.len() < scored.len() {
        evaluation.notes.push(format!(
            "denoising was measured on {MAX_CORRUPTED} of {} records, evenly spaced",
            scored.len()
        ));
    }
    evaluation.codes = tally.codes.zip(runner.code_size()).map(|(sample, size)| {
        let LatentSample {
            codes: values,
            labels,
            anomalies,
            ..
        } = sample;
        LabeledLatents {
            size,
            values,
            labels,
            anomalies,
        }
    });
    evaluation.records = tally.scores;
    Ok(evaluation)
}

fn check_has_records(scored: &Subsample<'_>) -> Result<(), StageError> {
    if scored.len() > 0 {
        return Ok(());
    }
    let subsets = scored.subsets().iter();
    let names: Vec<&str> = subsets.map(|(subset, _)| subset.as_str()).collect();
    Err(StageError::new(
        ErrorCode::InputEmpty,
        format!(
            "the data has no records in the parts to score ({}); select other parts",
            names.join(", ")
        ),
    ))
}
