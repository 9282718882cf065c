//! The metrics of a training.

use prometheus::GaugeVec;

use crate::metrics::factory::MetricFactory;

/// The metrics of a training, by model; absent where nothing is trained.
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
                "Mean loss: of the present epoch, and of the last validation",
                &["model", "part"],
            ),
            learning_rate: gauge("learning_rate", "The present learning rate"),
            steps: gauge("steps", "Steps that are done"),
            epochs: gauge("epochs", "Epochs that are done"),
            records_per_second: gauge(
                "records_per_second",
                "Records per second that were learned from",
            ),
            seconds_left: gauge(
                "seconds_left",
                "Seconds that the epochs to come will take at most",
            ),
        }
    }

    /// Notes where an epoch stands.
    pub fn step(&self, model: &str, steps: u64, loss: f64, learning_rate: f64) {
        self.steps.with_label_values(&[model]).set(steps as f64);
        self.loss.with_label_values(&[model, "training"]).set(loss);
        self.learning_rate
            .with_label_values(&[model])
            .set(learning_rate);
    }

    /// Notes an epoch that is over; `losses` are those of training and validation.
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
