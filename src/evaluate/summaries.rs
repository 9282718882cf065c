//! The summaries of an evaluation: of the model, the data, the errors and the latents.

use crate::data::PreparedDataset;
use crate::error::StageError;
use crate::eval_metrics::Pca;
use crate::evaluate::accumulator::ScoreAccumulator;
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::notes::listed;
use crate::evaluate::options::Progress;
use crate::evaluate::result::*;
use crate::evaluate::sampler::Subsample;
use crate::evaluate::scoring::MAX_CODE_VALUES;
use crate::evaluate::{accumulator, labels};
use crate::model::card::error_stats::ErrorStats;
use crate::model::feature_errors::FeatureErrors;
use crate::model::{Model, ModelInput};

pub(super) fn model_summary(model: &Model, runner: &ModelRunner) -> ModelSummary {
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

pub(super) fn data_summary(
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

pub(super) fn compression(runner: &ModelRunner, image: bool) -> Option<CompressionRatio> {
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

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

pub(super) fn reconstruction(
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

pub(super) fn baseline(
    pca: &Pca,
    fitted: usize,
    tally: &ScoreAccumulator<'_>,
) -> Option<PcaBaseline> {
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

pub(super) fn latent_usage(
    tally: &ScoreAccumulator<'_>,
    size: Option<usize>,
) -> Option<LatentUsage> {
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
pub(super) fn classify_latents(
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
