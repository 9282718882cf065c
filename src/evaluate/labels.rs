//! Scores classifiers that predict labels from latents: they are fitted to the latents of the
//! training part and scored on other latents.

use super::accumulator::{LatentSample, row_of};
use super::inference::ModelRunner;
use super::result::{ClassificationScores, ClassifierAccuracy};
use super::sampler::Subsample;
use crate::error::StageError;
use crate::eval_metrics::linear_probe::LinearProbe;
use crate::eval_metrics::{Pca, RowMatrix, knn};
use crate::model::ModelInput;

/// The number of neighbors that vote (k).
const NEIGHBORS: usize = 5;
/// Maximum number of labels. A column with more labels usually holds names of records.
pub(super) const MAX_LABELS: usize = 128;

/// Latents with labels.
struct LabeledCodes {
    codes: Vec<f32>,
    pca: Vec<f32>,
    labels: Vec<u32>,
}

/// Fits classifiers to the latents of `fitted` and scores them on `scored`. Returns `None` if fewer
/// than two labels are left.
///
/// # Errors
/// Returns an error if a record cannot be read.
pub(super) fn measure(
    runner: &mut ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    scored: &LatentSample,
    pca: Option<&Pca>,
    progress: &mut dyn FnMut(usize) -> Result<(), StageError>,
) -> Result<Option<ClassificationScores>, StageError> {
    let Some(code_size) = runner.code_size() else {
        return Ok(None);
    };
    let training = encode(runner, input, fitted, pca, progress)?;
    let test = with_labels(scored, code_size, pca.map(Pca::size));
    let mut classes = training.labels.clone();
    classes.sort_unstable();
    classes.dedup();
    let latent = accuracy(
        &training.codes,
        &test.codes,
        code_size,
        &training.labels,
        &test.labels,
    );
    let pca = pca.and_then(|pca| {
        accuracy(
            &training.pca,
            &test.pca,
            pca.size(),
            &training.labels,
            &test.labels,
        )
    });
    Ok(latent.map(|latent| ClassificationScores {
        classes: classes.len(),
        fitted: training.labels.len(),
        scored: test.labels.len(),
        latent,
        pca,
    }))
}

fn encode(
    runner: &mut ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    pca: Option<&Pca>,
    progress: &mut dyn FnMut(usize) -> Result<(), StageError>,
) -> Result<LabeledCodes, StageError> {
    let mut encoded = LabeledCodes {
        codes: Vec::new(),
        pca: Vec::new(),
        labels: Vec::new(),
    };
    fitted.read(input, &mut |batch| {
        let model_output = runner.run(batch, true);
        let (rows, codes) = (batch.records.len(), model_output.codes.unwrap_or_default());
        let pca = pca.map(|pca| pca.encode(&batch.values)).unwrap_or_default();
        for (row, entry) in batch.records.iter().enumerate() {
            if let (Some(label), false) = (entry.label, model_output.failed[row]) {
                encoded.labels.push(label);
                encoded.codes.extend_from_slice(row_of(&codes, row, rows));
                encoded.pca.extend_from_slice(row_of(&pca, row, rows));
            }
        }
        progress(
            batch
                .records
                .last()
                .map_or(0, |entry| entry.sample_index + 1),
        )
    })?;
    Ok(encoded)
}

/// Returns the latents of the sample whose records have a label.
fn with_labels(sample: &LatentSample, code_size: usize, pca_size: Option<usize>) -> LabeledCodes {
    let mut labeled = LabeledCodes {
        codes: Vec::new(),
        pca: Vec::new(),
        labels: Vec::new(),
    };
    for (row, label) in sample.labels.iter().enumerate() {
        if let Some(label) = label {
            labeled.labels.push(*label);
            labeled
                .codes
                .extend_from_slice(&sample.codes[row * code_size..(row + 1) * code_size]);
            labeled.pca.extend(
                pca_size
                    .map(|size| &sample.pca[row * size..(row + 1) * size])
                    .unwrap_or_default(),
            );
        }
    }
    labeled
}

fn accuracy(
    training: &[f32],
    test: &[f32],
    width: usize,
    labels: &[u32],
    truth: &[u32],
) -> Option<ClassifierAccuracy> {
    let (fitted, scored) = (RowMatrix::new(training, width), RowMatrix::new(test, width));
    let probe = LinearProbe::fit(fitted, labels)?.accuracy(scored, truth)?;
    let neighbors = knn::accuracy(fitted, labels, scored, truth, NEIGHBORS)?;
    Some(ClassifierAccuracy { neighbors, probe })
}
