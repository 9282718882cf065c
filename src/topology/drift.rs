//! How far the reconstruction errors of late are from those that the model's card tells.

use std::collections::VecDeque;

use crate::model::card::ErrorStats;

/// The shares of records between the quantiles that a card tells: 1, 5, 25, 50, 75, 95 and 99 %.
const SHARES: [f64; 8] = [0.01, 0.04, 0.20, 0.25, 0.25, 0.20, 0.04, 0.01];
/// The window is that many spans, of which the last is being filled.
const SPANS: usize = 10;
/// Records of a span.
const SPAN: u64 = 1000;
/// Records below which a window says little.
const ENOUGH: u64 = 500;
/// Standard deviations above the mean beyond which an error is unusual.
const UNUSUAL: f64 = 3.0;

/// The errors of the last 10,000 records, as counts between the card's quantiles.
pub(super) struct DriftDetector {
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

/// What a window says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DriftScore {
    /// Mean z-score.
    pub(super) zscore: f64,
    /// The population stability index: the sum over bins of (a - e) ln(a / e), a being the share of
    /// records now and e that of the card (Siddiqi, Credit Risk Scorecards, 2006). Below 0.1
    /// nothing has changed, above 0.25 much has.
    pub(super) psi: f64,
}

impl DriftDetector {
    /// Against what a card says; `None` where its deviation is 0, as of a model that was validated
    /// on nothing.
    pub(super) fn new(card: &ErrorStats) -> Option<Self> {
        let q = &card.quantiles;
        let edges = [q.p01, q.p05, q.p25, q.p50, q.p75, q.p95, q.p99];
        let sound = card.std > 0.0 && card.mean.is_finite() && card.std.is_finite();
        sound.then(|| Self {
            mean: card.mean,
            std: card.std,
            edges,
            spans: VecDeque::from([DriftSpan::default()]),
        })
    }

    /// Takes one record's error in; says whether it is unusual.
    pub(super) fn observe(&mut self, error: f64) -> bool {
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
            // One error without bound must not hide all others.
            span.zscores += zscore.clamp(-1e6, 1e6);
        }
        zscore > UNUSUAL
    }

    /// What the window says; `None` while there is too little in it.
    pub(super) fn score(&self) -> Option<DriftScore> {
        let records: u64 = self.spans.iter().map(|span| span.records).sum();
        if records < ENOUGH {
            return None;
        }
        let zscore = self.spans.iter().map(|span| span.zscores).sum::<f64>() / records as f64;
        // Half a record is added to each bin, so that an empty one does not make the index
        // infinite.
        let all = records as f64 + 0.5 * SHARES.len() as f64;
        let count = |bin: usize| self.spans.iter().map(|span| span.counts[bin]).sum::<u64>() as f64;
        let parts = SHARES.iter().enumerate().map(|(bin, expected)| {
            let share = (count(bin) + 0.5) / all;
            (share - expected) * (share / expected).ln()
        });
        Some(DriftScore {
            zscore,
            psi: parts.sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::card::Quantiles;

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
        }
    }

    fn after(errors: impl Iterator<Item = f64>) -> (u64, Option<DriftScore>) {
        let mut drift = DriftDetector::new(&card()).unwrap();
        let unusual = errors.filter(|&error| drift.observe(error)).count() as u64;
        (unusual, drift.score())
    }

    fn even(records: u64) -> impl Iterator<Item = f64> {
        (0..records).map(move |n| (n * 7919 % records) as f64 / records as f64)
    }

    #[test]
    fn errors_like_those_of_the_card_do_not_drift() {
        let (unusual, drifted) = after(even(5000));
        let drifted = drifted.unwrap();
        assert_eq!(unusual, 0);
        assert!(
            drifted.psi.abs() < 0.01 && drifted.zscore.abs() < 0.01,
            "{drifted:?}"
        );
    }

    #[test]
    fn larger_errors_drift_and_are_unusual_when_they_are_far_off() {
        let (_, drifted) = after(even(5000).map(|error| 0.5 + error / 2.0));
        assert!(drifted.unwrap().psi > 0.25);
        let (unusual, drifted) = after(even(1000).map(|error| error + 2.0));
        assert_eq!(unusual, 1000);
        assert!(drifted.unwrap().psi > 1.0);
        assert!(
            after([f64::INFINITY].into_iter().chain(even(1000)))
                .1
                .unwrap()
                .zscore
                .is_finite()
        );
    }

    #[test]
    fn the_window_forgets_and_says_nothing_before_there_is_enough() {
        assert_eq!(after(even(499)).1, None);
        let (_, drifted) = after(even(3000).map(|error| error + 2.0).chain(even(10_000)));
        assert!(drifted.unwrap().psi < 0.01, "{drifted:?}");
    }

    #[test]
    fn a_card_without_spread_is_no_reference() {
        assert!(DriftDetector::new(&ErrorStats { std: 0.0, ..card() }).is_none());
    }
}
