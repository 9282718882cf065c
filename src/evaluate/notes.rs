//! Notes of an evaluation: what a reader of its numbers should consider.

use crate::data::{PreparedDataset, Subset};
use crate::error::StageError;
use crate::eval_metrics::Pca;
use crate::evaluate::accumulator::{MAX_SSIM_IMAGES, ScoreAccumulator};
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::pca_baseline::MAX_BASIS_VALUES;
use crate::evaluate::result::*;
use crate::evaluate::sampler::Subsample;

/// Returns a note if principal components were skipped, or reproduce the records they were fitted to.
pub(super) fn pca_note(runner: &ModelRunner, pca: Option<&(Pca, usize)>) -> Option<String> {
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

/// Maximum number of records that a list names.
const MAX_LISTED: usize = 10;

/// Names the first records.
pub(super) fn listed<'a>(
    prepared: &PreparedDataset,
    scores: impl Iterator<Item = &'a &'a RecordScore>,
) -> Result<Vec<ExampleRef>, StageError> {
    scores
        .take(MAX_LISTED)
        .map(|score| ExampleRef::new(prepared, score))
        .collect()
}

/// Returns the notes on samples and omissions, as sentences.
pub(super) fn notes(
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
    let has_scores = !tally.scores.is_empty();
    if prepared.anomalies > 0 && has_scores && tally.scores.iter().all(|score| score.anomaly) {
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
