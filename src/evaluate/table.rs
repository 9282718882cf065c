//! The result of an evaluation as a text table.

use std::fmt;

use super::result::{
    AnomalyScores, ClassificationScores, ClassifierAccuracy, CompressionRatio, DecodeDistance,
    DenoisingQuality, DenoisingScores, Evaluation, ExampleRef, ImageQuality, LatentUsage,
    PcaBaseline, RankingScores, ReconstructionScores,
};
use crate::text_escape;

/// Width of the first column, in characters.
const NAMES: usize = 22;
/// Width of a column of figures, in characters.
const FIGURES: usize = 14;

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, data) = (&self.model, &self.data);
        writeln!(f, "{}: {}", model.name, model.summary)?;
        let parts = data.parts_in_words();
        let anomalies = match data.anomalies {
            0 => String::new(),
            anomalies => format!(", {anomalies} of them anomalies"),
        };
        writeln!(f, "{} records of the {parts}{anomalies}", data.scored)?;
        self.reconstruction
            .iter()
            .try_for_each(|found| reconstruction(f, found, model.loss))?;
        if self.compression.is_some() || self.code.is_some() {
            writeln!(f, "\ncode")?;
        }
        self.compression
            .iter()
            .try_for_each(|found| compression(f, found))?;
        self.code.iter().try_for_each(|found| code(f, found))?;
        self.pca.iter().try_for_each(|found| baseline(f, found))?;
        self.labels.iter().try_for_each(|found| labels(f, found))?;
        self.anomalies
            .iter()
            .try_for_each(|found| anomalies_found(f, found))?;
        if let Some(found) = &self.reconstruction {
            let title = if self.anomalies.is_some() {
                "normal records with the largest errors"
            } else {
                "records with the largest errors"
            };
            listed(f, title, &found.largest_errors)?;
        }
        if let Some(found) = &self.anomalies {
            listed(
                f,
                "anomalies with the largest errors",
                &found.largest_errors,
            )?;
            listed(
                f,
                "anomalies with the smallest errors",
                &found.smallest_errors,
            )?;
        }
        if !self.denoising.is_empty() {
            denoising(f, &self.denoising)?;
        }
        self.decode_distance
            .iter()
            .try_for_each(|found| decode_distance(f, found))?;
        if data.failed > 0 || data.rejects > 0 || !self.notes.is_empty() {
            writeln!(f, "\nnotes")?;
        }
        if data.failed > 0 {
            writeln!(
                f,
                "  the model failed on {} records, which are not counted",
                data.failed
            )?;
        }
        if data.rejects > 0 {
            writeln!(
                f,
                "  {} records of the data could not be read",
                data.rejects
            )?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  {note}"))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &[String]) -> fmt::Result {
    write!(f, "  {name:<NAMES$}")?;
    figures
        .iter()
        .try_for_each(|figure| write!(f, "{figure:>FIGURES$}"))?;
    writeln!(f)
}

fn heads(f: &mut fmt::Formatter<'_>, title: &str, heads: &[&str]) -> fmt::Result {
    write!(f, "\n{title:<width$}", width = NAMES + 2)?;
    heads
        .iter()
        .try_for_each(|head| write!(f, "{head:>FIGURES$}"))?;
    writeln!(f)
}

fn reconstruction(
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

fn decode_distance(f: &mut fmt::Formatter<'_>, found: &DecodeDistance) -> fmt::Result {
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

fn listed(f: &mut fmt::Formatter<'_>, title: &str, records: &[ExampleRef]) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    for record in records.iter().take(MAX_LISTED) {
        let label = record.label.as_ref().map_or_else(String::new, |label| {
            format!(" ({})", text_escape::line(label))
        });
        writeln!(f, "  {:<10}{}{label}", figure(record.error), record.place())?;
    }
    Ok(())
}

fn compression(f: &mut fmt::Formatter<'_>, found: &CompressionRatio) -> fmt::Result {
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

fn code(f: &mut fmt::Formatter<'_>, found: &LatentUsage) -> fmt::Result {
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

fn baseline(f: &mut fmt::Formatter<'_>, found: &PcaBaseline) -> fmt::Result {
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

fn labels(f: &mut fmt::Formatter<'_>, found: &ClassificationScores) -> fmt::Result {
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

fn anomalies_found(f: &mut fmt::Formatter<'_>, found: &AnomalyScores) -> fmt::Result {
    heads(f, "anomalies", &["model", "PCA"])?;
    let ranking = |pick: fn(&RankingScores) -> f64| {
        let pca = found
            .pca
            .as_ref()
            .map_or("-".to_owned(), |pca| format!("{:.4}", pick(pca)));
        [format!("{:.4}", pick(&found.model)), pca]
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

fn denoising(f: &mut fmt::Formatter<'_>, levels: &[DenoisingScores]) -> fmt::Result {
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

/// Formats a number with four significant digits.
fn figure(value: f64) -> String {
    let magnitude = if value == 0.0 {
        0.0
    } else {
        value.abs().log10().floor()
    };
    if (-4.0..6.0).contains(&magnitude) {
        let decimals = (3.0 - magnitude).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}
