//! Every metric, once: its name, its labels, what it means.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};

/// The metrics of one running pipeline. Labels are stage and model names, bounded by the pipeline file,
/// and members of closed sets.
pub struct Metrics {
    registry: Registry,
    /// Records that a stage took in.
    pub records_in: IntCounterVec,
    /// Records that a stage put out.
    pub records_out: IntCounterVec,
    /// Bytes of Arrow memory that a stage took in.
    pub bytes_in: IntCounterVec,
    /// Bytes of Arrow memory that a stage put out.
    pub bytes_out: IntCounterVec,
    /// Batches that a stage worked on.
    pub batches: IntCounterVec,
    /// Records that a stage refused, by reason.
    pub rejects: IntCounterVec,
    /// Seconds that a stage took for a batch.
    pub batch_seconds: HistogramVec,
    /// Seconds of one call of ONNX Runtime, by model and part.
    pub inference_seconds: HistogramVec,
    /// Reconstruction error of a record, by model.
    pub reconstruction_error: HistogramVec,
    /// Records per second that a stage took in of late.
    pub records_per_second: GaugeVec,
    /// Batches that wait, by queue.
    pub queue_batches: IntGaugeVec,
    /// Batches that may wait, by queue.
    pub queue_limit: IntGaugeVec,
    /// Bytes that batches in flight hold.
    pub memory_bytes: IntGauge,
    /// Bytes that batches in flight may hold.
    pub memory_limit_bytes: IntGauge,
    /// Files committed, by sink.
    pub files: IntCounterVec,
    /// Bytes committed, by sink.
    pub file_bytes: IntCounterVec,
    /// Workers that run.
    pub workers: IntGauge,
    /// 1, labelled with a model's name, digest and kind.
    pub model_info: IntGaugeVec,
    /// How a training goes.
    pub training: TrainingMetrics,
}

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
    fn new(maker: &Maker) -> Self {
        let gauge = |name: &str, help: &str| maker.rates(&format!("training_{name}"), help, &["model"]);
        Self {
            loss: maker.rates(
                "training_loss",
                "Mean loss: of the present epoch, and of the last validation",
                &["model", "part"],
            ),
            learning_rate: gauge("learning_rate", "The present learning rate"),
            steps: gauge("steps", "Steps that are done"),
            epochs: gauge("epochs", "Epochs that are done"),
            records_per_second: gauge("records_per_second", "Records per second that were learned from"),
            seconds_left: gauge("seconds_left", "Seconds that the epochs to come will take at most"),
        }
    }

    /// Notes where an epoch stands.
    pub fn step(&self, model: &str, steps: u64, loss: f64, learning_rate: f64) {
        self.steps.with_label_values(&[model]).set(steps as f64);
        self.loss.with_label_values(&[model, "training"]).set(loss);
        self.learning_rate.with_label_values(&[model]).set(learning_rate);
    }

    /// Notes an epoch that is over; `losses` are those of training and validation.
    pub fn epoch(&self, model: &str, epochs: u32, losses: (f64, Option<f64>), rate: f64, seconds_left: f64) {
        self.epochs.with_label_values(&[model]).set(f64::from(epochs));
        self.loss.with_label_values(&[model, "training"]).set(losses.0);
        if let Some(loss) = losses.1 {
            self.loss.with_label_values(&[model, "validation"]).set(loss);
        }
        self.records_per_second.with_label_values(&[model]).set(rate);
        self.seconds_left.with_label_values(&[model]).set(seconds_left);
    }
}

impl Metrics {
    /// Fresh metrics, all at zero.
    pub fn new() -> Self {
        let maker = Maker::new();
        // 100 us to 52 s by factors of 2.
        let seconds = (1e-4, 2.0, 20);
        // 1e-6 to 1e3 by factors of about 1.8: pixels err by thousandths, outliers among features by hundreds.
        let errors = (1e-6, 1.778_279_41, 37);
        let build = maker.gauges("build_info", "1, labelled with the version of the program", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            records_in: maker.counter("records_in_total", "Records that a stage took in", &["stage", "kind"]),
            records_out: maker.counter("records_out_total", "Records that a stage put out", &["stage", "kind"]),
            bytes_in: maker.counter("bytes_in_total", "Bytes of records that a stage took in", &["stage", "kind"]),
            bytes_out: maker.counter("bytes_out_total", "Bytes of records that a stage put out", &["stage", "kind"]),
            batches: maker.counter("batches_total", "Batches that a stage worked on", &["stage", "kind"]),
            rejects: maker.counter("rejects_total", "Records that a stage refused", &["stage", "reason"]),
            batch_seconds: maker.histogram(
                "batch_seconds",
                "Seconds that a stage took for a batch",
                &["stage", "kind"],
                seconds,
            ),
            inference_seconds: maker.histogram(
                "inference_seconds",
                "Seconds of one call of ONNX Runtime",
                &["model", "part"],
                seconds,
            ),
            reconstruction_error: maker.histogram(
                "reconstruction_error",
                "Reconstruction error of a record, in the loss of its model",
                &["stage", "model"],
                errors,
            ),
            records_per_second: maker.rates(
                "records_per_second",
                "Records per second that a stage took in over the last seconds",
                &["stage", "kind"],
            ),
            queue_batches: maker.gauges("queue_batches", "Batches that wait in a queue", &["queue"]),
            queue_limit: maker.gauges("queue_limit_batches", "Batches that may wait in a queue", &["queue"]),
            memory_bytes: maker.gauge("memory_reserved_bytes", "Bytes that batches in flight have reserved"),
            memory_limit_bytes: maker.gauge("memory_limit_bytes", "Bytes that batches in flight may reserve"),
            files: maker.counter("files_committed_total", "Files that a sink committed", &["stage"]),
            file_bytes: maker.counter("file_bytes_committed_total", "Bytes that a sink committed", &["stage"]),
            workers: maker.gauge("workers", "Workers that run"),
            model_info: maker.gauges(
                "model_info",
                "1, labelled with a model's name and digest",
                &["model", "digest", "kind"],
            ),
            training: TrainingMetrics::new(&maker),
            registry: maker.registry,
        }
    }

    /// The registry, for collectors that compute on demand.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus's text format.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Makes metrics and registers each.
struct Maker {
    registry: Registry,
}

#[expect(clippy::expect_used, reason = "names are constants, and a test registers them all")]
impl Maker {
    fn new() -> Self {
        Self {
            registry: Registry::new_custom(Some("latentflow".to_owned()), None).expect("the prefix is a valid name"),
        }
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid name and labels");
        self.registry.register(Box::new(metric.clone())).expect("registered once");
        metric
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn rates(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    /// `buckets`: the first bound, the factor to the next, and how many.
    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: (f64, f64, usize)) -> HistogramVec {
        let (first, factor, count) = buckets;
        let buckets = exponential_buckets(first, factor, count).expect("a valid range");
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
