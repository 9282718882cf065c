//! The metrics of a training.

use prometheus::GaugeVec;

use crate::metrics::factory::MetricFactory;

/// The metrics of a training, by model; absent outside of a training.
pub struct TrainingMetrics {
    loss: GaugeVec,
    learning_rate: GaugeVec,
    steps: GaugeVec,
    epochs: GaugeVec,
    records_per_second: GaugeVec,
    seconds_left: GaugeVec,
}

impl TrainingMetrics {
    pub(super) fn new(maker: &MetricFactory) -> Self {
        let gauge = |name: &str, help: &str| {
            maker.gauge_vec_f64(&format!("training_{name}"), help, &["model"])
        };
        Self {
            loss: maker.gauge_vec_f64(
                "training_loss",
                "Mean loss: of the current epoch (part=training), and of the last \
                 validation (part=validation)",
                &["model", "part"],
            ),
            learning_rate: gauge("learning_rate", "Current learning rate"),
            steps: gauge("steps", "Number of completed optimizer steps"),
            epochs: gauge("epochs", "Number of completed epochs"),
            records_per_second: gauge(
                "records_per_second",
                "Mean training throughput since the start of the training, in records per second",
            ),
            seconds_left: gauge(
                "seconds_left",
                "Estimated maximum time for the remaining epochs, in seconds; 0 after the last",
            ),
        }
    }

    /// Sets the metrics after a step within an epoch.
    pub fn step(&self, model: &str, steps: u64, loss: f64, learning_rate: f64) {
        self.steps.with_label_values(&[model]).set(steps as f64);
        self.loss.with_label_values(&[model, "training"]).set(loss);
        self.learning_rate
            .with_label_values(&[model])
            .set(learning_rate);
    }

    /// Sets the metrics after an epoch; `losses` holds the training loss and the validation loss.
    pub fn epoch(
        &self,
        model: &str,
        epochs: u32,
        losses: (f64, Option<f64>),
        rate: f64,
        seconds_left: f64,
    ) {
        self.epochs
            .with_label_values(&[model])
            .set(f64::from(epochs));
        self.loss
            .with_label_values(&[model, "training"])
            .set(losses.0);
        if let Some(loss) = losses.1 {
            self.loss
                .with_label_values(&[model, "validation"])
                .set(loss);
        }
        self.records_per_second
            .with_label_values(&[model])
            .set(rate);
        self.seconds_left
            .with_label_values(&[model])
            .set(seconds_left);
    }
}
