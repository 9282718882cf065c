//! The history of the reconstruction errors of one stage: their distribution since the start of the
//! run, and in each span of the last hour.

use std::collections::VecDeque;

use serde::Serialize;
use sketches_ddsketch::{Config, DDSketch};

use crate::topology::telemetry::drift::DriftScore;
use crate::units::unix_seconds;

/// The number of spans that are kept: one hour in spans of 10 seconds.
const SPANS: usize = 360;

/// The errors since the start of the run, and per span.
pub(crate) struct ErrorHistory {
    /// The errors of all completed spans.
    past: DDSketch,
    /// The errors of the present span.
    present: DDSketch,
    spans: VecDeque<ErrorSpan>,
}

/// The distribution since the start of the run. Errors are per record, in the loss of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ErrorSummary {
    /// The number of records.
    pub count: usize,
    /// Mean over records.
    pub mean: f64,
    /// Median, within 1 %.
    pub p50: f64,
    /// 99th percentile, within 1 %.
    pub p99: f64,
}

/// The distribution of the errors of one span.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ErrorSpan {
    /// The end of the span, in seconds since 1970.
    pub unix_seconds: f64,
    /// The number of records.
    pub records: usize,
    /// Median, within 1 %.
    pub p50: f64,
    /// 95th percentile, within 1 %.
    pub p95: f64,
    /// Population stability index relative to the model card, at the end of the span. `None` if the
    /// card has no usable error statistics, or if the drift window holds too few records.
    pub drift_psi: Option<f64>,
}

impl ErrorHistory {
    pub(crate) fn new() -> Self {
        let sketch = || DDSketch::new(Config::defaults());
        Self {
            past: sketch(),
            present: sketch(),
            spans: VecDeque::new(),
        }
    }

    pub(crate) fn observe(&mut self, error: f64) {
        self.present.add(error);
    }

    /// Ends the present span and starts the next one. A span without records is not stored.
    pub(crate) fn end_span(&mut self, drift: Option<DriftScore>) {
        let present = std::mem::replace(&mut self.present, DDSketch::new(Config::defaults()));
        let quantile = |q| present.quantile(q).ok().flatten();
        let (Some(p50), Some(p95)) = (quantile(0.5), quantile(0.95)) else {
            return;
        };
        let drift_psi = drift.map(|drift| drift.psi);
        self.spans.push_back(ErrorSpan {
            unix_seconds: unix_seconds(),
            records: present.count(),
            p50,
            p95,
            drift_psi,
        });
        self.spans.drain(..self.spans.len().saturating_sub(SPANS));
        // Merging fails only for sketches with different configurations.
        let _ = self.past.merge(&present);
    }

    pub(crate) fn spans(&self) -> Vec<ErrorSpan> {
        self.spans.iter().copied().collect()
    }

    /// The distribution since the start of the run; `None` before the first record.
    pub(crate) fn summary(&self) -> Option<ErrorSummary> {
        let mut all = self.past.clone();
        all.merge(&self.present).ok()?;
        let count = all.count();
        let quantile = |q| all.quantile(q).ok().flatten();
        let mean = all.sum()? / count as f64;
        Some(ErrorSummary {
            count,
            mean,
            p50: quantile(0.5)?,
            p99: quantile(0.99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn spans_hold_their_own_records_and_summary_holds_all() {
        let mut history = ErrorHistory::new();
        assert_eq!(history.summary(), None);
        (1..=100).for_each(|error| history.observe(f64::from(error)));
        history.end_span(None);
        (901..=1000).for_each(|error| history.observe(f64::from(error)));
        let summary = history.summary().unwrap();
        assert_eq!(summary.count, 200);
        assert!((summary.mean - 500.5).abs() < 1e-9, "{summary:?}");
        history.end_span(Some(DriftScore {
            zscore: 1.0,
            psi: 0.5,
        }));
        history.end_span(None);
        let spans = history.spans();
        assert_eq!(spans.len(), 2);
        assert!(
            (spans[0].p50 / 50.0 - 1.0).abs() < 0.03 && (spans[1].p95 / 995.0 - 1.0).abs() < 0.03,
            "{spans:?}"
        );
        assert_eq!(
            (spans[0].drift_psi, spans[1].drift_psi, spans[1].records),
            (None, Some(0.5), 100)
        );
        assert_eq!(history.summary().unwrap().count, 200);
    }

    #[test]
    fn spans_of_the_last_hour_are_kept() {
        let mut history = ErrorHistory::new();
        for error in 0..SPANS + 5 {
            history.observe(error as f64);
            history.end_span(None);
        }
        assert_eq!(history.spans().len(), SPANS);
        assert_eq!(history.summary().unwrap().count, SPANS + 5);
    }
}
