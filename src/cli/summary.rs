//! The summary of a run, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::plan::stage::StageRole;
use crate::shard::Shard;
use crate::source::discovery::skipped_files::SkippedFiles;
use crate::topology::outcome::RunOutcome;
use crate::topology::{ErrorSummary, RunStats};
use crate::units::ByteSize;

/// The failure of a stage.
#[derive(Debug, Serialize)]
struct FailureSummary {
    stage: String,
    /// The stable code.
    code: &'static str,
    message: String,
}

/// The summary of a run.
#[derive(Debug, Serialize)]
pub(super) struct RunSummary {
    pipeline: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    /// `finished`, `drained`, `stopped by its rejects` or `failed`.
    outcome: &'static str,
    /// The failure that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureSummary>,
    seconds: f64,
    /// Records read in this run.
    records: u64,
    records_per_second: f64,
    rejects: u64,
    /// Inputs that could not be read; the next run reads them.
    unread_inputs: u64,
    /// Records that earlier runs had committed.
    done_before: u64,
    stages: Vec<StageSummary>,
}

#[derive(Debug, Serialize)]
struct StageSummary {
    name: String,
    kind: &'static str,
    role: StageRole,
    records_in: u64,
    records_out: u64,
    rejects: u64,
    rejects_by_reason: BTreeMap<&'static str, u64>,
    busy_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconstruction_error: Option<ModelErrorSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<CommitSummary>,
    /// Files that the source skipped in its last listing, by reason.
    #[serde(rename = "passed_over", skip_serializing_if = "SkippedFiles::is_empty")]
    skipped_files: SkippedFiles,
}

#[derive(Debug, Serialize)]
struct ModelErrorSummary {
    model: String,
    #[serde(flatten)]
    error: ErrorSummary,
}

#[derive(Debug, Serialize)]
struct CommitSummary {
    folder: PathBuf,
    files: u64,
    bytes: u64,
    records: u64,
}

impl RunSummary {
    /// Summarizes a run of a pipeline, or of a shard of it. `folders` holds the output folder of
    /// each stage of the plan.
    pub(super) fn new(
        (pipeline, shard): (String, Option<Shard>),
        stats: &RunStats,
        outcome: &RunOutcome,
        done_before: u64,
        folders: Vec<Option<PathBuf>>,
    ) -> Self {
        let seconds = stats.started.elapsed().as_secs_f64();
        let stages = stats
            .stages
            .iter()
            .zip(folders)
            .map(|(stage, folder)| StageSummary {
                name: stage.name.to_string(),
                kind: stage.kind,
                role: stage.role,
                records_in: stage.records_in.load(Relaxed),
                records_out: stage.records_out.load(Relaxed),
                rejects: stage.rejects.load(Relaxed),
                rejects_by_reason: stage
                    .codes()
                    .into_iter()
                    .map(|(code, count)| (code.as_str(), count))
                    .collect(),
                busy_seconds: Duration::from_nanos(
                    stage.busy.load(Relaxed) + stage.prepared.load(Relaxed),
                )
                .as_secs_f64(),
                reconstruction_error: stage.error.as_ref().and_then(|error| {
                    Some(ModelErrorSummary {
                        model: error.model().to_owned(),
                        error: error.summary()?,
                    })
                }),
                skipped_files: stage.skipped_files(),
                written: folder.map(|folder| {
                    let written = stage.written();
                    CommitSummary {
                        folder,
                        files: written.files,
                        bytes: written.bytes,
                        records: written.records,
                    }
                }),
            });
        let records = stats.records();
        Self {
            pipeline,
            shard: shard.map(|shard| shard.to_string()),
            outcome: match outcome {
                RunOutcome::Finished => "finished",
                RunOutcome::Drained => "drained",
                RunOutcome::Rejected => "stopped by its rejects",
                RunOutcome::Failed(_) => "failed",
            },
            error: match outcome {
                RunOutcome::Failed(failure) => Some(FailureSummary {
                    stage: failure.stage.to_string(),
                    code: failure.error.code().as_str(),
                    message: failure.error.to_string(),
                }),
                _ => None,
            },
            seconds,
            records,
            records_per_second: records as f64 / seconds.max(1e-9),
            rejects: stats.rejects(),
            unread_inputs: stats.unread(),
            done_before,
            stages: stages.collect(),
        }
    }
}

impl RunSummary {
    fn write_stages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .stages
            .iter()
            .map(|stage| stage.name.len())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "\n{:width$}  {:<10}  {:>10}  {:>10}  {:>8}  {:>9}",
            "stage", "kind", "in", "out", "rejects", "busy"
        )?;
        for stage in &self.stages {
            let StageSummary {
                name,
                kind,
                records_in,
                rejects,
                busy_seconds,
                ..
            } = stage;
            let out = if stage.role == StageRole::Sink {
                "-".to_owned()
            } else {
                stage.records_out.to_string()
            };
            let busy = if stage.role == StageRole::Source {
                "-".to_owned()
            } else {
                format!("{busy_seconds:.2} s")
            };
            writeln!(
                f,
                "{name:width$}  {kind:<10}  {records_in:>10}  {out:>10}  {rejects:>8}  {busy:>9}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pipeline,
            outcome,
            seconds,
            records,
            records_per_second: rate,
            rejects,
            ..
        } = self;
        let shard = self.shard.as_ref();
        let shard = shard.map_or_else(String::new, |shard| format!(" shard {shard}"));
        writeln!(
            f,
            "\n{pipeline}{shard} {outcome}: {records} records in {seconds:.2} s, {rate:.0}/s, \
             {rejects} rejected"
        )?;
        if self.unread_inputs > 0 {
            writeln!(
                f,
                "inputs that could not be read: {}; the next run retries them",
                self.unread_inputs
            )?;
        }
        if self.done_before > 0 {
            writeln!(
                f,
                "records that earlier runs have committed: {}",
                self.done_before
            )?;
        }
        self.write_stages(f)?;
        for stage in self
            .stages
            .iter()
            .filter(|stage| !stage.skipped_files.is_empty())
        {
            writeln!(f, "skipped by {}: {}", stage.name, stage.skipped_files)?;
        }
        for stage in &self.stages {
            for (reason, count) in &stage.rejects_by_reason {
                writeln!(f, "rejected by {}: {count} {reason}", stage.name)?;
            }
        }
        for stage in &self.stages {
            if let Some(ModelErrorSummary { model, error }) = &stage.reconstruction_error {
                let ErrorSummary { mean, p50, p99, .. } = error;
                writeln!(
                    f,
                    "reconstruction error of {model}: mean {mean:.6}, p50 {p50:.6}, p99 {p99:.6}"
                )?;
            }
        }
        for stage in &self.stages {
            if let Some(CommitSummary {
                folder,
                files,
                bytes,
                records: committed,
            }) = &stage.written
            {
                let (folder, bytes) = (folder.display(), ByteSize(*bytes));
                let noun = if *files == 1 { "file" } else { "files" };
                writeln!(
                    f,
                    "{}: {committed} records in {files} {noun} ({bytes}) in {folder}",
                    stage.name
                )?;
            }
        }
        Ok(())
    }
}
