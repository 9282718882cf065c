//! The counters of a running pipeline, for the progress bar, the summary and Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::activity::{BatchRange, WorkerActivity};
use super::reconstruction_error::ReconstructionErrorStats;
use super::tap::Tap;
use crate::batch::{Batch, Reject, RejectCode, rejected_records};
use crate::metrics::{BlockingCalls, Metrics};
use crate::model::Model;
use crate::plan::{Plan, RejectLimits, StageOperator, StageRole};
use crate::sink::CommitStats;
use crate::source::{LastSkippedFiles, RecordCount, SkippedFiles};
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
    metrics: Arc<Metrics>,
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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The minimum number of records to which the maximum share of rejects is applied. With fewer
/// records, a share is not meaningful.
const MIN_SHARE_RECORDS: u64 = 1000;

/// Counters of one stage.
pub struct StageStats {
    /// The name of the stage.
    pub name: Arc<str>,
    /// The kind of the stage.
    pub kind: &'static str,
    /// The role of the stage.
    pub role: StageRole,
    /// The indices of the stages whose output it reads.
    pub inputs: Vec<usize>,
    /// The number of input records. For a source, the number of records that it has read, including
    /// all records that its rejects represent.
    pub records_in: AtomicU64,
    /// For a source, the number of its records that are done: every sink has received the result. A
    /// run that fails also counts the batches that it drops.
    pub records_done: AtomicU64,
    /// The number of output records.
    pub records_out: AtomicU64,
    /// The number of rejected records.
    pub rejects: AtomicU64,
    /// For a source, the number of inputs that could not be read and are left to the next run.
    pub unread: AtomicU64,
    /// The time spent in the stage, in nanoseconds: the sum over all workers, or for a sink the
    /// time of its own thread.
    pub busy: AtomicU64,
    /// For a sink, the time that workers spent in its batch encoder, in nanoseconds.
    pub prepared: AtomicU64,
    /// For a source, the total number of its records.
    pub(super) total: Mutex<RecordCount>,
    /// For a source, the last batch that it has read.
    last_read: Mutex<Option<BatchRange>>,
    /// For a sink, the files, records and bytes that it has committed.
    pub written: Mutex<CommitStats>,
    /// The statistics of the reconstruction error, if the stage computes one.
    pub error: Option<ReconstructionErrorStats>,
    codes: Mutex<BTreeMap<RejectCode, u64>>,
    /// For a source that lists files, the files that its last listing skipped.
    skipped_files: Option<LastSkippedFiles>,
}

impl RunStats {
    pub(super) fn new(plan: &Plan, metrics: Arc<Metrics>) -> Self {
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
    pub(super) fn batch(
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
    pub(super) fn add_busy(&self, stage: usize, duration: Duration) {
        self.stages[stage].busy.fetch_add(nanos(duration), Relaxed);
    }

    /// Adds the time that a worker spent in the batch encoder of a sink.
    pub(super) fn prepared(&self, stage: usize, duration: Duration) {
        self.stages[stage]
            .prepared
            .fetch_add(nanos(duration), Relaxed);
    }

    pub(super) fn worker_is_ready(&self) {
        if self.ready.fetch_add(1, Relaxed) + 1 == self.workers.len() {
            self.metrics.ready.set(1);
        }
    }

    /// The calls to disks and object stores that have not returned.
    pub(super) fn calls(&self) -> &BlockingCalls {
        &self.metrics.calls
    }

    /// Whether every worker has loaded and warmed up its models.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) >= self.workers.len()
    }

    /// Sets the models after a hot reload.
    pub(super) fn set_reference(&self, models: &[Arc<Model>]) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(|errors| errors.set_reference(models));
        self.metrics.models.info.reset();
        report_models(&self.metrics, models);
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = models.to_vec();
    }

    /// The models in use.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.models
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the present time span of the error histories.
    pub(super) fn end_span(&self) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(ReconstructionErrorStats::end_span);
    }

    /// Adds the time that a worker spent on a batch.
    pub(super) fn add_worker_time(&self, worker: usize, duration: Duration) {
        self.workers[worker].fetch_add(nanos(duration), Relaxed);
        self.metrics
            .utilization
            .worker_busy_seconds
            .with_label_values(&[&worker.to_string()])
            .inc_by(duration.as_secs_f64());
    }

    /// Sets the number of inputs that a source has left to the next run.
    pub(super) fn left_unread(&self, stage: usize, inputs: u64) {
        let stats = &self.stages[stage];
        stats.unread.store(inputs, Relaxed);
        self.metrics
            .unread_inputs
            .with_label_values(&[&*stats.name])
            .set(i64::try_from(inputs).unwrap_or(i64::MAX));
    }

    /// Counts the rejects of a stage.
    pub(super) fn rejected(&self, stage: usize, rejects: &[Reject]) {
        let stats = &self.stages[stage];
        stats.rejects.fetch_add(rejected_records(rejects), Relaxed);
        let mut codes = stats.codes.lock().unwrap_or_else(PoisonError::into_inner);
        for reject in rejects {
            let count = codes.entry(reject.code).or_default();
            *count = count.saturating_add(reject.records);
            self.metrics
                .rejects
                .with_label_values(&[&*stats.name, reject.code.as_str()])
                .inc_by(reject.records);
        }
    }

    /// Sets the total that a sink has committed, and observes the duration of its last commit.
    /// `stage` is `None` for the rejects dataset.
    pub(super) fn committed(
        &self,
        name: &str,
        stage: Option<usize>,
        written: CommitStats,
        duration: Duration,
    ) {
        self.metrics
            .commits
            .seconds
            .with_label_values(&[name])
            .observe(duration.as_secs_f64());
        self.metrics
            .commits
            .last
            .with_label_values(&[name])
            .set(unix_seconds());
        let Some(stats) = stage.map(|stage| &self.stages[stage]) else {
            return;
        };
        let mut before = stats.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics
            .commits
            .files
            .with_label_values(&[&stats.name])
            .inc_by(written.files - before.files);
        self.metrics
            .commits
            .bytes
            .with_label_values(&[&stats.name])
            .inc_by(written.bytes - before.bytes);
        *before = written;
    }

    /// The number of records that all sources have read.
    pub fn records(&self) -> u64 {
        let sources = self
            .stages
            .iter()
            .filter(|stage| stage.role == StageRole::Source);
        sources.map(|stage| stage.records_in.load(Relaxed)).sum()
    }

    /// The number of records of all sources that are done: every sink has received the result.
    pub fn done(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.records_done.load(Relaxed))
            .sum()
    }

    /// The reject limit of the pipeline that is exceeded, as a text; `None` if none is exceeded.
    /// `records` is the number of records to which the maximum share is applied.
    pub fn exceeded(&self, allowed: &RejectLimits, records: u64) -> Option<String> {
        let rejects = self.rejects();
        if let Some(number) = allowed.number.filter(|&number| rejects > number) {
            let records_were = if rejects == 1 {
                "record was"
            } else {
                "records were"
            };
            return Some(format!(
                "{rejects} {records_were} rejected; the limit is rejects.max = {number}"
            ));
        }
        let share = allowed
            .share
            .filter(|share| rejects as f64 > share * records as f64)?;
        let read = self.records();
        Some(format!(
            "{rejects} of {read} records were rejected; the limit is rejects.max_share = {share}"
        ))
    }

    /// The expected number of records at the end of the run, as far as it is known, and at least
    /// [`MIN_SHARE_RECORDS`]. `u64::MAX` while a source counts its records.
    pub(super) fn expected_total(&self) -> u64 {
        let mut sources = self
            .stages
            .iter()
            .filter(|stage| stage.role == StageRole::Source);
        // While a source counts, the number has no upper bound.
        if sources
            .clone()
            .any(|source| source.total().is_none() && source.is_counting())
        {
            return u64::MAX;
        }
        // Sources are opened one after another: the sum is unknown until the last one is open.
        let total = sources.try_fold(0u64, |total, source| {
            Some(total.saturating_add(source.total()?))
        });
        total
            .unwrap_or(0)
            .max(self.records())
            .max(MIN_SHARE_RECORDS)
    }

    /// The number of inputs that all sources have left to the next run.
    pub fn unread(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.unread.load(Relaxed))
            .sum()
    }

    /// The number of records that all stages have rejected.
    pub fn rejects(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.rejects.load(Relaxed))
            .sum()
    }
}

impl StageStats {
    /// The total number of records of the source, once it is known.
    pub fn total(&self) -> Option<u64> {
        self.total
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .known()
    }

    /// Records the batch that the source has read.
    pub(super) fn has_read(&self, batch: &Batch) {
        *self
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = BatchRange::new(batch);
    }

    /// For a source, the last batch that it has read.
    pub fn last_read(&self) -> Option<BatchRange> {
        self.last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_counting(&self) -> bool {
        matches!(
            *self.total.lock().unwrap_or_else(PoisonError::into_inner),
            RecordCount::Counting(_)
        )
    }

    /// The number of rejected records per reject code.
    pub fn codes(&self) -> BTreeMap<RejectCode, u64> {
        self.codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The files that the last listing of the source skipped.
    pub fn skipped_files(&self) -> SkippedFiles {
        self.skipped_files
            .as_ref()
            .map(LastSkippedFiles::get)
            .unwrap_or_default()
    }

    /// The files, records and bytes that the sink has committed.
    pub fn written(&self) -> CommitStats {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
