//! The results of an evaluation, as key figures and as tables.

use super::html::Html;
use super::page::{FigureTile, figures};
use super::scale::{count, figure};
use crate::evaluate::{
    AnomalyScores, ClassificationScores, ClassifierAccuracy, DecodeDistance, DenoisingQuality,
    DenoisingScores, Evaluation, ExampleRef, ImageQuality, PcaBaseline, RankingScores,
    ReconstructionScores,
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
pub(super) fn tables(found: &Evaluation) -> Vec<Html> {
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

fn listed(caption: &str, records: &[ExampleRef]) -> Html {
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

fn errors(found: &ReconstructionScores, loss: &str) -> Html {
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

fn baseline(found: &PcaBaseline) -> Html {
    let model = found
        .model_mse
        .map_or_else(|| MISSING.to_owned(), |mse| figure(mse, 4));
    let rows = [
        vec!["mean squared error".to_owned(), model, figure(found.mse, 4)],
        vec![
            "components".to_owned(),
            String::new(),
            found.code_size.to_string(),
        ],
        vec![
            "records of the fit".to_owned(),
            String::new(),
            count(found.fitted as u64),
        ],
        vec![
            "explained variance".to_owned(),
            String::new(),
            format!("{} %", percent(found.explained_share)),
        ],
    ];
    figures(
        "Comparison with principal components",
        &["", "model", "PCA"],
        rows,
    )
}

fn labels(found: &ClassificationScores) -> Html {
    let row = |name: &str, pick: fn(&ClassifierAccuracy) -> f64| {
        let pca = found
            .pca
            .as_ref()
            .map_or_else(|| MISSING.to_owned(), |pca| format!("{:.4}", pick(pca)));
        vec![name.to_owned(), format!("{:.4}", pick(&found.latent)), pca]
    };
    let rows = [
        row("five nearest neighbors", |accuracy| accuracy.neighbors),
        row("linear probe", |accuracy| accuracy.probe),
    ];
    let ClassificationScores {
        classes,
        fitted,
        scored,
        ..
    } = found;
    let (fitted, scored) = (count(*fitted as u64), count(*scored as u64));
    let caption = format!(
        "Accuracy of {classes} labels predicted from latents (fitted to {fitted} records, measured \
         on {scored})"
    );
    figures(&caption, &["", "model", "PCA"], rows)
}

fn ranking(found: &AnomalyScores) -> Html {
    let row = |name: &str, pick: fn(&RankingScores) -> f64| {
        let pca = found
            .pca
            .as_ref()
            .map_or_else(|| MISSING.to_owned(), |pca| format!("{:.4}", pick(pca)));
        vec![name.to_owned(), format!("{:.4}", pick(&found.model)), pca]
    };
    let rows = [
        row("AUCROC", |scores| scores.auc_roc),
        row("average precision", |scores| scores.average_precision),
    ];
    let (anomalies, normal) = (count(found.anomalies as u64), count(found.normal as u64));
    figures(
        &format!("{anomalies} anomalies among {normal} normal records"),
        &["", "model", "PCA"],
        rows,
    )
}

fn thresholds(found: &AnomalyScores) -> Option<Html> {
    let rows = found.thresholds.iter().map(|threshold| {
        let error = format!("{}, {}", threshold.quantile, figure(threshold.error, 4));
        let shares = [threshold.anomalies_above, threshold.normal_above]
            .map(|share| format!("{} %", percent(share)));
        vec![error].into_iter().chain(shares).collect()
    });
    let heads = [
        "threshold of the card",
        "detected anomalies",
        "false alarms",
    ];
    (!found.thresholds.is_empty()).then(|| figures("Thresholds", &heads, rows))
}

fn denoising(levels: &[DenoisingScores]) -> Html {
    let images = levels.iter().any(|level| level.noisy.images.is_some());
    let rows = levels.iter().map(|level| {
        let (noisy, output) = (&level.noisy, &level.output);
        let (before, after) = (noisy.images.as_ref(), output.images.as_ref());
        let mut row = vec![
            level.corruption.clone(),
            figure(noisy.mse, 4),
            figure(output.mse, 4),
        ];
        if images {
            row.extend([psnr(before), psnr(after), ssim(before), ssim(after)]);
        }
        row
    });
    let mut heads = vec!["", "MSE corrupted", "MSE restored"];
    if images {
        heads.extend([
            "PSNR corrupted",
            "PSNR restored",
            "SSIM corrupted",
            "SSIM restored",
        ]);
    }
    let records = levels.first().map_or(0, |level| level.records);
    figures(
        &format!(
            "{} records, corrupted and restored, compared with the clean records",
            count(records as u64)
        ),
        &heads,
        rows,
    )
}

fn decode_distance(found: &DecodeDistance) -> Html {
    let error =
        |error: Option<f64>| error.map_or_else(|| MISSING.to_owned(), |error| figure(error, 4));
    let rows = [
        (
            "reconstruction error, decoded in full",
            error(found.full_error),
        ),
        (
            "reconstruction error, at a fraction of the size",
            error(found.scaled_error),
        ),
        (
            "mean difference of pixels, of 255",
            figure(found.mean_steps, 3),
        ),
        (
            "largest difference of pixels, of 255",
            found.max_steps.to_string(),
        ),
        (
            "change of the latents, in standard deviations",
            error(found.latent),
        ),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let caption = format!(
        "Decoding of JPEGs in full and at a fraction of their size, {} records",
        count(found.records as u64)
    );
    figures(&caption, &["", ""], rows)
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
