//! How well codes tell labels apart: classifiers fitted to codes of the training part, scored with
//! others.

use super::accumulator::{LatentSample, row_of};
use super::inference::ModelRunner;
use super::result::{ClassificationScores, ClassifierAccuracy};
use super::sampler::Subsample;
use crate::error::StageError;
use crate::eval_metrics::linear_probe::LinearProbe;
use crate::eval_metrics::{Pca, RowMatrix, knn};
use crate::model::ModelInput;

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// Labels that are told apart at most: beyond, a label is rather a name.
pub(super) const MAX_LABELS: usize = 128;

/// Codes with labels.
struct LabeledCodes {
    codes: Vec<f32>,
    pca: Vec<f32>,
    labels: Vec<u32>,
}

/// Fits classifiers to the codes of `fitted`, and scores them with those that were kept. `None`
/// where no label is left, or one alone.
///
/// # Errors
/// When records cannot be read.
pub(super) fn measure(
    runner: &mut ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    scored: &LatentSample,
    pca: Option<&Pca>,
    progress: &mut dyn FnMut(usize),
) -> Result<Option<ClassificationScores>, StageError> {
    let Some(code_size) = runner.code_size() else {
        return Ok(None);
    };
    let known = encode(runner, input, fitted, pca, progress)?;
    let asked = labelled(scored, code_size, pca.map(Pca::size));
    let mut classes = known.labels.clone();
    classes.sort_unstable();
    classes.dedup();
    let latent = accuracy(
        &known.codes,
        &asked.codes,
        code_size,
        &known.labels,
        &asked.labels,
    );
    let pca = pca.and_then(|pca| {
        accuracy(
            &known.pca,
            &asked.pca,
            pca.size(),
            &known.labels,
            &asked.labels,
        )
    });
    Ok(latent.map(|latent| ClassificationScores {
        classes: classes.len(),
        fitted: known.labels.len(),
        scored: asked.labels.len(),
        latent,
        pca,
    }))
}

fn encode(
    runner: &mut ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    pca: Option<&Pca>,
    progress: &mut dyn FnMut(usize),
) -> Result<LabeledCodes, StageError> {
    let mut known = LabeledCodes {
        codes: Vec::new(),
        pca: Vec::new(),
        labels: Vec::new(),
    };
    fitted.read(input, &mut |slice| {
        let given = runner.run(slice, true);
        let (rows, codes) = (slice.records.len(), given.codes.unwrap_or_default());
        let pca = pca.map(|pca| pca.encode(&slice.values)).unwrap_or_default();
        for (row, entry) in slice.records.iter().enumerate() {
            if let (Some(label), false) = (entry.label, given.failed[row]) {
                known.labels.push(label);
                known.codes.extend_from_slice(row_of(&codes, row, rows));
                known.pca.extend_from_slice(row_of(&pca, row, rows));
            }
        }
        progress(slice.records.last().map_or(0, |entry| entry.place + 1));
        Ok(())
    })?;
    Ok(known)
}

/// Those of the kept codes that have a label.
fn labelled(kept: &LatentSample, code_size: usize, pca_size: Option<usize>) -> LabeledCodes {
    let mut asked = LabeledCodes {
        codes: Vec::new(),
        pca: Vec::new(),
        labels: Vec::new(),
    };
    for (row, label) in kept.labels.iter().enumerate() {
        if let Some(label) = label {
            asked.labels.push(*label);
            asked
                .codes
                .extend_from_slice(&kept.codes[row * code_size..(row + 1) * code_size]);
            asked.pca.extend(
                pca_size
                    .map(|size| &kept.pca[row * size..(row + 1) * size])
                    .unwrap_or_default(),
            );
        }
    }
    asked
}

fn accuracy(
    known: &[f32],
    asked: &[f32],
    width: usize,
    labels: &[u32],
    truth: &[u32],
) -> Option<ClassifierAccuracy> {
    let (known, asked) = (RowMatrix::new(known, width), RowMatrix::new(asked, width));
    let probe = LinearProbe::fit(known, labels)?.accuracy(asked, truth)?;
    let neighbours = knn::accuracy(known, labels, asked, truth, NEIGHBOURS)?;
    Some(ClassifierAccuracy { neighbours, probe })
}
