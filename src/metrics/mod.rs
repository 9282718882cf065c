//! All metrics of a run, each with its name, its labels and its meaning.

mod blocking_calls;
mod commits;
mod factory;
mod http;
mod listeners;
mod models;
mod process;
mod reconstruction_errors;
mod training;
mod utilization;
mod watch;

use prometheus::{
    GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use factory::MetricFactory;
use process::ProcessMetrics;

pub(crate) use blocking_calls::{BlockedCall, BlockingCaller, BlockingCalls, BlockingOperation};
pub(crate) use commits::CommitMetrics;
pub(crate) use factory::MetricDescription;
pub(crate) use http::HttpMetrics;
pub(crate) use listeners::ListenerMetrics;
pub(crate) use models::ModelMetrics;
pub(crate) use reconstruction_errors::ReconstructionErrorMetrics;
pub(crate) use training::TrainingMetrics;
pub(crate) use utilization::UtilizationMetrics;
pub(crate) use watch::WatchMetrics;

/// The metrics of one running pipeline. Label values are the names of stages and models, which the
/// pipeline file bounds, and members of closed sets.
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<MetricDescription>,
    /// The metrics of the process under their standard names.
    process: Option<ProcessMetrics>,
    /// Records that a stage received.
    pub records_in: IntCounterVec,
    /// Records that a stage emitted.
    pub records_out: IntCounterVec,
    /// Bytes of Arrow memory that a stage received.
    pub bytes_in: IntCounterVec,
    /// Bytes of Arrow memory that a stage emitted.
    pub bytes_out: IntCounterVec,
    /// Batches that a stage processed.
    pub batches: IntCounterVec,
    /// Records that a stage rejected, by reject code.
    pub rejects: IntCounterVec,
    /// Inputs of a source that could not be read and are left to the next run.
    pub unread_inputs: IntGaugeVec,
    /// Processing time of a batch in a stage, in seconds.
    pub batch_seconds: HistogramVec,
    /// Time at which a source last emitted records, in seconds since 1970.
    pub last_record: GaugeVec,
    /// 1 while the run accepts records; 0 while it starts or stops.
    pub ready: IntGauge,
    /// Reconstruction errors.
    pub errors: ReconstructionErrorMetrics,
    /// Commits of sinks.
    pub commits: CommitMetrics,
    /// Utilization, queues and memory.
    pub utilization: UtilizationMetrics,
    /// Models, their calls and their reloads.
    pub models: ModelMetrics,
    /// Requests to HTTP sources.
    pub http: HttpMetrics,
    /// Connections, certificates and tokens.
    pub listeners: ListenerMetrics,
    /// Progress of a training.
    pub training: TrainingMetrics,
    /// Watched folders.
    pub watch: WatchMetrics,
    /// Calls to disks and object stores that have not returned.
    pub calls: BlockingCalls,
    /// Log lines that could not be written.
    pub lost_log_lines: IntCounter,
}

impl Metrics {
    /// New metrics, all at zero.
    pub fn new() -> Self {
        let maker = MetricFactory::new();
        // Buckets from 100 us to 52 s in factors of 2.
        let seconds = (1e-4, 2.0, 20);
        let build = maker.gauge_vec(
            "build_info",
            "Always 1; the label holds the version of the program",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            records_in: maker.counter_vec(
                "records_in_total",
                "Number of records that a stage received",
                &["stage", "kind"],
            ),
            records_out: maker.counter_vec(
                "records_out_total",
                "Number of records that a stage emitted",
                &["stage", "kind"],
            ),
            bytes_in: maker.counter_vec(
                "bytes_in_total",
                "Arrow memory of the records that a stage received, in bytes",
                &["stage", "kind"],
            ),
            bytes_out: maker.counter_vec(
                "bytes_out_total",
                "Arrow memory of the records that a stage emitted, in bytes",
                &["stage", "kind"],
            ),
            batches: maker.counter_vec(
                "batches_total",
                "Number of batches that a stage processed",
                &["stage", "kind"],
            ),
            rejects: maker.counter_vec(
                "rejects_total",
                "Number of records that a stage rejected, by reject code",
                &["stage", "reason"],
            ),
            unread_inputs: maker.gauge_vec(
                "source_unread_inputs",
                "Number of inputs of a source that could not be read and are left to the next run; \
                 0 if all were read",
                &["stage"],
            ),
            batch_seconds: maker.histogram_vec(
                "batch_seconds",
                "Time that a stage took to process one batch, in seconds",
                &["stage", "kind"],
                seconds,
            ),
            last_record: maker.gauge_vec_f64(
                "last_record_timestamp_seconds",
                "Time at which a source last emitted records, in seconds since 1970; absent before \
                 the first records",
                &["stage"],
            ),
            ready: maker.gauge(
                "ready",
                "1 while the run accepts records; 0 while it starts or stops",
            ),
            errors: ReconstructionErrorMetrics::new(&maker),
            commits: CommitMetrics::new(&maker),
            utilization: UtilizationMetrics::new(&maker),
            models: ModelMetrics::new(&maker),
            http: HttpMetrics::new(&maker),
            listeners: ListenerMetrics::new(&maker),
            training: TrainingMetrics::new(&maker),
            watch: WatchMetrics::new(&maker),
            calls: BlockingCalls::new(&maker),
            lost_log_lines: maker.counter(
                "log_lines_lost_total",
                "Number of log lines that were lost because standard error could not be written, \
                 or not fast enough",
            ),
            process: ProcessMetrics::new(),
            descriptions: maker.descriptions(),
            registry: maker.registry,
        }
    }

    /// The registry, for collectors that compute on demand.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics with the prefix `latentflow`. The standard metrics of the process are not included.
    pub fn descriptions(&self) -> &[MetricDescription] {
        &self.descriptions
    }

    /// All metrics in the text format of Prometheus.
    pub fn text(&self) -> String {
        let families: Vec<_> = self
            .registry
            .gather()
            .into_iter()
            .chain(self.process.iter().flat_map(ProcessMetrics::gather))
            .collect();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_default()
    }
}

impl Metrics {
    /// The reason why the run makes no progress: a watch that reads no files, or a blocked
    /// stage. `None` while it makes progress.
    pub(crate) fn stall_reason(&self) -> Option<String> {
        self.watch
            .unavailable_reason()
            .or_else(|| self.calls.blocked_stages().first().map(ToString::to_string))
    }

    /// Resident memory of the process in bytes; `None` if the system does not report it.
    pub(crate) fn resident_bytes(&self) -> Option<f64> {
        self.process.as_ref()?.resident_bytes()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
