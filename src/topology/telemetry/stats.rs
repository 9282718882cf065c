//! The counters of a running pipeline, for the progress bar, the summary and Prometheus.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use crate::batch::reject::RejectCode;
use crate::metrics::{BlockingCalls, Metrics};
use crate::model::Model;
use crate::plan::pipeline::Plan;
use crate::plan::stage::{StageOperator, StageRole};
use crate::topology::telemetry::activity::WorkerActivity;
use crate::topology::telemetry::reconstruction_error::ReconstructionErrorStats;
use crate::topology::telemetry::stage_stats::{StageStats, nanos};
use crate::topology::telemetry::tap::Tap;
use crate::units::unix_seconds;

/// The counters of one run. They are atomic, so that readers do not block the workers.
pub struct RunStats {
    /// The pipeline's name.
    pub pipeline: String,
    /// The counters of each stage, in the order of the plan.
    pub stages: Vec<StageStats>,
    /// The start of the run.
    pub started: Instant,
    /// Per worker, the time spent on processing batches, in nanoseconds.
    pub workers: Vec<AtomicU64>,
    /// Per worker, the batch that it processes.
    pub activity: Vec<WorkerActivity>,
    /// Nanoseconds during which no source had a batch ready.
    pub source_wait_nanos: AtomicU64,
    /// Nanoseconds during which a batch was ready but waited for a permit.
    pub backpressure_nanos: AtomicU64,
    /// The last rejects and sampled images.
    pub tap: Tap,
    ready: AtomicUsize,
    pub(crate) metrics: Arc<Metrics>,
    models: Mutex<Vec<Arc<Model>>>,
}

fn report_models(metrics: &Metrics, models: &[Arc<Model>]) {
    for model in models {
        let labels = [
            model.name(),
            model.digest(),
            model.kind(),
            &model.providers(),
        ];
        metrics.models.info.with_label_values(&labels).set(1);
    }
}

impl RunStats {
    pub(crate) fn new(plan: &Plan, metrics: Arc<Metrics>) -> Self {
        let stages = plan.stages.iter().map(|stage| {
            let skipped_files = match &stage.operator {
                StageOperator::Source(source, _) => source.skipped_files(),
                StageOperator::Transform(_) | StageOperator::Sink(..) => None,
            };
            let role = stage.role();
            let error = match &stage.operator {
                StageOperator::Transform(transform) => transform
                    .model()
                    .map(|model| ReconstructionErrorStats::new(model, &plan.models)),
                StageOperator::Source(..) | StageOperator::Sink(..) => None,
            };
            // Counters are created at 0: Prometheus does not count the first event of a counter
            // that appears with it as an increase.
            for code in RejectCode::ALL {
                metrics
                    .rejects
                    .with_label_values(&[&*stage.name, code.as_str()]);
            }
            if role == StageRole::Source {
                metrics.unread_inputs.with_label_values(&[&*stage.name]);
            }
            if role == StageRole::Sink {
                metrics.commits.files.with_label_values(&[&stage.name]);
                metrics.commits.bytes.with_label_values(&[&stage.name]);
            }
            StageStats {
                name: Arc::clone(&stage.name),
                kind: stage.kind,
                role,
                inputs: stage.inputs.clone(),
                records_in: AtomicU64::new(0),
                records_done: AtomicU64::new(0),
                records_out: AtomicU64::new(0),
                rejects: AtomicU64::new(0),
                unread: AtomicU64::new(0),
                busy: AtomicU64::new(0),
                prepared: AtomicU64::new(0),
                total: Mutex::default(),
                last_read: Mutex::default(),
                written: Mutex::default(),
                error,
                codes: Mutex::default(),
                skipped_files,
            }
        });
        report_models(&metrics, &plan.models);
        let workers = (0..plan.workers).map(|_| AtomicU64::new(0)).collect();
        Self {
            pipeline: plan.name.clone(),
            stages: stages.collect(),
            started: Instant::now(),
            workers,
            activity: (0..plan.workers)
                .map(|_| WorkerActivity::default())
                .collect(),
            source_wait_nanos: AtomicU64::new(0),
            backpressure_nanos: AtomicU64::new(0),
            tap: Tap::new(plan.stages.len()),
            ready: AtomicUsize::new(0),
            metrics,
            models: Mutex::new(plan.models.clone()),
        }
    }

    /// Counts a batch that a stage has processed. `input` is its number of records and of bytes.
    pub(crate) fn batch(
        &self,
        stage: usize,
        input: (u64, u64),
        output: Option<&RecordBatch>,
        duration: Duration,
    ) {
        let stats = &self.stages[stage];
        let labels = [&*stats.name, stats.kind];
        let (records, bytes) = input;
        stats.records_in.fetch_add(records, Relaxed);
        stats.busy.fetch_add(nanos(duration), Relaxed);
        self.metrics
            .records_in
            .with_label_values(&labels)
            .inc_by(records);
        self.metrics
            .bytes_in
            .with_label_values(&labels)
            .inc_by(bytes);
        self.metrics.batches.with_label_values(&labels).inc();
        if stats.role != StageRole::Source {
            self.metrics
                .batch_seconds
                .with_label_values(&labels)
                .observe(duration.as_secs_f64());
        }
        let Some(output) = output else { return };
        if stats.role == StageRole::Source {
            self.metrics
                .last_record
                .with_label_values(&[&stats.name])
                .set(unix_seconds());
        }
        stats
            .records_out
            .fetch_add(output.num_rows() as u64, Relaxed);
        self.metrics
            .records_out
            .with_label_values(&labels)
            .inc_by(output.num_rows() as u64);
        self.metrics
            .bytes_out
            .with_label_values(&labels)
            .inc_by(output.get_array_memory_size() as u64);
        if let Some(error) = &stats.error {
            error.observe(&self.metrics, &stats.name, output);
        }
    }

    /// Adds the time that a sink spent outside of writing batches, such as in a commit.
    pub(crate) fn add_busy(&self, stage: usize, duration: Duration) {
        self.stages[stage].busy.fetch_add(nanos(duration), Relaxed);
    }

    /// Adds the time that a worker spent in the batch encoder of a sink.
    pub(crate) fn prepared(&self, stage: usize, duration: Duration) {
        self.stages[stage]
            .prepared
            .fetch_add(nanos(duration), Relaxed);
    }

    pub(crate) fn worker_is_ready(&self) {
        if self.ready.fetch_add(1, Relaxed) + 1 == self.workers.len() {
            self.metrics.ready.set(1);
        }
    }

    /// The calls to disks and object stores that have not returned.
    pub(crate) fn calls(&self) -> &BlockingCalls {
        &self.metrics.calls
    }

    /// Whether every worker has loaded and warmed up its models.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) >= self.workers.len()
    }

    /// Sets the models after a hot reload.
    pub(crate) fn set_reference(&self, models: &[Arc<Model>]) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(|errors| errors.set_reference(models));
        self.metrics.models.info.reset();
        report_models(&self.metrics, models);
        *self.models.lock() = models.to_vec();
    }

    /// The models in use.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.models.lock().clone()
    }

    /// Ends the present time span of the error histories.
    pub(crate) fn end_span(&self) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(ReconstructionErrorStats::end_span);
    }

    /// Adds the time that a worker spent on a batch.
    pub(crate) fn add_worker_time(&self, worker: usize, duration: Duration) {
        self.workers[worker].fetch_add(nanos(duration), Relaxed);
        self.metrics
            .utilization
            .worker_busy_seconds
            .with_label_values(&[&worker.to_string()])
            .inc_by(duration.as_secs_f64());
    }
}
