//! The drift of the reconstruction errors of recent records from those in the model card.

use std::collections::VecDeque;

use crate::model::card::error_stats::ErrorStats;

/// The shares of records between the quantiles of a card: 1, 5, 25, 50, 75, 95 and 99 %.
const SHARES: [f64; 8] = [0.01, 0.04, 0.20, 0.25, 0.25, 0.20, 0.04, 0.01];
/// The number of spans of the window. The last one is being filled.
const SPANS: usize = 10;
/// The number of records of a full span.
const SPAN: u64 = 1000;
/// The minimum number of records for which a score is computed.
const MIN_RECORDS: u64 = 500;
/// The z-score above which an error is counted as an anomaly.
const ANOMALY_ZSCORE: f64 = 3.0;

/// The errors of the last 10,000 records, as counts between the card's quantiles.
pub(crate) struct DriftDetector {
    mean: f64,
    std: f64,
    edges: [f64; 7],
    spans: VecDeque<DriftSpan>,
}

#[derive(Debug, Clone, Copy, Default)]
struct DriftSpan {
    records: u64,
    counts: [u64; SHARES.len()],
    zscores: f64,
}

/// The drift of the records of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DriftScore {
    /// Mean z-score.
    pub(crate) zscore: f64,
    /// The population stability index: the sum over bins of (a - e) ln(a / e), where a is the share
    /// of records in the window and e the share in the card (Siddiqi, Credit Risk Scorecards,
    /// 2006). A value below 0.1 means no change, a value above 0.25 a major change.
    pub(crate) psi: f64,
}

impl DriftDetector {
    /// Creates a detector with the error statistics of a card as reference. `None` if the standard
    /// deviation is 0, as in the card of a model without validation records, or not finite.
    pub(crate) fn new(card: &ErrorStats) -> Option<Self> {
        let q = &card.quantiles;
        let edges = [q.p01, q.p05, q.p25, q.p50, q.p75, q.p95, q.p99];
        let is_valid = card.std > 0.0 && card.mean.is_finite() && card.std.is_finite();
        is_valid.then(|| Self {
            mean: card.mean,
            std: card.std,
            edges,
            spans: VecDeque::from([DriftSpan::default()]),
        })
    }

    /// Adds the error of one record. Returns whether its z-score is above [`ANOMALY_ZSCORE`].
    pub(crate) fn observe(&mut self, error: f64) -> bool {
        let zscore = (error - self.mean) / self.std;
        if self.spans.back().is_none_or(|span| span.records == SPAN) {
            self.spans.push_back(DriftSpan::default());
            if self.spans.len() > SPANS {
                self.spans.pop_front();
            }
        }
        if let Some(span) = self.spans.back_mut() {
            span.records += 1;
            span.counts[self.edges.partition_point(|&edge| edge < error)] += 1;
            // The clamp keeps one infinite error from hiding all others.
            span.zscores += zscore.clamp(-1e6, 1e6);
        }
        zscore > ANOMALY_ZSCORE
    }

    /// The drift of the window; `None` if it holds fewer than [`MIN_RECORDS`] records.
    pub(crate) fn score(&self) -> Option<DriftScore> {
        let records: u64 = self.spans.iter().map(|span| span.records).sum();
        if records < MIN_RECORDS {
            return None;
        }
        let zscore = self.spans.iter().map(|span| span.zscores).sum::<f64>() / records as f64;
        // Half a record is added to each bin, so that an empty bin does not make the index
        // infinite.
        let all = records as f64 + 0.5 * SHARES.len() as f64;
        let count = |bin: usize| self.spans.iter().map(|span| span.counts[bin]).sum::<u64>() as f64;
        let terms = SHARES.iter().enumerate().map(|(bin, expected)| {
            let share = (count(bin) + 0.5) / all;
            (share - expected) * (share / expected).ln()
        });
        Some(DriftScore {
            zscore,
            psi: terms.sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::card::error_stats::Quantiles;

    /// Errors spread evenly over 0..1.
    fn card() -> ErrorStats {
        let quantiles = Quantiles {
            p01: 0.01,
            p05: 0.05,
            p25: 0.25,
            p50: 0.5,
            p75: 0.75,
            p95: 0.95,
            p99: 0.99,
        };
        let std = (1.0_f64 / 12.0).sqrt();
        ErrorStats {
            count: 1000,
            mean: 0.5,
            std,
            min: 0.0,
            max: 1.0,
            quantiles,
            features: None,
            measured: None,
        }
    }

    fn after(errors: impl Iterator<Item = f64>) -> (u64, Option<DriftScore>) {
        let mut drift = DriftDetector::new(&card()).unwrap();
        let anomalies = errors.filter(|&error| drift.observe(error)).count() as u64;
        (anomalies, drift.score())
    }

    fn even(records: u64) -> impl Iterator<Item = f64> {
        (0..records).map(move |n| (n * 7919 % records) as f64 / records as f64)
    }

    #[test]
    fn errors_with_distribution_of_card_do_not_drift() {
        let (anomalies, score) = after(even(5000));
        let score = score.unwrap();
        assert_eq!(anomalies, 0);
        assert!(
            score.psi.abs() < 0.01 && score.zscore.abs() < 0.01,
            "{score:?}"
        );
    }

    #[test]
    fn larger_errors_drift_and_far_larger_ones_are_anomalies() {
        let (_, score) = after(even(5000).map(|error| 0.5 + error / 2.0));
        assert!(score.unwrap().psi > 0.25);
        let (anomalies, far_score) = after(even(1000).map(|error| error + 2.0));
        assert_eq!(anomalies, 1000);
        assert!(far_score.unwrap().psi > 1.0);
        assert!(
            after([f64::INFINITY].into_iter().chain(even(1000)))
                .1
                .unwrap()
                .zscore
                .is_finite()
        );
    }

    #[test]
    fn window_needs_500_records_and_drops_old_ones() {
        assert_eq!(after(even(499)).1, None);
        let (_, score) = after(even(3000).map(|error| error + 2.0).chain(even(10_000)));
        assert!(score.unwrap().psi < 0.01, "{score:?}");
    }

    #[test]
    fn card_with_deviation_0_gives_no_detector() {
        assert!(DriftDetector::new(&ErrorStats { std: 0.0, ..card() }).is_none());
    }
}
