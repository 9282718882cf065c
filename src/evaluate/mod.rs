//! Evaluation of a model: reconstruction, compression, denoising, classification and anomaly
//! detection, compared with principal components.

mod anomalies;
mod decode_distance;
mod denoising;
mod result;
mod labels;
mod examples;
mod table;
mod inference;
mod sampler;
mod accumulator;
mod corruption_argument;
mod source_argument;
mod request;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use examples::{ExampleRecord, ExampleSet, collect_examples};
pub use request::{EvaluationRequest, EvaluationRun, open_folder};
pub use result::*;

use crate::corruption::CorruptionSpec;
use crate::data::{PreparedDataset, ReadProgress, Subset};
use crate::error::{ConfigError, StageError};
use crate::eval_metrics::Pca;
use crate::image::PixelFormat;
use crate::model::card::ErrorStats;
use crate::model::feature_errors::FeatureErrors;
use crate::model::{Model, ModelInput};
use accumulator::{LatentSample, MAX_SSIM_IMAGES, ScoreAccumulator};
use denoising::{CorruptionLevel, MAX_CORRUPTED};
use inference::ModelRunner;
use sampler::Subsample;

/// Maximum number of scored records.
const MAX_SCORED: usize = 100_000;
/// Maximum number of records of the training part that principal components and classifiers are
/// fitted to.
const MAX_FITTED: usize = 60_000;
/// Maximum number of values of the records that principal components are fitted to, at which a pass
/// takes some seconds.
const MAX_FITTED_VALUES: usize = 1 << 26;
/// Maximum number of values of the directions that principal components are computed from: 256 MiB
/// in each of their copies.
const MAX_BASIS_VALUES: usize = 1 << 26;
/// Maximum number of latents that are classified.
const MAX_CLASSIFIED: usize = 10_000;
/// Maximum number of values of the latents in memory: 64 MiB for those that classifiers are fitted
/// to, and as much for those that are classified.
const MAX_CODE_VALUES: usize = 1 << 24;

/// Options of an evaluation.
#[derive(Debug, Default)]
pub struct EvaluateOptions {
    /// The parts whose records are scored. If empty, the test part if it has normal records, or
    /// else the validation part and the anomalies of the test part.
    pub parts: Vec<Subset>,
    /// Corruptions to measure denoising with, each separately. If empty, those that the model was
    /// trained with.
    pub corruptions: Vec<CorruptionSpec>,
}

/// The reason that a model cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// Faults of the corruptions.
    #[error("{}", fault_lines(.0, "corruption"))]
    Faults(Vec<ConfigError>),
    /// An argument is invalid, or the model or the data that it names cannot be used.
    #[error("{0}")]
    Argument(String),
    /// The model or the data failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Formats faults, one per line, with their keys below `table`.
fn fault_lines(faults: &[ConfigError], table: &str) -> String {
    let line = |fault: &ConfigError| {
        let ConfigError { key, message, .. } = fault.clone().within(table);
        if key.is_empty() {
            message
        } else {
            format!("{key}: {message}")
        }
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The events of an evaluation, which are reported to the caller.
#[derive(Debug)]
pub enum EvaluateEvent<'a> {
    /// The sources are being read.
    Reading(ReadProgress),
    /// The data is ready.
    Prepared(&'a PreparedDataset),
    /// A step has processed some of its records.
    Step {
        /// The name of the step.
        name: &'a str,
        /// Number of processed records.
        done: usize,
        /// Number of all records of the step.
        total: usize,
    },
}

/// Receives the name of a step, the number of records that it has processed, and the number of all
/// its records. An error ends the evaluation.
type Progress<'a> = dyn FnMut(&str, usize, usize) -> Result<(), StageError> + 'a;

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
    let levels = levels(model, options, format.as_ref()).map_err(EvaluateError::Faults)?;
    let mut runner = ModelRunner::new(model)?;
    let scored = Subsample::new(parts(prepared, options), MAX_SCORED);
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

/// Returns a note if principal components were skipped, or reproduce the records they were fitted to.
fn pca_note(runner: &ModelRunner, pca: Option<&(Pca, usize)>) -> Option<String> {
    if let Some((pca, fitted_records)) = pca {
        let size = pca.size();
        return (*fitted_records <= size).then(|| {
            format!(
                "{size} principal components were fitted to only {fitted_records} records, which \
                 they reproduce exactly; use more training records for a comparison"
            )
        });
    }
    let values = Pca::basis_values(runner.record_len()?, runner.code_size()?);
    (values > MAX_BASIS_VALUES).then(|| {
        format!(
            "principal components were skipped: they require {values} values in memory, more than \
             the maximum of {MAX_BASIS_VALUES}"
        )
    })
}

fn check_has_records(scored: &Subsample<'_>) -> Result<(), StageError> {
    if scored.len() > 0 {
        return Ok(());
    }
    let subsets = scored.subsets().iter();
    let names: Vec<&str> = subsets.map(|(subset, _)| subset.as_str()).collect();
    Err(StageError::Other(format!(
        "the data has no records in the parts to score ({}); select other parts",
        names.join(", ")
    )))
}

fn levels(
    model: &Model,
    options: &EvaluateOptions,
    format: Option<&PixelFormat>,
) -> Result<Vec<CorruptionLevel>, Vec<ConfigError>> {
    if options.corruptions.is_empty() {
        let trained = model
            .card()
            .map(denoising::trained_with)
            .transpose()?
            .unwrap_or_default();
        return trained
            .iter()
            .map(|specs| CorruptionLevel::plan(specs, format))
            .collect();
    }
    options
        .corruptions
        .iter()
        .map(|spec| CorruptionLevel::plan(std::slice::from_ref(spec), format))
        .collect()
}

/// Returns the parts that are scored.
fn parts<'a>(
    prepared: &'a PreparedDataset,
    options: &EvaluateOptions,
) -> Vec<(Subset, &'a crate::data::RecordFile)> {
    let normal_in_test = prepared.test.len() as u64 > prepared.anomalies;
    let chosen = match options.parts.as_slice() {
        [] if normal_in_test => vec![Subset::Test],
        [] if prepared.anomalies > 0 => vec![Subset::Validation, Subset::Test],
        [] => vec![Subset::Validation],
        chosen => chosen.to_vec(),
    };
    chosen
        .into_iter()
        .map(|part| (part, prepared.subset(part)))
        .collect()
}

/// Fits principal components to the training part, with the code size of the model. Returns them
/// with the number of records that they were fitted to; `None` if the model has no code, or there
/// are fewer than 2 records.
fn fit_pca(
    runner: &ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    progress: &mut Progress<'_>,
) -> Result<Option<(Pca, usize)>, StageError> {
    let (Some(size), Some(len)) = (runner.code_size(), runner.record_len()) else {
        return Ok(None);
    };
    let fitted = fitted.at_most((MAX_FITTED_VALUES / len.max(1)).max(2));
    if len == 0 || fitted.len() < 2 || Pca::basis_values(len, size) > MAX_BASIS_VALUES {
        return Ok(None);
    }
    let mut seen = 0;
    let pca = Pca::fit(len, size, |work| {
        seen = 0;
        fitted.read(input, &mut |batch| {
            seen += batch.records.len();
            work(&batch.values);
            progress("fitting principal components", seen, fitted.len())
        })
    })?;
    Ok(pca.map(|pca| (pca, seen)))
}

/// Returns the maximum number of bytes that fitting principal components takes for records of `len`
/// values and a code of `size` values.
pub fn max_pca_bytes(len: usize, size: usize) -> u64 {
    match Pca::basis_values(len, size) {
        _ if size == 0 => 0,
        values if values > MAX_BASIS_VALUES => 0,
        _ => Pca::fit_bytes(len, size) + PCA_BLOCK_BYTES,
    }
}

/// Bytes of the block of records that is read at a time.
const PCA_BLOCK_BYTES: u64 = 32 << 20;

fn score<'a>(
    runner: &mut ModelRunner,
    model: &Model,
    scored: &Subsample<'_>,
    pca: Option<&'a Pca>,
    format: Option<PixelFormat>,
    progress: &mut Progress<'_>,
) -> Result<ScoreAccumulator<'a>, StageError> {
    let codes = runner
        .code_size()
        .map(|size| MAX_CLASSIFIED.min(MAX_CODE_VALUES / size));
    let features = model.feature_input().and_then(|_| runner.record_len());
    let mut tally =
        ScoreAccumulator::new(model.loss(), (format, features), pca, scored.len(), codes);
    let mut seen = 0;
    scored.read(model.input(), &mut |batch| {
        let model_output = runner.run(batch, false);
        tally.add(batch, &model_output);
        seen += batch.records.len();
        progress(
            "scoring",
            batch
                .records
                .last()
                .map_or(0, |entry| entry.sample_index + 1),
            scored.len(),
        )
    })?;
    if let (true, Some(reason)) = (seen > 0 && tally.failed == seen, runner.failure()) {
        return Err(StageError::Model(format!(
            "the model fails on every record: {reason}"
        )));
    }
    // The subsample leaves out records that do not fit the input of the model.
    tally.failed += scored.len() - seen;
    Ok(tally)
}

fn model_summary(model: &Model, runner: &ModelRunner) -> ModelSummary {
    ModelSummary {
        name: model
            .card()
            .map_or(model.name(), |card| card.name.as_str())
            .to_owned(),
        kind: model.kind().to_owned(),
        digest: model.digest().to_owned(),
        summary: model.summary(),
        loss: model.loss().as_str(),
        code_size: runner.code_size(),
    }
}

fn data_summary(
    prepared: &PreparedDataset,
    scored: &Subsample<'_>,
    tally: &ScoreAccumulator<'_>,
) -> DataSummary {
    DataSummary {
        digest: prepared.digest.clone(),
        parts: scored
            .subsets()
            .iter()
            .map(|(part, _)| part.as_str())
            .collect(),
        records: scored.total(),
        scored: scored.len() - tally.failed,
        anomalies: tally.scores.iter().filter(|score| score.anomaly).count(),
        rejects: prepared.rejects,
        without_label: prepared.without_label,
        failed: tally.failed,
    }
}

fn compression(runner: &ModelRunner, image: bool) -> Option<CompressionRatio> {
    let (input_values, code_values) = (runner.record_len()?, runner.code_size()?);
    let input_bytes = if image {
        input_values
    } else {
        input_values * size_of::<f32>()
    };
    let code_bytes = code_values * size_of::<f32>();
    let ratio = |input: usize, code: usize| input as f64 / code as f64;
    let (values_ratio, bytes_ratio) = (
        ratio(input_values, code_values),
        ratio(input_bytes, code_bytes),
    );
    Some(CompressionRatio {
        input_values,
        code_values,
        values_ratio,
        input_bytes,
        code_bytes,
        bytes_ratio,
    })
}

/// Returns the scores of normal records, or of anomalies if all records are anomalies.
fn normal_scores<'a>(tally: &'a ScoreAccumulator<'_>) -> Vec<&'a RecordScore> {
    let normal: Vec<&RecordScore> = tally.scores.iter().filter(|score| !score.anomaly).collect();
    if normal.is_empty() {
        tally.scores.iter().collect()
    } else {
        normal
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn reconstruction(
    tally: &ScoreAccumulator<'_>,
    prepared: &PreparedDataset,
) -> Result<Option<ReconstructionScores>, StageError> {
    let mut scores = normal_scores(tally);
    let mse = mean(scores.iter().map(|score| score.mse));
    let mut errors: Vec<f64> = scores.iter().map(|score| score.error).collect();
    let Some(stats) = ErrorStats::from_errors(&mut errors) else {
        return Ok(None);
    };
    let features = tally.features.as_ref().and_then(FeatureErrors::stats);
    scores.sort_by(|a, b| a.error.total_cmp(&b.error));
    let images = tally
        .quality
        .as_ref()
        .and_then(accumulator::ImageQualityAccumulator::finish);
    let last = scores.len() - 1;
    Ok(Some(ReconstructionScores {
        error: ErrorStats { features, ..stats },
        mse,
        images,
        best: ExampleRef::new(prepared, scores[0])?,
        median: ExampleRef::new(prepared, scores[last / 2])?,
        worst: ExampleRef::new(prepared, scores[last])?,
        largest_errors: listed(prepared, scores.iter().rev())?,
    }))
}

/// Maximum number of records that a list names.
const MAX_LISTED: usize = 10;

/// Names the first records.
fn listed<'a>(
    prepared: &PreparedDataset,
    scores: impl Iterator<Item = &'a &'a RecordScore>,
) -> Result<Vec<ExampleRef>, StageError> {
    scores
        .take(MAX_LISTED)
        .map(|score| ExampleRef::new(prepared, score))
        .collect()
}

fn baseline(pca: &Pca, fitted: usize, tally: &ScoreAccumulator<'_>) -> Option<PcaBaseline> {
    let scores = normal_scores(tally);
    let mse = scores
        .iter()
        .map(|score| score.pca)
        .collect::<Option<Vec<f64>>>()
        .filter(|all| !all.is_empty())?;
    Some(PcaBaseline {
        code_size: pca.size(),
        fitted,
        explained_share: pca.explained_share(),
        mse: mean(mse.into_iter()),
        model_mse: Some(mean(scores.iter().map(|score| score.mse))),
    })
}

/// The magnitude above which a value of a latent is active, relative to the root mean square of all
/// values.
const ACTIVE: f64 = 0.1;

fn latent_usage(tally: &ScoreAccumulator<'_>, size: Option<usize>) -> Option<LatentUsage> {
    let (sample, size) = (tally.codes.as_ref()?, size?);
    let normal = || {
        sample
            .codes
            .chunks_exact(size)
            .zip(&sample.anomalies)
            .filter(|(_, anomaly)| !**anomaly)
    };
    let codes = normal().count();
    let squares: f64 = normal()
        .flat_map(|(code, _)| code)
        .map(|&value| f64::from(value).powi(2))
        .sum();
    let threshold = ACTIVE * (squares / (codes * size) as f64).sqrt();
    let mut active = vec![0_usize; size];
    for (code, _) in normal() {
        active
            .iter_mut()
            .zip(code)
            .for_each(|(count, value)| *count += usize::from(f64::from(value.abs()) > threshold));
    }
    (codes > 0).then(|| LatentUsage {
        codes,
        active_share: active.iter().sum::<usize>() as f64 / (codes * size) as f64,
        threshold,
        never_active: active.iter().filter(|&&count| count == 0).count(),
    })
}

/// Fits classifiers to latents and scores them, if the data has labels and the model has a code.
fn classify_latents(
    evaluation: &mut Evaluation,
    runner: &mut ModelRunner,
    input: &ModelInput,
    prepared: &PreparedDataset,
    (fitted, pca): (&Subsample<'_>, Option<&(Pca, usize)>),
    tally: &ScoreAccumulator<'_>,
    progress: &mut Progress<'_>,
) -> Result<(), StageError> {
    let (Some(size), Some(sample)) = (runner.code_size(), &tally.codes) else {
        return Ok(());
    };
    match prepared.labels.len() {
        0 => return Ok(()),
        1..=labels::MAX_LABELS => {}
        many => {
            let most = labels::MAX_LABELS;
            evaluation.notes.push(format!(
                "classification was skipped: the data has {many} labels, more than the maximum of \
                 {most}"
            ));
            return Ok(());
        }
    }
    let fitted = fitted.at_most((MAX_CODE_VALUES / size).max(1));
    let mut report_progress = |done| progress("fitting classifiers", done, fitted.len());
    evaluation.labels = labels::measure(
        runner,
        input,
        &fitted,
        sample,
        pca.map(|(pca, _)| pca),
        &mut report_progress,
    )?;
    match &evaluation.labels {
        Some(labels) if labels.scored < evaluation.data.scored => {
            evaluation.notes.push(format!(
                "classification was scored on {} records, evenly spaced",
                labels.scored
            ));
        }
        Some(_) => {}
        None => {
            evaluation.notes.push(
                "classification was skipped: the training part or the scored records have too few \
                 labels"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Returns the notes on samples and omissions, as sentences.
fn notes(
    prepared: &PreparedDataset,
    scored: &Subsample<'_>,
    fitted: &Subsample<'_>,
    tally: &ScoreAccumulator<'_>,
    failure: Option<&str>,
) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(
        failure.map(|reason| format!("reason of the first failure of the model: {reason}")),
    );
    if scored.len() < scored.total() {
        notes.push(format!(
            "scored {} of {} records, evenly spaced",
            scored.len(),
            scored.total()
        ));
    }
    if fitted.len() < fitted.total() {
        notes.push(format!(
            "principal components and classifiers were fitted to at most {} of {} training \
             records, evenly spaced",
            fitted.len(),
            fitted.total()
        ));
    }
    if scored
        .subsets()
        .iter()
        .any(|(part, _)| *part == Subset::Training)
    {
        notes.push(
            "the scored records include the training part, on which the model may have been trained"
                .to_owned(),
        );
    }
    if fitted.len() == 0 {
        notes.push(
            "the data has no training part to fit principal components or classifiers to"
                .to_owned(),
        );
    }
    if tally.quality.is_some() && scored.len() > MAX_SSIM_IMAGES {
        notes.push(format!(
            "structural similarity was measured on {MAX_SSIM_IMAGES} images, evenly spaced"
        ));
    }
    if prepared.without_label > 0 {
        notes.push(format!(
            "{} records have no value in the column of `normal`; they are neither normal nor \
             anomalies, and are left out",
            prepared.without_label
        ));
    }
    if tally.outside > 0 {
        notes.push(format!(
            "{} records have values outside of 0..1, which the loss bce clamps",
            tally.outside
        ));
    }
    if prepared.anomalies > 0 && tally.scores.iter().all(|score| score.anomaly) {
        notes.push(
            "only anomalies were scored; select a part that has normal records as well".to_owned(),
        );
    }
    if let Some(values) = &prepared.normal_values {
        notes.push(format!(
            "no record satisfies the comparison `normal`; its column holds {values}"
        ));
    }
    notes
}
