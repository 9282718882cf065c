//! Runs a model over the records to score.

use crate::error::StageError;
use crate::eval_metrics::Pca;
use crate::evaluate::accumulator::ScoreAccumulator;
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::options::Progress;
use crate::evaluate::sampler::Subsample;
use crate::image::PixelFormat;
use crate::model::Model;

/// Maximum number of latents that are classified.
const MAX_CLASSIFIED: usize = 10_000;
/// Maximum number of values of the latents in memory: 64 MiB for those that classifiers are fitted
/// to, and as much for those that are classified.
pub(super) const MAX_CODE_VALUES: usize = 1 << 24;

/// Scores the records.
///
/// # Errors
/// If the records cannot be read, or if the model fails on all of them.
pub(super) fn score<'a>(
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
    let features = model
        .feature_input()
        .and_then(|features| Some(features.groups(runner.record_len()?)));
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
