//! The metrics of reconstruction errors.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use crate::metrics::maker::Maker;

/// Reconstruction errors: their distribution, and how far it is from what the model's card tells.
pub struct ErrorMetrics {
    /// Reconstruction error of a record, by model and loss.
    pub error: HistogramVec,
    /// Mean z-score of the errors of late, against the model's card.
    pub zscore: GaugeVec,
    /// How far the errors of late are from those of the model's card: the population stability index.
    pub drift: GaugeVec,
    /// Records whose error is unusual by the model's card.
    pub anomalies: IntCounterVec,
}

impl ErrorMetrics {
    pub(super) fn new(maker: &Maker) -> Self {
        // 1e-6 to 1e3 by factors of about 1.8: pixels err by thousandths, outliers among features by hundreds.
        let errors = (1e-6, 1.778_279_41, 37);
        Self {
            error: maker.histogram(
                "reconstruction_error",
                "Reconstruction error of a record, in the loss of its model",
                &["stage", "model", "loss"],
                errors,
            ),
            zscore: maker.rates(
                "reconstruction_error_zscore",
                "Mean over the last 10000 records of how many standard deviations the error lies above its mean in the card",
                &["stage", "model"],
            ),
            drift: maker.rates(
                "reconstruction_error_drift_psi",
                "Population stability index of the errors of the last 10000 records against the model's card",
                &["stage", "model"],
            ),
            anomalies: maker.counter(
                "anomalies_total",
                "Records whose error lies more than 3 standard deviations above its mean in the model's card",
                &["stage", "model"],
            ),
        }
    }
}
