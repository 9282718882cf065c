//! Every metric, once: its name, its labels, what it means.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
};

use crate::machine;

/// The metrics of one running pipeline. Labels are stage and model names, bounded by the pipeline file,
/// and members of closed sets.
pub struct Metrics {
    registry: Registry,
    /// The process itself, under the names that all programs have for it.
    process: Registry,
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
    /// Records of one call of ONNX Runtime, by model and part.
    pub inference_records: HistogramVec,
    /// Reconstruction error of a record, by model.
    pub reconstruction_error: HistogramVec,
    /// Mean z-score of the errors of late, against the model's card.
    pub error_zscore: GaugeVec,
    /// How far the errors of late are from those of the model's card: the population stability index.
    pub error_drift: GaugeVec,
    /// Records whose error is unusual by the model's card.
    pub anomalies: IntCounterVec,
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
    /// Seconds that a commit took, by sink.
    pub commit_seconds: HistogramVec,
    /// When a sink last committed.
    pub last_commit: GaugeVec,
    /// When a source last gave records.
    pub last_record: GaugeVec,
    /// For how long the oldest record has waited that is not durable yet.
    pub oldest_uncommitted: Gauge,
    /// Share of the time of late in which a stage was at work, over all workers for a transform.
    pub stage_utilization: GaugeVec,
    /// Share of the time of late in which a worker was at work.
    pub worker_utilization: GaugeVec,
    /// Seconds in which a worker was at work.
    pub worker_busy_seconds: CounterVec,
    /// Bytes that are free on the disk that a sink writes to.
    pub output_free_bytes: GaugeVec,
    /// Bytes of that disk.
    pub output_size_bytes: GaugeVec,
    /// Bytes of memory that the process may use.
    pub machine_memory_bytes: IntGauge,
    /// Workers that run.
    pub workers: IntGauge,
    /// 1, labelled with a model's name, digest and kind.
    pub model_info: IntGaugeVec,
    /// Changes of models and of the pipeline that were asked for, by what came of them.
    pub reloads: IntCounterVec,
    /// Whether the last of them went well.
    pub reload_successful: IntGauge,
    /// How often models were exchanged since the start.
    pub generation: IntGauge,
    /// 1 while the run takes records; 0 while it starts or ends.
    pub ready: IntGauge,
    /// What sources are asked over HTTP.
    pub http: HttpMetrics,
    /// How a training goes.
    pub training: TrainingMetrics,
}

/// Memory, threads, file descriptors and processor time of this process, where the system tells them.
fn process() -> Registry {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
        tracing::debug!(%error, "metrics of the process are missing");
    }
    registry
}

/// The present moment as Prometheus counts it: seconds since 1970.
pub fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// The metrics of sources that are asked over HTTP; absent where there is none.
pub struct HttpMetrics {
    /// Requests that were answered, by what they asked for and the answer's code.
    pub requests: IntCounterVec,
    /// Seconds from a request's head to its answer.
    pub request_seconds: HistogramVec,
    /// Requests that are being answered.
    pub in_flight: IntGaugeVec,
    /// Records that were acknowledged and are not durable in every sink.
    pub backlog_records: IntGaugeVec,
    /// Their bytes in the journal.
    pub backlog_bytes: IntGaugeVec,
    /// Bytes from which on nothing more is taken.
    pub backlog_limit_bytes: IntGaugeVec,
}

impl HttpMetrics {
    fn new(maker: &Maker) -> Self {
        // 100 us to 105 s by factors of 2.
        let seconds = (1e-4, 2.0, 21);
        Self {
            requests: maker.counter(
                "http_requests_total",
                "Requests that were answered, by what they asked for and the status of the answer",
                &["stage", "route", "code"],
            ),
            request_seconds: maker.histogram(
                "http_request_seconds",
                "Seconds from the head of a request to its answer",
                &["stage", "route"],
                seconds,
            ),
            in_flight: maker.gauges("http_requests_in_flight", "Requests that are being answered", &["stage"]),
            backlog_records: maker.gauges(
                "journal_backlog_records",
                "Records that were acknowledged and are not durable in every sink",
                &["stage"],
            ),
            backlog_bytes: maker.gauges("journal_backlog_bytes", "Bytes of the journal of such records", &["stage"]),
            backlog_limit_bytes: maker.gauges(
                "journal_backlog_limit_bytes",
                "Bytes of such records from which on no more are taken",
                &["stage"],
            ),
        }
    }
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
        let metrics = Self {
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
            inference_records: maker.histogram(
                "inference_batch_records",
                "Records of one call of ONNX Runtime",
                &["model", "part"],
                (1.0, 2.0, 12),
            ),
            error_zscore: maker.rates(
                "reconstruction_error_zscore",
                "Mean over the last 10000 records of how many standard deviations the error lies above its mean in the card",
                &["stage", "model"],
            ),
            error_drift: maker.rates(
                "reconstruction_error_drift_psi",
                "Population stability index of the errors of the last 10000 records against the model's card",
                &["stage", "model"],
            ),
            anomalies: maker.counter(
                "anomalies_total",
                "Records whose error lies more than 3 standard deviations above its mean in the model's card",
                &["stage", "model"],
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
            commit_seconds: maker.histogram("commit_seconds", "Seconds that a commit took", &["stage"], seconds),
            last_commit: maker.rates(
                "last_commit_timestamp_seconds",
                "When a sink last committed, in seconds since 1970",
                &["stage"],
            ),
            last_record: maker.rates(
                "last_record_timestamp_seconds",
                "When a source last gave records, in seconds since 1970",
                &["stage"],
            ),
            oldest_uncommitted: maker.number(
                "oldest_uncommitted_seconds",
                "For how long the oldest record that was read has waited to be durable in every sink; 0 where none waits",
            ),
            stage_utilization: maker.rates(
                "stage_utilization_ratio",
                "Share of the last seconds in which a stage was at work; of all workers' time for a transform",
                &["stage", "kind"],
            ),
            worker_utilization: maker.rates(
                "worker_utilization_ratio",
                "Share of the last seconds in which a worker was at work",
                &["worker"],
            ),
            worker_busy_seconds: maker.seconds(
                "worker_busy_seconds_total",
                "Seconds in which a worker was at work",
                &["worker"],
            ),
            output_free_bytes: maker.rates(
                "output_free_bytes",
                "Bytes that are free on the file system that a sink writes to",
                &["stage"],
            ),
            output_size_bytes: maker.rates(
                "output_size_bytes",
                "Bytes of the file system that a sink writes to",
                &["stage"],
            ),
            machine_memory_bytes: maker.gauge(
                "machine_memory_bytes",
                "Bytes of memory that the process may use: those of the machine, or the limit of its control group",
            ),
            workers: maker.gauge("workers", "Workers that run"),
            model_info: maker.gauges(
                "model_info",
                "1, labelled with a model's name and digest",
                &["model", "digest", "kind"],
            ),
            reloads: maker.counter(
                "model_reloads_total",
                "Changes of models or of the pipeline that were asked for: applied, unchanged, or refused",
                &["outcome"],
            ),
            reload_successful: maker.gauge(
                "last_model_reload_successful",
                "1 if the last change of models or of the pipeline went well, or none was asked for; 0 if it was refused",
            ),
            generation: maker.gauge("model_generation", "How often models were exchanged since the start"),
            ready: maker.gauge("ready", "1 while the run takes records; 0 while it starts or ends"),
            http: HttpMetrics::new(&maker),
            training: TrainingMetrics::new(&maker),
            process: process(),
            registry: maker.registry,
        };
        metrics.reload_successful.set(1);
        for outcome in ["applied", "unchanged", "refused"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        metrics.machine_memory_bytes.set(i64::try_from(machine::memory()).unwrap_or(i64::MAX));
        metrics
    }

    /// The registry, for collectors that compute on demand.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus's text format.
    pub fn text(&self) -> String {
        let families: Vec<_> = self.registry.gather().into_iter().chain(self.process.gather()).collect();
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
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

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(Opts::new(name, help), labels))
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

    fn number(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
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
