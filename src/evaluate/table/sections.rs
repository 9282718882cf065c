//! The sections of the text form of an evaluation.

use std::fmt;

use crate::evaluate::result::anomaly_scores::{
    AnomalyScores, DecodeDistance, DenoisingQuality, DenoisingScores, RankingScores,
};
use crate::evaluate::result::{
    ClassificationScores, ClassifierAccuracy, CompressionRatio, ExampleRef, ImageQuality,
    LatentUsage, PcaBaseline, ReconstructionScores,
};
use crate::evaluate::table::cells::{NAMES, figure, heads, row};
use crate::text_escape;

pub(super) fn reconstruction(
    f: &mut fmt::Formatter<'_>,
    found: &ReconstructionScores,
    loss: &str,
) -> fmt::Result {
    let (error, quantiles) = (&found.error, &found.error.quantiles);
    writeln!(f, "\nreconstruction error ({loss})")?;
    row(
        f,
        "mean, deviation",
        &[figure(error.mean), figure(error.std)],
    )?;
    row(
        f,
        "p01, p05, p25",
        &[
            figure(quantiles.p01),
            figure(quantiles.p05),
            figure(quantiles.p25),
        ],
    )?;
    row(
        f,
        "p50, p75",
        &[figure(quantiles.p50), figure(quantiles.p75)],
    )?;
    row(
        f,
        "p95, p99",
        &[figure(quantiles.p95), figure(quantiles.p99)],
    )?;
    if loss != "mse" {
        row(f, "mean squared error", &[figure(found.mse)])?;
    }
    if let Some(images) = &found.images {
        row(f, "PSNR", &[decibels(images)])?;
        row(f, "SSIM", &[similarity(images)])?;
    }
    for (name, example) in [
        ("best", &found.best),
        ("median", &found.median),
        ("worst", &found.worst),
    ] {
        row(
            f,
            name,
            &[figure(example.error), format!("  {}", example.place())],
        )?;
    }
    Ok(())
}

pub(super) fn decode_distance(f: &mut fmt::Formatter<'_>, found: &DecodeDistance) -> fmt::Result {
    heads(f, "decoding of JPEGs", &["full", "scaled"])?;
    if let (Some(full), Some(scaled)) = (found.full_error, found.scaled_error) {
        row(f, "reconstruction error", &[figure(full), figure(scaled)])?;
    }
    writeln!(
        f,
        "  {:<NAMES$}  {} of 255 in the mean, at most {} ({} records)",
        "change of the pixels",
        figure(found.mean_steps),
        found.max_steps,
        found.records
    )?;
    match found.latent {
        Some(share) => writeln!(
            f,
            "  {:<NAMES$}  {} of their standard deviation",
            "change of the latents",
            figure(share)
        ),
        None => Ok(()),
    }
}

/// Maximum number of records in a list; the JSON names more.
const MAX_LISTED: usize = 5;

pub(super) fn listed(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    records: &[ExampleRef],
) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    for record in records.iter().take(MAX_LISTED) {
        let label = record.label.as_ref().map_or_else(String::new, |label| {
            format!(" ({})", text_escape::line(label))
        });
        writeln!(f, "  {:<10}{}{label}", figure(record.error), record.place())?;
    }
    Ok(())
}

pub(super) fn compression(f: &mut fmt::Formatter<'_>, found: &CompressionRatio) -> fmt::Result {
    let line = |input: usize, code: usize, unit: &str, ratio: f64| {
        format!("{input} {unit} to {code}: {ratio:.1}x")
    };
    let values = line(
        found.input_values,
        found.code_values,
        "values",
        found.values_ratio,
    );
    let bytes = line(
        found.input_bytes,
        found.code_bytes,
        "bytes",
        found.bytes_ratio,
    );
    writeln!(f, "  {:<NAMES$}  {values}, {bytes}", "compression")
}

pub(super) fn code(f: &mut fmt::Formatter<'_>, found: &LatentUsage) -> fmt::Result {
    let (share, threshold) = (found.active_share * 100.0, figure(found.threshold));
    write!(
        f,
        "  {:<NAMES$}  {share:.1} % of the values (magnitude above {threshold}, a tenth of the \
         root mean square)",
        "active"
    )?;
    match found.never_active {
        0 => writeln!(f),
        never => writeln!(f, "; dimensions that are never active: {never}"),
    }
}

pub(super) fn baseline(f: &mut fmt::Formatter<'_>, found: &PcaBaseline) -> fmt::Result {
    heads(f, "against PCA", &["model", "PCA", "PCA / model"])?;
    let model = found.model_mse;
    let ratio = model.map_or("-".to_owned(), |model| format!("{:.2}", found.mse / model));
    row(
        f,
        "mean squared error",
        &[
            model.map_or("-".to_owned(), figure),
            figure(found.mse),
            ratio,
        ],
    )?;
    let (size, fitted, share) = (found.code_size, found.fitted, found.explained_share * 100.0);
    writeln!(
        f,
        "  PCA: {size} components fitted to {fitted} training records explain {share:.1} % of \
         their variance"
    )
}

pub(super) fn labels(f: &mut fmt::Formatter<'_>, found: &ClassificationScores) -> fmt::Result {
    heads(f, "labels", &["latent", "PCA"])?;
    let accuracy = |pick: fn(&ClassifierAccuracy) -> f64| {
        let pca = found
            .pca
            .as_ref()
            .map_or("-".to_owned(), |pca| format!("{:.4}", pick(pca)));
        [format!("{:.4}", pick(&found.latent)), pca]
    };
    row(
        f,
        "5 nearest neighbors",
        &accuracy(|accuracy| accuracy.neighbors),
    )?;
    row(f, "linear probe", &accuracy(|accuracy| accuracy.probe))?;
    let ClassificationScores {
        classes,
        fitted,
        scored,
        ..
    } = found;
    writeln!(
        f,
        "  accuracy over {classes} labels: fitted to {fitted} training records, scored on {scored}"
    )
}

pub(super) fn anomalies_found(f: &mut fmt::Formatter<'_>, found: &AnomalyScores) -> fmt::Result {
    let rankings = found.rankings();
    let names: Vec<&str> = rankings.iter().map(|(name, _)| *name).collect();
    heads(f, "anomalies", &names)?;
    let ranking = |pick: fn(&RankingScores) -> f64| {
        let cells = rankings.iter().map(|(_, scores)| {
            scores.map_or("-".to_owned(), |scores| format!("{:.4}", pick(scores)))
        });
        cells.collect::<Vec<_>>()
    };
    row(f, "AUCROC", &ranking(|ranking| ranking.auc_roc))?;
    row(
        f,
        "average precision",
        &ranking(|ranking| ranking.average_precision),
    )?;
    let (normal, anomalies) = (found.normal, found.anomalies);
    let (mean, median) = (figure(found.error.mean), figure(found.error.quantiles.p50));
    writeln!(
        f,
        "  anomalies: {anomalies}, normal records: {normal}; error of the anomalies: mean {mean}, \
         median {median}"
    )?;
    found.thresholds.iter().try_for_each(|threshold| {
        let (detected, alarms) = (
            threshold.anomalies_above * 100.0,
            threshold.normal_above * 100.0,
        );
        let (quantile, error) = (threshold.quantile, figure(threshold.error));
        writeln!(
            f,
            "  above {quantile} of the card, {error}: {detected:.1} % of the anomalies, \
             {alarms:.1} % of the normal records"
        )
    })
}

pub(super) fn denoising(f: &mut fmt::Formatter<'_>, levels: &[DenoisingScores]) -> fmt::Result {
    heads(f, "denoising", &["corrupted", "output"])?;
    for level in levels {
        writeln!(f, "  {}, {} records", level.corruption, level.records)?;
        let both =
            |pick: fn(&DenoisingQuality) -> String| [pick(&level.noisy), pick(&level.output)];
        row(f, "  mean squared error", &both(|close| figure(close.mse)))?;
        if level.noisy.images.is_some() {
            row(
                f,
                "  PSNR",
                &both(|close| close.images.as_ref().map_or("-".to_owned(), decibels)),
            )?;
            row(
                f,
                "  SSIM",
                &both(|close| close.images.as_ref().map_or("-".to_owned(), similarity)),
            )?;
        }
    }
    Ok(())
}

fn decibels(images: &ImageQuality) -> String {
    images
        .psnr
        .map_or("all identical".to_owned(), |psnr| format!("{psnr:.2} dB"))
}

fn similarity(images: &ImageQuality) -> String {
    images
        .ssim
        .map_or("-".to_owned(), |ssim| format!("{ssim:.4}"))
}
