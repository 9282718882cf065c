//! Tables of classifiers, anomaly detection and denoising.

use maud::Markup;

use crate::evaluate::{
    AnomalyScores, ClassificationScores, ClassifierAccuracy, DecodeDistance, DenoisingScores,
    PcaBaseline, RankingScores,
};
use crate::report::evaluation_tables::{MISSING, percent, psnr, ssim};
use crate::report::page::figures;
use crate::report::scale::{count, figure};

pub(super) fn baseline(found: &PcaBaseline) -> Markup {
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

pub(super) fn labels(found: &ClassificationScores) -> Markup {
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

pub(super) fn ranking(found: &AnomalyScores) -> Markup {
    let rankings = found.rankings();
    let row = |name: &str, pick: fn(&RankingScores) -> f64| {
        let cell = |scores: Option<&RankingScores>| {
            scores.map_or_else(
                || MISSING.to_owned(),
                |scores| format!("{:.4}", pick(scores)),
            )
        };
        let cells = rankings.iter().map(|(_, scores)| cell(*scores));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let heads: Vec<&str> = std::iter::once("")
        .chain(rankings.iter().map(|(name, _)| *name))
        .collect();
    let rows = [
        row("AUCROC", |scores| scores.auc_roc),
        row("average precision", |scores| scores.average_precision),
    ];
    let (anomalies, normal) = (count(found.anomalies as u64), count(found.normal as u64));
    figures(
        &format!("{anomalies} anomalies among {normal} normal records"),
        &heads,
        rows,
    )
}

pub(super) fn thresholds(found: &AnomalyScores) -> Option<Markup> {
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

pub(super) fn denoising(levels: &[DenoisingScores]) -> Markup {
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

pub(super) fn decode_distance(found: &DecodeDistance) -> Markup {
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
