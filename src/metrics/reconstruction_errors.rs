//! The metrics of reconstruction errors.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use crate::metrics::factory::MetricFactory;

/// Reconstruction errors: their distribution, and how far it is from what the model's card tells.
pub struct ReconstructionErrorMetrics {
    /// Reconstruction error of a record, by model and loss.
    pub error: HistogramVec,
    /// Mean z-score of the errors of late, against the model's card.
    pub zscore: GaugeVec,
    /// How far the errors of late are from those of the model's card: the population stability
    /// index.
    pub drift: GaugeVec,
    /// Records whose error is unusual by the model's card.
    pub anomalies: IntCounterVec,
}

impl ReconstructionErrorMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // 1e-6 to 1e3 by factors of about 1.8: pixels err by thousandths, outliers among features
        // by hundreds.
        let errors = (1e-6, 1.778_279_41, 37);
        Self {
            error: maker.histogram_vec(
                "reconstruction_error",
                "Reconstruction error of a record, in the loss of its model",
                &["stage", "model", "loss"],
                errors,
            ),
            zscore: maker.gauge_vec_f64(
                "reconstruction_error_zscore",
                "Mean over the last 10000 records of how many standard deviations the error lies above its mean in the card",
                &["stage", "model"],
            ),
            drift: maker.gauge_vec_f64(
                "reconstruction_error_drift_psi",
                "Population stability index of the errors of the last 10000 records against the model's card",
                &["stage", "model"],
            ),
            anomalies: maker.counter_vec(
                "anomalies_total",
                "Records whose error lies more than 3 standard deviations above its mean in the model's card",
                &["stage", "model"],
            ),
        }
    }
}
