//! The metrics of reconstruction errors.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use crate::metrics::factory::MetricFactory;

/// Reconstruction errors: their distribution, and its difference from the statistics in the model
/// card.
pub struct ReconstructionErrorMetrics {
    /// Reconstruction error per record, by model and loss.
    pub error: HistogramVec,
    /// Mean z-score of the last 10,000 errors, relative to the model card.
    pub zscore: GaugeVec,
    /// Population stability index of the last 10,000 errors, relative to the model card.
    pub drift: GaugeVec,
    /// Records whose error is more than 3 standard deviations above the mean in the model card.
    pub anomalies: IntCounterVec,
}

impl ReconstructionErrorMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // Buckets from 1e-6 to 1e3 in factors of about 1.8: errors of pixels are thousandths, those
        // of outliers among features are hundreds.
        let errors = (1e-6, 1.778_279_41, 37);
        Self {
            error: maker.histogram_vec(
                "reconstruction_error",
                "Reconstruction error of a record, in the unit of the loss of its model",
                &["stage", "model", "loss"],
                errors,
            ),
            zscore: maker.gauge_vec_f64(
                "reconstruction_error_zscore",
                "Mean z-score of the reconstruction errors of the last 10000 records: standard \
                 deviations above the mean in the model card; absent before 500 records",
                &["stage", "model"],
            ),
            drift: maker.gauge_vec_f64(
                "reconstruction_error_drift_psi",
                "Population stability index of the reconstruction errors of the last 10000 records \
                 against the model card; 0 for equal distributions, absent before 500 records",
                &["stage", "model"],
            ),
            anomalies: maker.counter_vec(
                "anomalies_total",
                "Number of records whose reconstruction error is more than 3 standard deviations \
                 above the mean in the model card",
                &["stage", "model"],
            ),
        }
    }
}
