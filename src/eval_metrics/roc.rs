//! How well a score ranks what is looked for above the rest: area under the ROC curve, average
//! precision.

/// The probability that a positive scores above a negative, ties counting half (Mann-Whitney U by
/// mean ranks; the area under the ROC curve). `None` where there is no positive or no negative.
/// Scores are no NaN.
pub fn auc_roc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut rank_sum, mut below, mut positives) = (0.0, 0.0, 0.0);
    let ties = ties_descending(scores, positive);
    for &ScoreTie {
        positives: among,
        len,
    } in ties.iter().rev()
    {
        // Ranks count from 1; those of a tie share their mean.
        rank_sum += among * (below + (len + 1.0) / 2.0);
        below += len;
        positives += among;
    }
    let negatives = below - positives;
    (positives > 0.0 && negatives > 0.0)
        .then(|| (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// `sum_n (R_n - R_(n-1)) P_n` over the distinct scores, descending: P and R are precision and
/// recall of what scores at least so high; nothing is interpolated, as in scikit-learn. `None`
/// where there is no positive. Scores are no NaN.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
    for ScoreTie { positives, len } in ties_descending(scores, positive) {
        seen += len;
        found += positives;
        sum += positives * found / seen;
    }
    (found > 0.0).then(|| sum / found)
}

/// Records of one score.
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

    /// Scores that tie now and then, a fifth of them positive and a little higher.
    fn sample() -> (Vec<f64>, Vec<bool>) {
        let positive: Vec<bool> = (0..100).map(|place| place % 5 == 0).collect();
        let scores = (0..100)
            .map(|place| ((place * 37 + 11) % 50 + if place % 5 == 0 { 13 } else { 0 }) as f64);
        (scores.collect(), positive)
    }

    #[test]
    fn figures_are_those_of_scikit_learn() {
        // sklearn.metrics.roc_auc_score and average_precision_score of the same sample
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
    fn a_perfect_a_reversed_and_a_constant_score() {
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
    fn where_one_side_is_missing_there_is_nothing_to_rank() {
        assert_eq!(auc_roc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(auc_roc(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(average_precision(&[1.0, 2.0], &[false, false]), None);
        assert_eq!(auc_roc(&[], &[]), None);
    }
}
