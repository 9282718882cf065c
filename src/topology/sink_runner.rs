//! Runs one sink on a dedicated thread: writes batches that are not yet committed, and decides when
//! the sink commits: at the end of the input, when the oldest record exceeds the maximum age, and
//! every N batches. Each commit is reported to the ack tracker as an acknowledgement.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack_tracker::AckTracker;
use super::generation::Generation;
use super::messages::{FailureSignal, SinkMessage};
use super::telemetry::stats::RunStats;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::sink::{CommitProgress, CommitStats, SinkWriter};

/// The number of uncommitted batches after which the rejects dataset commits. Rejects are usually
/// too few to fill a file, but a batch is complete only when its rejects are committed: without
/// this limit, a run that is killed would resume from the start.
pub(super) const REJECTS_EVERY: u64 = 256;
/// The number of uncommitted batches after which any other sink commits. If a filter drops all
/// records, no file ever fills, and the uncommitted coverage would grow without limit. The number
/// is large enough to fill a file if records pass the filter.
pub(super) const SINKS_EVERY: u64 = 65_536;

pub(super) struct SinkRunner {
    pub(super) name: Arc<str>,
    /// The index of the sink in the plan; `None` for the rejects dataset.
    pub(super) stage: Option<usize>,
    /// The index of the sink among the sinks.
    pub(super) index: usize,
    pub(super) writer: Box<dyn SinkWriter>,
    /// The coverage that earlier runs committed. A batch that all of these contain is skipped.
    pub(super) committed: Vec<Coverage>,
    pub(super) inbox: async_channel::Receiver<SinkMessage>,
    pub(super) policy: CommitPolicy,
    /// The number of the generation whose batches it writes.
    pub(super) generation: u64,
    pub(super) uncommitted: Uncommitted,
    /// The totals at the last report of a commit.
    pub(super) reported: CommitStats,
    /// Reports the calls of the sink that may block.
    pub(super) caller: Arc<BlockingCaller>,
}

/// When a sink commits, apart from the end of the input and full files.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitPolicy {
    /// The maximum number of uncommitted batches.
    pub(super) batches: u64,
    /// The maximum age of the oldest uncommitted record.
    pub(super) age: Option<Duration>,
    /// Whether each commit is logged.
    pub(super) logged: bool,
}

/// The batches that a sink has written and not committed.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    batches: u64,
    /// The time at which the oldest of them was written.
    since: Option<Instant>,
    /// The number after the last batch that the sink has received.
    next: u64,
}

impl SinkRunner {
    /// Runs until the end of the input. After a failure it only drops batches, so that their
    /// permits are released. Earlier commits remain.
    pub(super) fn run(mut self, stats: &RunStats, acks: &AckTracker, stop: &FailureSignal) {
        let _span = tracing::debug_span!("stage", stage = &*self.name).entered();
        let mut has_failed = false;
        while let Ok(message) = self.inbox.recv_blocking() {
            let end = matches!(message, SinkMessage::End);
            if !has_failed {
                // A sink that panics must keep releasing permits, or the run would never end.
                let caller = Arc::clone(&self.caller);
                let outcome = caller.during(BlockingOperation::Write, || {
                    catch_unwind(AssertUnwindSafe(|| self.handle(message, stats, acks)))
                });
                let outcome = outcome.unwrap_or_else(|_| {
                    Err(StageError::new(ErrorCode::Internal, "the sink panicked"))
                });
                if let Err(error) = outcome {
                    stop.fail(&self.name, error);
                    has_failed = true;
                }
            }
            if end {
                break;
            }
        }
        let CommitStats {
            files,
            records,
            bytes,
        } = self.writer.stats();
        tracing::info!(stage = &*self.name, files, records, bytes, "sink closed");
    }

    fn handle(
        &mut self,
        message: SinkMessage,
        stats: &RunStats,
        acks: &AckTracker,
    ) -> Result<(), StageError> {
        match message {
            SinkMessage::Batch {
                number,
                batch,
                generation,
                permit,
            } => {
                self.switch_generation(&generation, stats, acks)?;
                self.uncommitted.next = number + 1;
                if self
                    .committed
                    .iter()
                    .all(|committed| committed.contains_all(&batch.provenance))
                {
                    self.report_durable(acks);
                } else {
                    self.write(number, &batch, stats, acks)?;
                }
                drop(permit);
                if self.uncommitted.batches >= self.policy.batches || self.is_old() {
                    self.commit(stats, acks)?;
                }
                Ok(())
            }
            SinkMessage::Tick if self.is_old() => self.commit(stats, acks),
            SinkMessage::Tick => Ok(()),
            SinkMessage::End => self.commit(stats, acks),
        }
    }

    fn write(
        &mut self,
        number: u64,
        batch: &crate::batch::Batch,
        stats: &RunStats,
        acks: &AckTracker,
    ) -> Result<(), StageError> {
        let started = Instant::now();
        let durable = self.writer.write(batch)?;
        if durable != CommitProgress::Nothing {
            self.uncommitted = Uncommitted {
                next: number,
                ..Uncommitted::default()
            };
            acks.mark_durable(self.index, number);
            self.committed_some(started.elapsed(), stats);
        }
        self.uncommitted.next = number + 1;
        if durable == CommitProgress::All {
            acks.mark_durable(self.index, number + 1);
        } else {
            self.uncommitted.batches += 1;
            self.uncommitted.since.get_or_insert(started);
        }
        if let Some(stage) = self.stage {
            let size = (
                batch.records.num_rows() as u64,
                batch.records.get_array_memory_size() as u64,
            );
            stats.batch(stage, size, None, started.elapsed());
        }
        Ok(())
    }

    /// If the batch belongs to another generation, commits the batches of the previous one: a file
    /// contains rows of one generation only.
    fn switch_generation(
        &mut self,
        generation: &Generation,
        stats: &RunStats,
        acks: &AckTracker,
    ) -> Result<(), StageError> {
        if generation.number == self.generation {
            return Ok(());
        }
        self.commit(stats, acks)?;
        self.generation = generation.number;
        match generation.identities.get(self.index) {
            Some(identity) => self.writer.switch_identity(identity.clone()),
            None => Ok(()),
        }
    }

    fn is_old(&self) -> bool {
        self.policy
            .age
            .zip(self.uncommitted.since)
            .is_some_and(|(age, since)| since.elapsed() >= age)
    }

    fn commit(&mut self, stats: &RunStats, acks: &AckTracker) -> Result<(), StageError> {
        let started = Instant::now();
        self.writer.commit()?;
        if self.uncommitted.batches > 0 {
            self.committed_some(started.elapsed(), stats);
            self.stage
                .into_iter()
                .for_each(|stage| stats.add_busy(stage, started.elapsed()));
        }
        self.uncommitted = Uncommitted {
            next: self.uncommitted.next,
            ..Uncommitted::default()
        };
        acks.mark_durable(self.index, self.uncommitted.next);
        Ok(())
    }

    /// Reports all batches up to a skipped one as durable if none of them is uncommitted.
    fn report_durable(&self, acks: &AckTracker) {
        if self.uncommitted.batches == 0 {
            acks.mark_durable(self.index, self.uncommitted.next);
        }
    }

    fn committed_some(&mut self, duration: Duration, stats: &RunStats) {
        let written = self.writer.stats();
        if self.policy.logged && written != self.reported {
            let (files, records, bytes) = (
                written.files - self.reported.files,
                written.records - self.reported.records,
                written.bytes - self.reported.bytes,
            );
            let seconds = duration.as_secs_f64();
            tracing::info!(
                stage = &*self.name,
                files,
                records,
                bytes,
                seconds,
                "committed"
            );
        }
        self.reported = written;
        stats.committed(&self.name, self.stage, written, duration);
    }
}
