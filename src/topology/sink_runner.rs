//! Runs one sink on a thread of its own: writes what is new to it, and commits at the end, by age,
//! and now and then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack_tracker::AckTracker;
use super::generation::Generation;
use super::messages::{FailureSignal, SinkMessage};
use super::stats::RunStats;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::sink::{CommitProgress, CommitStats, SinkWriter};

/// Batches after which rejects are committed. They are few, so that no file of theirs fills; but a
/// batch is done only when its rejects are, and a run that was killed would else begin at the
/// start.
pub(super) const REJECTS_EVERY: u64 = 256;
/// Batches after which any sink commits: where a filter lets nothing through no file fills, and
/// what is not committed is held in mind. So many fill a file where it lets something through.
pub(super) const SINKS_EVERY: u64 = 65_536;

pub(super) struct SinkRunner {
    pub(super) name: Arc<str>,
    /// The sink's place in the plan; `None` for the rejects.
    pub(super) stage: Option<usize>,
    /// Its place among the sinks.
    pub(super) place: usize,
    pub(super) writer: Box<dyn SinkWriter>,
    /// What earlier runs committed: rows that all of these cover are dropped.
    pub(super) committed: Vec<Coverage>,
    pub(super) inbox: async_channel::Receiver<SinkMessage>,
    pub(super) policy: CommitPolicy,
    /// The number of the models that it writes for.
    pub(super) generation: u64,
    pub(super) uncommitted: Uncommitted,
    /// What it has said to have committed.
    pub(super) reported: CommitStats,
    /// Says when it is in a call that may not return.
    pub(super) caller: Arc<BlockingCaller>,
}

/// When a sink commits, beside the end and full files.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitPolicy {
    /// After so many batches.
    pub(super) batches: u64,
    /// When the oldest record has waited for so long.
    pub(super) age: Option<Duration>,
    /// Whether each commit is worth a line in the log.
    pub(super) logged: bool,
}

/// What a sink has taken and not committed.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    batches: u64,
    since: Option<Instant>,
    /// The number after the last batch.
    next: u64,
}

impl SinkRunner {
    /// Works until the end is said. After a failure it only lets batches go, so that their permits
    /// return; what it had committed before stays.
    pub(super) fn run(mut self, stats: &RunStats, acks: &AckTracker, stop: &FailureSignal) {
        let mut sound = true;
        while let Ok(message) = self.inbox.recv_blocking() {
            let end = matches!(message, SinkMessage::End);
            if sound {
                // A panicking sink must not leave the run waiting for its permits.
                let caller = Arc::clone(&self.caller);
                let outcome = caller.during(BlockingOperation::Writes, || {
                    catch_unwind(AssertUnwindSafe(|| self.handle(message, stats, acks)))
                });
                let outcome = outcome
                    .unwrap_or_else(|_| Err(StageError::Other("the sink panicked".to_owned())));
                if let Err(error) = outcome {
                    stop.fail(&self.name, error);
                    sound = false;
                }
            }
            if end {
                break;
            }
        }
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
            acks.durable(self.place, number);
            self.committed_some(started.elapsed(), stats);
        }
        self.uncommitted.next = number + 1;
        if durable == CommitProgress::All {
            acks.durable(self.place, number + 1);
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

    /// Where the models are others from here on, what was made with those before is committed: a
    /// file holds the rows of one set of models.
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
        match generation.identities.get(self.place) {
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
        acks.durable(self.place, self.uncommitted.next);
        Ok(())
    }

    /// What came before a batch that was old is durable, where nothing waits.
    fn report_durable(&self, acks: &AckTracker) {
        if self.uncommitted.batches == 0 {
            acks.durable(self.place, self.uncommitted.next);
        }
    }

    fn committed_some(&mut self, took: Duration, stats: &RunStats) {
        let written = self.writer.stats();
        if self.policy.logged && written != self.reported {
            let (files, records, bytes) = (
                written.files - self.reported.files,
                written.records - self.reported.records,
                written.bytes - self.reported.bytes,
            );
            let seconds = took.as_secs_f64();
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
        stats.committed(&self.name, self.stage, written, took);
    }
}
