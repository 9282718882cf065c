//! The metrics of models: which they are, their calls, and how they are exchanged.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::factory::MetricFactory;

/// Which models are at work, how long their calls take, and how they are exchanged.
pub struct ModelMetrics {
    /// 1, labelled with a model's name, digest and kind, and with who computes it.
    pub info: IntGaugeVec,
    /// Seconds of one call of ONNX Runtime, by model and part.
    pub call_seconds: HistogramVec,
    /// Records of one call of ONNX Runtime, by model and part.
    pub call_records: HistogramVec,
    /// Changes of models and of the pipeline that were asked for, by what came of them.
    pub reloads: IntCounterVec,
    /// Whether the last of them went well.
    pub reload_successful: IntGauge,
    /// How often models were exchanged since the start.
    pub generation: IntGauge,
}

impl ModelMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        // 100 us to 52 s by factors of 2.
        let seconds = (1e-4, 2.0, 20);
        let models = Self {
            info: maker.gauge_vec(
                "model_info",
                "1, labelled with a model's name, digest and kind, and with the execution providers that compute it",
                &["model", "digest", "kind", "provider"],
            ),
            call_seconds: maker.histogram_vec(
                "inference_seconds",
                "Seconds of one call of ONNX Runtime",
                &["model", "part"],
                seconds,
            ),
            call_records: maker.histogram_vec(
                "inference_batch_records",
                "Records of one call of ONNX Runtime",
                &["model", "part"],
                (1.0, 2.0, 12),
            ),
            reloads: maker.counter_vec(
                "model_reloads_total",
                "Changes of models or of the pipeline that were asked for: applied, unchanged, or refused",
                &["outcome"],
            ),
            reload_successful: maker.gauge(
                "last_model_reload_successful",
                "1 if the last change of models or of the pipeline went well, or none was asked for; 0 if it was refused",
            ),
            generation: maker.gauge("model_generation", "How often models were exchanged since the start"),
        };
        // What can be counted is there from the beginning, at 0: else its first event would be no
        // increase.
        for outcome in ["applied", "unchanged", "refused"] {
            models.reloads.with_label_values(&[outcome]);
        }
        models.reload_successful.set(1);
        models
    }
}
