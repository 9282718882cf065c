//! Every metric, once: its name, its labels, what it means.

mod blocking_calls;
mod commits;
mod reconstruction_errors;
mod http;
mod listeners;
mod utilization;
mod factory;
mod models;
mod process;
mod training;
mod watch;

use prometheus::{
    GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use blocking_calls::{BlockedCall, BlockingCaller, BlockingCalls, BlockingOperation};
pub use commits::CommitMetrics;
pub use http::HttpMetrics;
pub use listeners::ListenerMetrics;
pub use models::ModelMetrics;
pub use reconstruction_errors::ReconstructionErrorMetrics;
pub use training::TrainingMetrics;
pub use utilization::UtilizationMetrics;
pub use watch::{WatchCondition, WatchMetrics};

use factory::MetricFactory;
use process::ProcessMetrics;

/// The metrics of one running pipeline. Labels are stage and model names, bounded by the pipeline
/// file, and members of closed sets.
pub struct Metrics {
    registry: Registry,
    /// The process itself, under the names that all programs have for it.
    process: Option<ProcessMetrics>,
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
    /// Inputs of a source that could not be read and are left to the next run.
    pub unread_inputs: IntGaugeVec,
    /// Seconds that a stage took for a batch.
    pub batch_seconds: HistogramVec,
    /// When a source last gave records.
    pub last_record: GaugeVec,
    /// 1 while the run takes records; 0 while it starts or ends.
    pub ready: IntGauge,
    /// Reconstruction errors.
    pub errors: ReconstructionErrorMetrics,
    /// What sinks make durable.
    pub commits: CommitMetrics,
    /// How busy it is, and what waits.
    pub utilization: UtilizationMetrics,
    /// Models, and how they are exchanged.
    pub models: ModelMetrics,
    /// What sources are asked over HTTP.
    pub http: HttpMetrics,
    /// Connections, certificates and tokens.
    pub listeners: ListenerMetrics,
    /// How a training goes.
    pub training: TrainingMetrics,
    /// Folders that are watched.
    pub watch: WatchMetrics,
    /// Calls to disks and stores that have not returned.
    pub calls: BlockingCalls,
    /// Lines of the log that could not be written.
    pub lost_log_lines: IntCounter,
}

impl Metrics {
    /// Fresh metrics, all at zero.
    pub fn new() -> Self {
        let maker = MetricFactory::new();
        // 100 us to 52 s by factors of 2.
        let seconds = (1e-4, 2.0, 20);
        let build = maker.gauge_vec(
            "build_info",
            "1, labelled with the version of the program",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            records_in: maker.counter_vec("records_in_total", "Records that a stage took in", &["stage", "kind"]),
            records_out: maker.counter_vec("records_out_total", "Records that a stage put out", &["stage", "kind"]),
            bytes_in: maker.counter_vec("bytes_in_total", "Bytes of records that a stage took in", &["stage", "kind"]),
            bytes_out: maker.counter_vec(
                "bytes_out_total",
                "Bytes of records that a stage put out",
                &["stage", "kind"],
            ),
            batches: maker.counter_vec("batches_total", "Batches that a stage worked on", &["stage", "kind"]),
            rejects: maker.counter_vec("rejects_total", "Records that a stage refused", &["stage", "reason"]),
            unread_inputs: maker.gauge_vec(
                "source_unread_inputs",
                "Inputs of a source that could not be read and are left to the next run",
                &["stage"],
            ),
            batch_seconds: maker.histogram_vec(
                "batch_seconds",
                "Seconds that a stage took for a batch",
                &["stage", "kind"],
                seconds,
            ),
            last_record: maker.gauge_vec_f64(
                "last_record_timestamp_seconds",
                "When a source last gave records, in seconds since 1970",
                &["stage"],
            ),
            ready: maker.gauge("ready", "1 while the run takes records; 0 while it starts or ends"),
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
                "Lines of the log that were lost, since standard error could not be written, or not fast enough",
            ),
            process: ProcessMetrics::new(),
            registry: maker.registry,
        }
    }

    /// The registry, for collectors that compute on demand.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus's text format.
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
    /// Why the run does not get on, if so: a watch that takes no files, or a stage that is blocked.
    pub fn trouble(&self) -> Option<String> {
        self.watch
            .trouble()
            .or_else(|| self.calls.blocked_stages().first().map(ToString::to_string))
    }

    /// Memory that the process holds, in bytes, where the system tells it.
    pub fn resident_bytes(&self) -> Option<f64> {
        self.process.as_ref()?.resident_bytes()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
