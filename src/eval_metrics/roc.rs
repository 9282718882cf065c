//! Ranking metrics of a score: area under the ROC curve and average precision.

/// Returns the area under the ROC curve: the probability that a positive scores above a negative,
/// where ties count half (Mann-Whitney U by mean ranks). Returns `None` without positives or
/// without negatives. The scores must not be NaN.
pub(crate) fn auc_roc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut rank_sum, mut below, mut positives) = (0.0, 0.0, 0.0);
    let ties = ties_descending(scores, positive);
    for &ScoreTie {
        positives: among,
        len,
    } in ties.iter().rev()
    {
        // Ranks start at 1. Equal scores have the mean of their ranks.
        rank_sum += among * (below + (len + 1.0) / 2.0);
        below += len;
        positives += among;
    }
    let negatives = below - positives;
    (positives > 0.0 && negatives > 0.0)
        .then(|| (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Returns the average precision `sum_n (R_n - R_(n-1)) P_n` over the distinct scores, descending.
/// P and R are precision and recall of the records with at least that score. As in scikit-learn,
/// precision is not interpolated. Returns `None` without positives. The scores must not be NaN.
pub(crate) fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
    for ScoreTie { positives, len } in ties_descending(scores, positive) {
        seen += len;
        found += positives;
        sum += positives * found / seen;
    }
    (found > 0.0).then(|| sum / found)
}

/// The records with the same score.
struct ScoreTie {
    positives: f64,
    len: f64,
}

fn ties_descending(scores: &[f64], positive: &[bool]) -> Vec<ScoreTie> {
    let mut pairs: Vec<(f64, bool)> = scores
        .iter()
        .copied()
        .zip(positive.iter().copied())
        .collect();
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let ties = pairs.chunk_by(|a, b| a.0 == b.0);
    ties.map(|tie| ScoreTie {
        positives: tie.iter().filter(|pair| pair.1).count() as f64,
        len: tie.len() as f64,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns scores with some ties. A fifth of them are positive and on average higher.
    fn sample() -> (Vec<f64>, Vec<bool>) {
        let positive: Vec<bool> = (0..100).map(|index| index % 5 == 0).collect();
        let scores = (0..100)
            .map(|index| ((index * 37 + 11) % 50 + if index % 5 == 0 { 13 } else { 0 }) as f64);
        (scores.collect(), positive)
    }

    #[test]
    fn metrics_match_scikit_learn() {
        // The results of sklearn.metrics.roc_auc_score and average_precision_score for the same
        // sample.
        let (scores, positive) = sample();
        let auc = auc_roc(&scores, &positive).unwrap_or(f64::NAN);
        let precision = average_precision(&scores, &positive).unwrap_or(f64::NAN);
        assert!((auc - 0.71).abs() < 1e-12, "{auc}");
        assert!(
            (precision - 0.495_602_164_966_689_3).abs() < 1e-12,
            "{precision}"
        );
    }

    #[test]
    fn perfect_reversed_and_constant_scores_have_known_metrics() {
        let positive = [false, false, true, true];
        assert_eq!(auc_roc(&[1.0, 2.0, 3.0, 4.0], &positive), Some(1.0));
        assert_eq!(auc_roc(&[4.0, 3.0, 2.0, 1.0], &positive), Some(0.0));
        assert_eq!(auc_roc(&[0.0, -0.0, 0.0, -0.0], &positive), Some(0.5));
        assert_eq!(
            average_precision(&[1.0, 2.0, 3.0, 4.0], &positive),
            Some(1.0)
        );
        assert_eq!(average_precision(&[7.0; 4], &positive), Some(0.5));
    }

    #[test]
    fn metrics_without_positives_or_negatives_are_none() {
        assert_eq!(auc_roc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(auc_roc(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(average_precision(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(auc_roc(&[], &[]), None);
    }
}
