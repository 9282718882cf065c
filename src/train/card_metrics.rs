//! The quality metrics of a model card, measured by the same code as the `evaluate` command.

use super::TrainError;
use crate::data::{PreparedDataset, Subset};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::evaluate::options::{EvaluateError, EvaluateOptions};
use crate::evaluate::{DenoisingQuality, Evaluation, evaluate};
use crate::model::Model;

/// The errors of a model and of principal components on the same records.
#[derive(Debug, Clone, PartialEq)]
pub struct PcaComparison {
    /// The mean squared error of the model.
    pub model_mse: f64,
    /// The mean squared error of principal components.
    pub pca_mse: f64,
    /// Number of components, as many as the code has values.
    pub components: usize,
}

/// The quality of a model.
#[derive(Debug, Default)]
pub(crate) struct CardMetrics {
    /// The metrics by name.
    pub named: Vec<(String, f64)>,
    /// The comparison with principal components, if the model has a code.
    pub pca: Option<PcaComparison>,
}

/// Measures a model on the validation part, and on all anomalies if the data has any.
///
/// # Errors
/// When the model fails or the records cannot be read.
pub(crate) fn measure(
    model: &Model,
    prepared: &PreparedDataset,
) -> Result<CardMetrics, TrainError> {
    if prepared.validation.is_empty() {
        return Ok(CardMetrics::default());
    }
    let mut parts = vec![Subset::Validation];
    parts.extend((prepared.anomalies > 0).then_some(Subset::Test));
    let options = EvaluateOptions {
        parts,
        corruptions: Vec::new(),
    };
    let evaluation = evaluate(model, prepared, &options, &mut |_, _, _| Ok(())).map_err(
        |error| match error {
            EvaluateError::Faults(faults) => TrainError::Faults(faults),
            EvaluateError::Stage(error) => TrainError::Stage(error),
            EvaluateError::Argument(reason) => {
                TrainError::Stage(StageError::new(ErrorCode::Training, reason))
            }
        },
    )?;
    let pca = evaluation.pca.as_ref().and_then(|pca| {
        Some(PcaComparison {
            model_mse: pca.model_mse?,
            pca_mse: pca.mse,
            components: pca.code_size,
        })
    });
    Ok(CardMetrics {
        named: named(&evaluation),
        pca,
    })
}

fn named(evaluation: &Evaluation) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let mut add =
        |name: &str, value: Option<f64>| all.extend(value.map(|value| (name.to_owned(), value)));
    let of = |closeness: &DenoisingQuality| closeness.images.clone();
    for denoising in &evaluation.denoising {
        let level = denoising
            .sigma
            .map(|sigma| format!("_sigma{sigma}"))
            .unwrap_or_default();
        let (noisy, output) = (of(&denoising.noisy), of(&denoising.output));
        add(&format!("input_mse{level}"), Some(denoising.noisy.mse));
        add(&format!("mse{level}"), Some(denoising.output.mse));
        add(
            &format!("input_psnr{level}"),
            noisy.and_then(|images| images.psnr),
        );
        add(
            &format!("psnr{level}"),
            output.as_ref().and_then(|images| images.psnr),
        );
        add(
            &format!("ssim{level}"),
            output.and_then(|images| images.ssim),
        );
    }
    // The reconstruction of clean images is not a measure of a denoiser.
    if let Some(clean) = evaluation
        .reconstruction
        .as_ref()
        .filter(|_| evaluation.denoising.is_empty())
    {
        add("mse", Some(clean.mse));
        add("psnr", clean.images.as_ref().and_then(|images| images.psnr));
        add("ssim", clean.images.as_ref().and_then(|images| images.ssim));
    }
    add("pca_mse", evaluation.pca.as_ref().map(|pca| pca.mse));
    add(
        "active_share",
        evaluation.code.as_ref().map(|code| code.active_share),
    );
    if let Some(labels) = &evaluation.labels {
        add("neighbours_accuracy", Some(labels.latent.neighbors));
        add("probe_accuracy", Some(labels.latent.probe));
        add(
            "pca_neighbours_accuracy",
            labels.pca.as_ref().map(|pca| pca.neighbors),
        );
        add(
            "pca_probe_accuracy",
            labels.pca.as_ref().map(|pca| pca.probe),
        );
    }
    if let Some(anomalies) = &evaluation.anomalies {
        add("auc_roc", Some(anomalies.model.auc_roc));
        add("average_precision", Some(anomalies.model.average_precision));
        add("auc_roc_pca", anomalies.pca.as_ref().map(|pca| pca.auc_roc));
    }
    all
}
