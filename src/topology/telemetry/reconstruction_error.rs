//! The reconstruction errors of one stage: their distribution, their history, and their drift from
//! the model card.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use parking_lot::Mutex;

use crate::columns::RECONSTRUCTION_ERROR;
use crate::metrics::Metrics;
use crate::model::card::error_stats::Quantiles;
use crate::model::{Loss, Model};
use crate::topology::telemetry::drift::{DriftDetector, DriftScore};
use crate::topology::telemetry::error_history::{ErrorHistory, ErrorSpan, ErrorSummary};

/// The statistics of the reconstruction error of one stage.
pub struct ReconstructionErrorStats {
    model: String,
    history: Mutex<ErrorHistory>,
    reference: Mutex<ErrorReference>,
}

/// The loss and the reference statistics of the model, which a hot reload replaces.
#[derive(Default)]
struct ErrorReference {
    loss: Loss,
    /// The error quantiles of the model card, if it has them.
    quantiles: Option<Quantiles>,
    drift: Option<DriftDetector>,
}

/// The error statistics of one stage at one point in time.
pub struct ErrorSnapshot {
    /// The loss in which the errors are measured.
    pub loss: Loss,
    /// The error quantiles of the model card.
    pub reference: Option<Quantiles>,
    /// Mean z-score of the last records, relative to the card.
    pub zscore: Option<f64>,
    /// Population stability index of the last records, relative to the card.
    pub drift_psi: Option<f64>,
    /// The spans of the last hour.
    pub spans: Vec<ErrorSpan>,
}

impl ReconstructionErrorStats {
    pub(crate) fn new(model: &str, models: &[Arc<Model>]) -> Self {
        let errors = Self {
            model: model.to_owned(),
            history: Mutex::new(ErrorHistory::new()),
            reference: Mutex::default(),
        };
        errors.set_reference(models);
        errors
    }

    /// Sets the loss and the reference statistics to those of the present model.
    pub(crate) fn set_reference(&self, models: &[Arc<Model>]) {
        let model = models.iter().find(|model| model.name() == self.model);
        let card = model.and_then(|model| model.card()?.reconstruction_error.as_ref());
        *self.reference.lock() = ErrorReference {
            loss: model.map(|model| model.loss()).unwrap_or_default(),
            quantiles: card.map(|card| card.quantiles),
            drift: card.and_then(DriftDetector::new),
        };
    }

    /// The name of the model that computes the error.
    pub fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn observe(&self, metrics: &Metrics, stage: &str, records: &RecordBatch) {
        let column = records.column_by_name(RECONSTRUCTION_ERROR);
        let Some(errors) = column.and_then(|column| column.as_primitive_opt::<Float32Type>())
        else {
            return;
        };
        let mut reference = self.reference.lock();
        // A local histogram is flushed once, since other workers observe the same one.
        let histogram = metrics
            .errors
            .error
            .with_label_values(&[stage, &self.model, reference.loss.as_str()])
            .local();
        let mut history = self.history.lock();
        for error in errors.iter().flatten() {
            histogram.observe(f64::from(error));
            history.observe(f64::from(error));
        }
        drop(history);
        histogram.flush();
        let Some(drift) = reference.drift.as_mut() else {
            return;
        };
        let anomalies = errors
            .iter()
            .flatten()
            .filter(|&error| drift.observe(f64::from(error)))
            .count();
        let labels = [stage, &self.model];
        metrics
            .errors
            .anomalies
            .with_label_values(&labels)
            .inc_by(anomalies as u64);
        if let Some(DriftScore { zscore, psi }) = drift.score() {
            metrics.errors.zscore.with_label_values(&labels).set(zscore);
            metrics.errors.drift.with_label_values(&labels).set(psi);
        }
    }

    pub(crate) fn end_span(&self) {
        let score = self
            .reference
            .lock()
            .drift
            .as_ref()
            .and_then(DriftDetector::score);
        self.history.lock().end_span(score);
    }

    /// The distribution since the start of the run; `None` before the first record.
    pub fn summary(&self) -> Option<ErrorSummary> {
        self.history.lock().summary()
    }

    /// The present statistics.
    pub fn snapshot(&self) -> ErrorSnapshot {
        let reference = self.reference.lock();
        let score = reference.drift.as_ref().and_then(DriftDetector::score);
        ErrorSnapshot {
            loss: reference.loss,
            reference: reference.quantiles,
            zscore: score.map(|score| score.zscore),
            drift_psi: score.map(|score| score.psi),
            spans: self.history.lock().spans(),
        }
    }
}
