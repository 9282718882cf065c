//! The status of a run as JSON, which the dashboard shows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::metrics::Metrics;
use crate::model::Model;
use crate::model::card::error_stats::Quantiles;
use crate::plan::stage::StageRole;
use crate::topology::{
    ActiveBatch, BatchRange, ErrorSpan, RecentReject, ReconstructionErrorStats, RecordPosition,
    RunStats, SampledImage, StageStats,
};
use crate::units::unix_seconds;

/// The status of a run at one moment. Names and units of fields are stable; fields may be added.
#[derive(Serialize)]
pub(super) struct RunStatus {
    pipeline: String,
    version: &'static str,
    /// `starting`, `running` or `draining`.
    state: &'static str,
    unix_seconds: f64,
    uptime_seconds: f64,
    /// Number of reloads that were applied.
    generation: i64,
    workers: usize,
    oldest_uncommitted_seconds: f64,
    queue_batches: i64,
    queue_limit_batches: i64,
    in_flight_bytes: i64,
    in_flight_limit_bytes: i64,
    resident_bytes: Option<f64>,
    stages: Vec<StageStatus>,
    /// The batches that workers process now.
    active_batches: Vec<ActiveBatchStatus>,
    errors: Vec<ErrorStatus>,
    /// Latest first.
    rejects: Vec<RecentReject>,
    /// Latest first. Their files are at `/v1/images/NUMBER/before.png` and `after.png`.
    images: Vec<Arc<SampledImage>>,
    models: Vec<ModelStatus>,
}

#[derive(Serialize)]
struct StageStatus {
    name: Arc<str>,
    kind: &'static str,
    role: StageRole,
    /// Indices of the stages that are its inputs.
    inputs: Vec<usize>,
    records_in: u64,
    records_out: u64,
    rejects: u64,
    records_per_second: f64,
    /// Fraction of the last 5 seconds in which the stage was busy; `None` for sources, whose time
    /// is not measured.
    utilization: Option<f64>,
    /// How far a source has read.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading: Option<ReadingStatus>,
    /// Committed output of a sink, and the time of its last commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<CommitStatus>,
}

#[derive(Serialize)]
struct ReadingStatus {
    /// The last record of the last batch; `None` before the first batch.
    last: Option<RecordPosition>,
    /// Number of records that every sink has received.
    records_done: u64,
    /// Number of records of this run, if it is known.
    records_total: Option<u64>,
}

#[derive(Serialize)]
struct ActiveBatchStatus {
    /// The number of the worker, from 0.
    worker: usize,
    /// The stage that processes the batch; its source before the first transform.
    stage: Arc<str>,
    #[serde(flatten)]
    range: BatchRange,
    /// The time since the worker began with the batch.
    seconds: f64,
}

#[derive(Serialize)]
struct CommitStatus {
    files: u64,
    records: u64,
    bytes: u64,
    /// Seconds since 1970; 0 before the first commit.
    last_unix_seconds: f64,
}

#[derive(Serialize)]
struct ErrorStatus {
    stage: Arc<str>,
    model: String,
    loss: &'static str,
    /// Error quantiles of the model card.
    reference: Option<Quantiles>,
    zscore: Option<f64>,
    drift_psi: Option<f64>,
    /// The last hour in spans of ten seconds; spans without records are omitted.
    spans: Vec<ErrorSpan>,
}

#[derive(Serialize)]
struct ModelStatus {
    name: String,
    kind: String,
    summary: String,
    description: String,
    digest: String,
    providers: String,
    loss: &'static str,
    /// Named quality metrics of its card.
    metrics: std::collections::BTreeMap<String, f64>,
}

impl RunStatus {
    pub(super) fn new(stats: &RunStats, metrics: &Metrics, state: &'static str) -> Self {
        let load = &metrics.utilization;
        let queue = |gauge: &prometheus::IntGaugeVec| gauge.with_label_values(&["work"]).get();
        Self {
            pipeline: stats.pipeline.clone(),
            version: env!("CARGO_PKG_VERSION"),
            state,
            unix_seconds: unix_seconds(),
            uptime_seconds: stats.started.elapsed().as_secs_f64(),
            generation: metrics.models.generation.get(),
            workers: stats.workers.len(),
            oldest_uncommitted_seconds: metrics.commits.oldest_uncommitted.get(),
            queue_batches: queue(&load.queue_batches),
            queue_limit_batches: queue(&load.queue_limit),
            in_flight_bytes: load.memory_bytes.get(),
            in_flight_limit_bytes: load.memory_limit_bytes.get(),
            resident_bytes: metrics.resident_bytes(),
            stages: stats
                .stages
                .iter()
                .map(|stage| StageStatus::new(stage, metrics))
                .collect(),
            active_batches: active_batches(stats),
            errors: stats
                .stages
                .iter()
                .filter_map(|stage| Some(errors(stage, stage.error.as_ref()?)))
                .collect(),
            rejects: stats.tap.rejects(),
            images: stats.tap.images(),
            models: stats
                .models()
                .iter()
                .map(|model| ModelStatus::from_model(model))
                .collect(),
        }
    }
}

impl StageStatus {
    fn new(stage: &StageStats, metrics: &Metrics) -> Self {
        let labels = [&*stage.name, stage.kind];
        let written = stage.written();
        let committed = (stage.role == StageRole::Sink).then(|| CommitStatus {
            files: written.files,
            records: written.records,
            bytes: written.bytes,
            last_unix_seconds: metrics.commits.last.with_label_values(&[&stage.name]).get(),
        });
        let busy = || {
            metrics
                .utilization
                .stage_utilization
                .with_label_values(&labels)
                .get()
        };
        Self {
            name: Arc::clone(&stage.name),
            kind: stage.kind,
            role: stage.role,
            inputs: stage.inputs.clone(),
            records_in: stage.records_in.load(Relaxed),
            records_out: stage.records_out.load(Relaxed),
            rejects: stage.rejects.load(Relaxed),
            records_per_second: metrics
                .utilization
                .records_per_second
                .with_label_values(&labels)
                .get(),
            utilization: (stage.role != StageRole::Source).then(busy),
            reading: (stage.role == StageRole::Source).then(|| ReadingStatus {
                last: stage.last_read().map(|range| range.last),
                records_done: stage.records_done.load(Relaxed),
                records_total: stage.total(),
            }),
            committed,
        }
    }
}

fn active_batches(stats: &RunStats) -> Vec<ActiveBatchStatus> {
    let workers = stats.activity.iter().enumerate();
    let active = workers.filter_map(|(worker, activity)| {
        let ActiveBatch {
            stage,
            range,
            seconds,
        } = activity.active()?;
        Some(ActiveBatchStatus {
            worker,
            stage: Arc::clone(&stats.stages.get(stage)?.name),
            range,
            seconds,
        })
    });
    active.collect()
}

fn errors(stage: &StageStats, errors: &ReconstructionErrorStats) -> ErrorStatus {
    let now = errors.snapshot();
    ErrorStatus {
        stage: Arc::clone(&stage.name),
        model: errors.model().to_owned(),
        loss: now.loss.as_str(),
        reference: now.reference,
        zscore: now.zscore,
        drift_psi: now.drift_psi,
        spans: now.spans,
    }
}

impl ModelStatus {
    fn from_model(model: &Model) -> Self {
        let card = model.card();
        Self {
            name: model.name().to_owned(),
            kind: model.kind().to_owned(),
            summary: model.summary(),
            description: card
                .map(|card| card.description.clone())
                .unwrap_or_default(),
            digest: model.digest().to_owned(),
            providers: model.providers(),
            loss: model.loss().as_str(),
            metrics: card.map(|card| card.metrics.clone()).unwrap_or_default(),
        }
    }
}
