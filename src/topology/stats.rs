//! What is counted while a pipeline runs: once here, for the progress bar, the summary and
//! Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::reconstruction_error::ReconstructionErrorStats;
use super::tap::Tap;
use crate::batch::{Reject, RejectCode, rejected_records};
use crate::metrics::{BlockingCalls, Metrics};
use crate::model::Model;
use crate::plan::{Plan, RejectLimits, StageRole};
use crate::sink::CommitStats;
use crate::source::{LastSkippedFiles, RecordCount, SkippedFiles};
use crate::units::unix_seconds;

/// Counters of one run; reading them disturbs nobody.
pub struct RunStats {
    /// The pipeline's name.
    pub pipeline: String,
    /// Per stage, in the plan's order.
    pub stages: Vec<StageStats>,
    /// When the run began.
    pub started: Instant,
    /// Per worker, time spent at work, in nanoseconds.
    pub workers: Vec<AtomicU64>,
    /// Nanoseconds in which no source had a batch ready.
    pub source_wait_nanos: AtomicU64,
    /// Nanoseconds in which a batch was ready, but as many as may be were on their way.
    pub backpressure_nanos: AtomicU64,
    /// The last rejects and images.
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

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Records below which a share of them says little.
const ENOUGH: u64 = 1000;

/// Counters of one stage.
pub struct StageStats {
    /// The stage's name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it gives, changes or keeps records.
    pub role: &'static str,
    /// The places of the stages that it takes records from.
    pub inputs: Vec<usize>,
    /// Records that it took in; for a source, those that it handed over, and those that its rejects
    /// stand for.
    pub records_in: AtomicU64,
    /// Records that it put out.
    pub records_out: AtomicU64,
    /// Records that it refused.
    pub rejects: AtomicU64,
    /// For a source, inputs that could not be read and are left to the next run.
    pub unread: AtomicU64,
    /// Time spent in it, over all workers, in nanoseconds; for a sink, on its own thread.
    pub busy: AtomicU64,
    /// For a sink, time that workers spent on what it leaves to them, in nanoseconds.
    pub prepared: AtomicU64,
    /// Records that it will give in all.
    pub(super) total: Mutex<RecordCount>,
    /// For a sink, what it has committed.
    pub written: Mutex<CommitStats>,
    /// Where the stage computes one, the reconstruction error of its records.
    pub error: Option<ReconstructionErrorStats>,
    codes: Mutex<BTreeMap<RejectCode, u64>>,
    /// For a source that lists files, what its last listing left out.
    skipped_files: Option<LastSkippedFiles>,
}

impl RunStats {
    pub(super) fn new(plan: &Plan, metrics: Arc<Metrics>) -> Self {
        let stages = plan.stages.iter().map(|stage| {
            let skipped_files = match &stage.role {
                StageRole::Source(source, _) => source.skipped_files(),
                StageRole::Transform(_) | StageRole::Sink(..) => None,
            };
            let (role, error) = match &stage.role {
                StageRole::Source(..) => ("source", None),
                StageRole::Transform(transform) => (
                    "transform",
                    transform
                        .model()
                        .map(|model| ReconstructionErrorStats::new(model, &plan.models)),
                ),
                StageRole::Sink(..) => ("sink", None),
            };
            // What can be counted is there from the beginning, at 0: else its first event would be
            // no increase.
            for code in RejectCode::ALL {
                metrics
                    .rejects
                    .with_label_values(&[&*stage.name, code.as_str()]);
            }
            if role == "source" {
                metrics.unread_inputs.with_label_values(&[&*stage.name]);
            }
            if role == "sink" {
                metrics.commits.files.with_label_values(&[&stage.name]);
                metrics.commits.bytes.with_label_values(&[&stage.name]);
            }
            StageStats {
                name: Arc::clone(&stage.name),
                kind: stage.kind,
                role,
                inputs: stage.inputs.clone(),
                records_in: AtomicU64::new(0),
                records_out: AtomicU64::new(0),
                rejects: AtomicU64::new(0),
                unread: AtomicU64::new(0),
                busy: AtomicU64::new(0),
                prepared: AtomicU64::new(0),
                total: Mutex::default(),
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
            source_wait_nanos: AtomicU64::new(0),
            backpressure_nanos: AtomicU64::new(0),
            tap: Tap::new(plan.stages.len()),
            ready: AtomicUsize::new(0),
            metrics,
            models: Mutex::new(plan.models.clone()),
        }
    }

    /// One batch went through a stage.
    pub(super) fn batch(
        &self,
        stage: usize,
        input: (u64, u64),
        output: Option<&RecordBatch>,
        took: Duration,
    ) {
        let stats = &self.stages[stage];
        let labels = [&*stats.name, stats.kind];
        let (records, bytes) = input;
        stats.records_in.fetch_add(records, Relaxed);
        stats.busy.fetch_add(nanos(took), Relaxed);
        self.metrics
            .records_in
            .with_label_values(&labels)
            .inc_by(records);
        self.metrics
            .bytes_in
            .with_label_values(&labels)
            .inc_by(bytes);
        self.metrics.batches.with_label_values(&labels).inc();
        if stats.role != "source" {
            self.metrics
                .batch_seconds
                .with_label_values(&labels)
                .observe(took.as_secs_f64());
        }
        let Some(output) = output else { return };
        if stats.role == "source" {
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

    /// A sink was at work for so long beside its batches.
    pub(super) fn add_busy(&self, stage: usize, took: Duration) {
        self.stages[stage].busy.fetch_add(nanos(took), Relaxed);
    }

    /// A worker spent so long on what a sink leaves to it.
    pub(super) fn prepared(&self, stage: usize, took: Duration) {
        self.stages[stage].prepared.fetch_add(nanos(took), Relaxed);
    }

    pub(super) fn worker_is_ready(&self) {
        if self.ready.fetch_add(1, Relaxed) + 1 == self.workers.len() {
            self.metrics.ready.set(1);
        }
    }

    /// Calls to disks and stores that have not returned.
    pub(super) fn calls(&self) -> &BlockingCalls {
        &self.metrics.calls
    }

    /// Whether every worker has loaded and warmed up its models.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) >= self.workers.len()
    }

    /// Models were exchanged for these.
    pub(super) fn set_reference(&self, models: &[Arc<Model>]) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(|errors| errors.set_reference(models));
        self.metrics.models.info.reset();
        report_models(&self.metrics, models);
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = models.to_vec();
    }

    /// The models that are at work.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.models
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A span of time is over, by which errors are told.
    pub(super) fn end_span(&self) {
        self.stages
            .iter()
            .filter_map(|stage| stage.error.as_ref())
            .for_each(ReconstructionErrorStats::end_span);
    }

    /// A worker was at work for so long.
    pub(super) fn add_worker_time(&self, worker: usize, took: Duration) {
        self.workers[worker].fetch_add(nanos(took), Relaxed);
        self.metrics
            .utilization
            .worker_busy_seconds
            .with_label_values(&[&worker.to_string()])
            .inc_by(took.as_secs_f64());
    }

    /// A source has left so many inputs to the next run.
    pub(super) fn left_unread(&self, stage: usize, inputs: u64) {
        let stats = &self.stages[stage];
        stats.unread.store(inputs, Relaxed);
        self.metrics
            .unread_inputs
            .with_label_values(&[&*stats.name])
            .set(i64::try_from(inputs).unwrap_or(i64::MAX));
    }

    /// A stage refused these.
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

    /// A sink, whose place is given where it is no dataset of rejects, has committed so much in
    /// all; the last commit took so long.
    pub(super) fn committed(
        &self,
        name: &str,
        stage: Option<usize>,
        written: CommitStats,
        took: Duration,
    ) {
        self.metrics
            .commits
            .seconds
            .with_label_values(&[name])
            .observe(took.as_secs_f64());
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

    /// Records that all sources gave.
    pub fn records(&self) -> u64 {
        let sources = self.stages.iter().filter(|stage| stage.role == "source");
        sources.map(|stage| stage.records_in.load(Relaxed)).sum()
    }

    /// The limit of the pipeline that the rejects exceed, of so many records; `None` where they
    /// exceed none.
    pub fn exceeded(&self, allowed: &RejectLimits, records: u64) -> Option<String> {
        let rejects = self.rejects();
        if let Some(number) = allowed.number.filter(|&number| rejects > number) {
            return Some(format!(
                "{rejects} records were rejected, and rejects.max = {number}"
            ));
        }
        let share = allowed
            .share
            .filter(|share| rejects as f64 > share * records as f64)?;
        let read = self.records();
        Some(format!(
            "{rejects} of {read} records were rejected, and rejects.max_share = {share}"
        ))
    }

    /// Records that there will have been at the end, as far as that is known; some at least, of
    /// which a share says something.
    pub(super) fn expected_total(&self) -> u64 {
        let mut sources = self.stages.iter().filter(|stage| stage.role == "source");
        // While one counts, there may be any number.
        if sources
            .clone()
            .any(|source| source.total().is_none() && source.is_counting())
        {
            return u64::MAX;
        }
        // Sources are opened one after the other: until the last one is, their sum is not known.
        let total = sources.try_fold(0u64, |total, source| {
            Some(total.saturating_add(source.total()?))
        });
        total.unwrap_or(0).max(self.records()).max(ENOUGH)
    }

    /// Inputs that sources have left to the next run.
    pub fn unread(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.unread.load(Relaxed))
            .sum()
    }

    /// Records that all stages refused.
    pub fn rejects(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.rejects.load(Relaxed))
            .sum()
    }
}

impl StageStats {
    /// Records that the source will give in all, once that is known.
    pub fn total(&self) -> Option<u64> {
        self.total
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .known()
    }

    fn is_counting(&self) -> bool {
        matches!(
            *self.total.lock().unwrap_or_else(PoisonError::into_inner),
            RecordCount::Counting(_)
        )
    }

    /// How often each reason to refuse was met.
    pub fn codes(&self) -> BTreeMap<RejectCode, u64> {
        self.codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the last listing of the source left out.
    pub fn skipped_files(&self) -> SkippedFiles {
        self.skipped_files
            .as_ref()
            .map(LastSkippedFiles::get)
            .unwrap_or_default()
    }

    /// What the sink has committed.
    pub fn written(&self) -> CommitStats {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
