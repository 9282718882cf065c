//! The reconstruction errors of one stage: how they are spread, over time, and against the card of
//! the model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float32Type;

use super::drift::{DriftDetector, DriftScore};
use super::error_history::{ErrorHistory, ErrorSpan, ErrorSummary};
use crate::metrics::Metrics;
use crate::model::card::Quantiles;
use crate::model::{Loss, Model};

pub use crate::transform::RECONSTRUCTION_ERROR;

/// The distribution of the reconstruction error of one stage.
pub struct ReconstructionErrorStats {
    model: String,
    history: Mutex<ErrorHistory>,
    reference: Mutex<ErrorReference>,
}

/// What errors are measured in and against; it changes with the model.
#[derive(Default)]
struct ErrorReference {
    loss: Loss,
    /// What the model's card tells of errors, if it does.
    quantiles: Option<Quantiles>,
    drift: Option<DriftDetector>,
}

/// What is known of the errors of one stage at a moment.
pub struct ErrorSnapshot {
    /// What they are measured in.
    pub loss: Loss,
    /// The distribution that the model's card tells.
    pub reference: Option<Quantiles>,
    /// Mean z-score of the last records against it.
    pub zscore: Option<f64>,
    /// Population stability index of the last records against it.
    pub drift_psi: Option<f64>,
    /// The last hour.
    pub spans: Vec<ErrorSpan>,
}

impl ReconstructionErrorStats {
    pub(super) fn new(model: &str, models: &[Arc<Model>]) -> Self {
        let errors = Self {
            model: model.to_owned(),
            history: Mutex::new(ErrorHistory::new()),
            reference: Mutex::default(),
        };
        errors.set_reference(models);
        errors
    }

    fn reference(&self) -> MutexGuard<'_, ErrorReference> {
        self.reference
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, ErrorHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures by the loss, and against the card, that the model has now.
    pub(super) fn set_reference(&self, models: &[Arc<Model>]) {
        let model = models.iter().find(|model| model.name() == self.model);
        let card = model.and_then(|model| model.card()?.reconstruction_error.as_ref());
        *self.reference() = ErrorReference {
            loss: model.map(|model| model.loss()).unwrap_or_default(),
            quantiles: card.map(|card| card.quantiles),
            drift: card.and_then(DriftDetector::new),
        };
    }

    /// The model whose error it is.
    pub fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn observe(&self, metrics: &Metrics, stage: &str, records: &RecordBatch) {
        let column = records.column_by_name(RECONSTRUCTION_ERROR);
        let Some(errors) = column.and_then(|column| column.as_primitive_opt::<Float32Type>())
        else {
            return;
        };
        let mut reference = self.reference();
        // Counted aside, and added at once: others count there too.
        let histogram = metrics
            .errors
            .error
            .with_label_values(&[stage, &self.model, reference.loss.as_str()])
            .local();
        let mut history = self.history();
        for error in errors.iter().flatten() {
            histogram.observe(f64::from(error));
            history.observe(f64::from(error));
        }
        drop(history);
        histogram.flush();
        let Some(drift) = reference.drift.as_mut() else {
            return;
        };
        let unusual = errors
            .iter()
            .flatten()
            .filter(|&error| drift.observe(f64::from(error)))
            .count();
        let labels = [stage, &self.model];
        metrics
            .errors
            .anomalies
            .with_label_values(&labels)
            .inc_by(unusual as u64);
        if let Some(DriftScore { zscore, psi }) = drift.score() {
            metrics.errors.zscore.with_label_values(&labels).set(zscore);
            metrics.errors.drift.with_label_values(&labels).set(psi);
        }
    }

    pub(super) fn end_span(&self) {
        let drifted = self
            .reference()
            .drift
            .as_ref()
            .and_then(DriftDetector::score);
        self.history().end_span(drifted);
    }

    /// The distribution so far; `None` before the first record.
    pub fn summary(&self) -> Option<ErrorSummary> {
        self.history().summary()
    }

    /// What is known at this moment.
    pub fn snapshot(&self) -> ErrorSnapshot {
        let reference = self.reference();
        let drifted = reference.drift.as_ref().and_then(DriftDetector::score);
        ErrorSnapshot {
            loss: reference.loss,
            reference: reference.quantiles,
            zscore: drifted.map(|drifted| drifted.zscore),
            drift_psi: drifted.map(|drifted| drifted.psi),
            spans: self.history().spans(),
        }
    }
}
