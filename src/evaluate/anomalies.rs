//! Scores the detection of anomalies by their reconstruction errors.

use super::result::RecordScore;
use crate::data::PreparedDataset;
use crate::error::StageError;
use crate::eval_metrics::roc::{auc_roc, average_precision};
use crate::evaluate::notes::listed;
use crate::evaluate::result::anomaly_scores::{AnomalyScores, ErrorThreshold, RankingScores};
use crate::model::card::error_stats::ErrorStats;

/// Scores the ranking of records by their errors; returns `None` unless there are both anomalies
/// and normal records. `card` holds the errors on the validation data of the training.
///
/// # Errors
/// Returns an error if the origin of a record cannot be read.
pub(super) fn measure(
    scores: &[RecordScore],
    card: Option<&ErrorStats>,
    prepared: &PreparedDataset,
) -> Result<Option<AnomalyScores>, StageError> {
    let Some(found) = rank(scores, card) else {
        return Ok(None);
    };
    let mut sorted: Vec<&RecordScore> = scores.iter().filter(|score| score.anomaly).collect();
    sorted.sort_by(|a, b| a.error.total_cmp(&b.error));
    Ok(Some(AnomalyScores {
        largest_errors: listed(prepared, sorted.iter().rev())?,
        smallest_errors: listed(prepared, sorted.iter())?,
        ..found
    }))
}

/// Scores a ranking by these errors; returns `None` unless there are both anomalies and normal
/// records.
pub(super) fn ranking_of(errors: Vec<f64>, anomalies: &[bool]) -> Option<RankingScores> {
    Some(RankingScores {
        auc_roc: auc_roc(&errors, anomalies)?,
        average_precision: average_precision(&errors, anomalies)?,
    })
}

/// Scores the ranking, without the lists of records.
fn rank(scores: &[RecordScore], card: Option<&ErrorStats>) -> Option<AnomalyScores> {
    let positive: Vec<bool> = scores.iter().map(|score| score.anomaly).collect();
    let ranking = |errors| ranking_of(errors, &positive);
    let model = ranking(scores.iter().map(|score| score.error).collect())?;
    let pca = scores
        .iter()
        .map(|score| score.pca)
        .collect::<Option<Vec<f64>>>()
        .and_then(ranking);
    let errors = |anomaly: bool| {
        scores
            .iter()
            .filter(move |score| score.anomaly == anomaly)
            .map(|score| score.error)
    };
    let mut sorted: Vec<f64> = errors(true).collect();
    let quantiles = card.map(|card| [("p95", card.quantiles.p95), ("p99", card.quantiles.p99)]);
    let thresholds = quantiles.into_iter().flatten().map(|(quantile, error)| {
        let above = |anomaly| {
            let (above, all) = errors(anomaly).fold((0, 0), |(above, all), value| {
                (above + i32::from(value > error), all + 1)
            });
            f64::from(above) / f64::from(all.max(1))
        };
        ErrorThreshold {
            quantile,
            error,
            anomalies_above: above(true),
            normal_above: above(false),
        }
    });
    Some(AnomalyScores {
        normal: errors(false).count(),
        anomalies: errors(true).count(),
        model,
        ensemble: None,
        pca,
        thresholds: thresholds.collect(),
        error: ErrorStats::from_errors(&mut sorted)?,
        largest_errors: Vec::new(),
        smallest_errors: Vec::new(),
    })
}
