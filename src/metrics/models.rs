//! The metrics of models: their identity, calls and reloads.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// Models in use, the duration of their calls, and their reloads.
pub struct ModelMetrics {
    /// 1, labeled with a model's name, digest, kind and execution providers.
    pub info: IntGaugeVec,
    /// Duration of one call to ONNX Runtime in seconds, by model and part.
    pub call_seconds: HistogramVec,
    /// Number of records in one call to ONNX Runtime, by model and part.
    pub call_records: HistogramVec,
    /// Reloads of models and of the pipeline, by outcome.
    pub reloads: IntCounterVec,
    /// 1 if the last reload was not refused.
    pub reload_successful: IntGauge,
    /// Number of reloads that were applied since the start.
    pub generation: IntGauge,
}

impl ModelMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // Buckets from 100 us to 52 s in factors of 2.
        let seconds = (1e-4, 2.0, 20);
        let models = Self {
            info: maker.gauge_vec(
                "model_info",
                "Always 1; the labels hold a model's name, digest and kind, and the execution \
                 providers that compute it",
                &["model", "digest", "kind", "provider"],
            ),
            call_seconds: maker.histogram_vec(
                "inference_seconds",
                "Duration of one call to ONNX Runtime, in seconds",
                &["model", "part"],
                seconds,
            ),
            call_records: maker.histogram_vec(
                "inference_batch_records",
                "Number of records in one call to ONNX Runtime",
                &["model", "part"],
                (1.0, 2.0, 12),
            ),
            reloads: maker.counter_vec(
                "model_reloads_total",
                "Number of reloads of models or of the pipeline, by outcome: applied, unchanged or \
                 refused",
                &["outcome"],
            ),
            reload_successful: maker.gauge(
                "last_model_reload_successful",
                "0 if the last reload of models or of the pipeline was refused; 1 if it was not, \
                 and before the first reload",
            ),
            generation: maker.gauge(
                "model_generation",
                "Number of reloads that were applied since the start; 0 before the first",
            ),
        };
        // Counters exist at 0 from the start: otherwise the first event would not be an increase.
        for outcome in ["applied", "unchanged", "refused"] {
            models.reloads.with_label_values(&[outcome]);
        }
        models.reload_successful.set(1);
        models
    }
}
