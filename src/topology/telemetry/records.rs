//! Counts of records: committed, rejected, unread, and expected.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::batch::reject::{Reject, rejected_records};
use crate::plan::pipeline::RejectLimits;
use crate::plan::stage::StageRole;
use crate::sink::CommitStats;
use crate::topology::telemetry::stats::RunStats;
use crate::units::unix_seconds;

/// The minimum number of records to which the maximum share of rejects is applied. With fewer
/// records, a share is not meaningful.
const MIN_SHARE_RECORDS: u64 = 1000;

impl RunStats {
    /// Sets the number of inputs that a source has left to the next run.
    pub(crate) fn left_unread(&self, stage: usize, inputs: u64) {
        let stats = &self.stages[stage];
        stats.unread.store(inputs, Relaxed);
        self.metrics
            .unread_inputs
            .with_label_values(&[&*stats.name])
            .set(i64::try_from(inputs).unwrap_or(i64::MAX));
    }

    /// Counts the rejects of a stage.
    pub(crate) fn rejected(&self, stage: usize, rejects: &[Reject]) {
        let stats = &self.stages[stage];
        stats.rejects.fetch_add(rejected_records(rejects), Relaxed);
        let mut codes = stats.codes.lock();
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
    pub(crate) fn committed(
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
        let mut before = stats.written.lock();
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
    pub(crate) fn exceeded(&self, allowed: &RejectLimits, records: u64) -> Option<String> {
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
    pub(crate) fn expected_total(&self) -> u64 {
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
