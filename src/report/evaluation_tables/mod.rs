//! The results of an evaluation, as key figures and as tables.

pub(crate) mod comparisons;

use maud::Markup;

use super::page::{FigureTile, figures};
use super::scale::figure;
use crate::evaluate::{
    AnomalyScores, ClassificationScores, DenoisingQuality, Evaluation, ExampleRef, ImageQuality,
    PcaBaseline, ReconstructionScores,
};
use crate::report::evaluation_tables::comparisons::{
    baseline, decode_distance, denoising, labels, ranking, thresholds,
};

/// The text of a missing value.
const MISSING: &str = "–";

/// Returns the key figures of an evaluation.
pub(super) fn tiles(found: &Evaluation) -> Vec<FigureTile> {
    let mut tiles = Vec::new();
    if let Some(compression) = &found.compression {
        let note = format!(
            "for {} values, {}×",
            compression.input_values,
            figure(compression.values_ratio, 3)
        );
        tiles.push(FigureTile::new(
            "Code size",
            compression.code_values.to_string(),
            note,
        ));
    }
    if let Some(ReconstructionScores { error, images, .. }) = &found.reconstruction {
        let note = format!(
            "mean, {} (median {})",
            found.model.loss,
            figure(error.quantiles.p50, 3)
        );
        tiles.push(FigureTile::new(
            "Reconstruction error",
            figure(error.mean, 4),
            note,
        ));
        if let Some(psnr) = images
            .as_ref()
            .and_then(|images| images.psnr)
            .filter(|_| found.denoising.is_empty())
        {
            tiles.push(FigureTile::new(
                "PSNR",
                format!("{psnr:.2} dB"),
                ssim_note(images.as_ref()),
            ));
        }
    }
    if let Some(PcaBaseline {
        mse,
        model_mse: Some(model),
        ..
    }) = &found.pca
    {
        let note = "of the error of PCA with latents of the same size".to_owned();
        tiles.push(FigureTile::new(
            "Compared with PCA",
            format!("{} %", figure(model / mse * 100.0, 3)),
            note,
        ));
    }
    if let Some(AnomalyScores { model, .. }) = &found.anomalies {
        let note = format!("average precision {:.3}", model.average_precision);
        tiles.push(FigureTile::new(
            "AUCROC",
            format!("{:.4}", model.auc_roc),
            note,
        ));
    }
    if let Some(ClassificationScores { latent, .. }) = &found.labels {
        let note = format!(
            "by the five nearest neighbors; {} % by a linear probe",
            percent(latent.probe)
        );
        tiles.push(FigureTile::new(
            "Label accuracy",
            format!("{} %", percent(latent.neighbors)),
            note,
        ));
    }
    for level in &found.denoising {
        let psnr = |close: &DenoisingQuality| close.images.as_ref().and_then(|images| images.psnr);
        let tile = match (psnr(&level.noisy), psnr(&level.output)) {
            (Some(noisy), Some(output)) => FigureTile::new(
                &level.corruption,
                format!("{output:.2} dB"),
                format!("PSNR, from {noisy:.2} dB"),
            ),
            _ => {
                let note = format!("mean squared error, from {}", figure(level.noisy.mse, 3));
                FigureTile::new(&level.corruption, figure(level.output.mse, 3), note)
            }
        };
        tiles.push(tile);
    }
    tiles
}

fn ssim_note(images: Option<&ImageQuality>) -> String {
    images
        .and_then(|images| images.ssim)
        .map_or_else(String::new, |ssim| format!("SSIM {ssim:.4}"))
}

/// Returns the tables of all measurements.
pub(super) fn tables(found: &Evaluation) -> Vec<Markup> {
    let mut tables = Vec::new();
    tables.extend(
        found
            .reconstruction
            .as_ref()
            .map(|reconstruction| errors(reconstruction, found.model.loss)),
    );
    tables.extend(found.pca.as_ref().map(baseline));
    tables.extend(found.labels.as_ref().map(labels));
    if let Some(anomalies) = &found.anomalies {
        tables.push(ranking(anomalies));
        tables.extend(thresholds(anomalies));
    }
    if !found.denoising.is_empty() {
        tables.push(denoising(&found.denoising));
    }
    tables.extend(found.decode_distance.as_ref().map(decode_distance));
    if let Some(reconstruction) = &found.reconstruction {
        let caption = match found.anomalies {
            Some(_) => "Normal records with the largest errors",
            None => "Records with the largest errors",
        };
        tables.push(listed(caption, &reconstruction.largest_errors));
    }
    if let Some(anomalies) = &found.anomalies {
        let lists = [
            (
                "Anomalies with the largest errors",
                &anomalies.largest_errors,
            ),
            (
                "Anomalies with the smallest errors",
                &anomalies.smallest_errors,
            ),
        ];
        tables.extend(lists.map(|(caption, records)| listed(caption, records)));
    }
    tables
}

fn listed(caption: &str, records: &[ExampleRef]) -> Markup {
    let has_labels = records.iter().any(|record| record.label.is_some());
    let rows = records.iter().map(|record| {
        let mut row = vec![record.place(), figure(record.error, 4)];
        if has_labels {
            row.push(record.label.clone().unwrap_or_else(|| MISSING.to_owned()));
        }
        row
    });
    let heads: &[&str] = if has_labels {
        &["record", "error", "label"]
    } else {
        &["record", "error"]
    };
    figures(caption, heads, rows)
}

fn errors(found: &ReconstructionScores, loss: &str) -> Markup {
    let (error, quantiles) = (&found.error, &found.error.quantiles);
    let mut rows = vec![
        ("mean", error.mean),
        ("standard deviation", error.std),
        ("minimum", error.min),
        ("5 % quantile", quantiles.p05),
        ("median", quantiles.p50),
        ("95 % quantile", quantiles.p95),
        ("99 % quantile", quantiles.p99),
        ("maximum", error.max),
    ];
    if loss != "mse" {
        rows.push(("mean squared error", found.mse));
    }
    let mut rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), figure(value, 4)])
        .collect();
    if let Some(images) = &found.images {
        rows.push(vec!["PSNR (dB)".to_owned(), psnr(Some(images))]);
        rows.push(vec!["SSIM".to_owned(), ssim(Some(images))]);
    }
    figures("Reconstruction error", &["", loss], rows)
}

fn psnr(images: Option<&ImageQuality>) -> String {
    images
        .and_then(|images| images.psnr)
        .map_or_else(|| MISSING.to_owned(), |psnr| format!("{psnr:.2}"))
}

fn ssim(images: Option<&ImageQuality>) -> String {
    images
        .and_then(|images| images.ssim)
        .map_or_else(|| MISSING.to_owned(), |ssim| format!("{ssim:.4}"))
}

fn percent(share: f64) -> String {
    figure(share * 100.0, 3)
}
