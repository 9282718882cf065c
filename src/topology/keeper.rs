//! Runs one sink on a thread of its own: writes what is new to it, commits at the end, rejects now and then before it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::messages::{Keep, Stop};
use super::stats::Stats;
use crate::coverage::Coverage;
use crate::error::StageError;
use crate::sink::Writer;

/// Batches after which rejects are committed. They are few, so that no file of theirs fills; but a batch is done only
/// when its rejects are, and a run that was killed would else begin at the start.
const REJECTS_EVERY: u64 = 256;

pub(super) struct Keeper {
    pub(super) name: Arc<str>,
    /// The sink's place in the plan; `None` for the rejects.
    pub(super) stage: Option<usize>,
    pub(super) writer: Box<dyn Writer>,
    /// What earlier runs committed: rows that all of these cover are dropped.
    pub(super) committed: Vec<Coverage>,
    pub(super) inbox: async_channel::Receiver<Keep>,
}

impl Keeper {
    /// Works until the end is said. After a failure it only lets batches go, so that their permits return;
    /// what it had committed before stays.
    pub(super) fn run(mut self, stats: &Stats, stop: &Stop) {
        let (mut sound, mut batches) = (true, 0);
        while let Ok(message) = self.inbox.recv_blocking() {
            let end = matches!(message, Keep::End);
            if sound {
                // A panicking sink must not leave the run waiting for its permits.
                let outcome = catch_unwind(AssertUnwindSafe(|| self.keep(message, &mut batches, stats)));
                let outcome = outcome.unwrap_or_else(|_| Err(StageError::Other("the sink panicked".to_owned())));
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

    fn keep(&mut self, message: Keep, batches: &mut u64, stats: &Stats) -> Result<(), StageError> {
        let started = Instant::now();
        match message {
            Keep::Batch { batch, permit } => {
                if !self.committed.iter().all(|committed| committed.covers_all(&batch.provenance)) {
                    self.writer.write(&batch)?;
                    *batches += 1;
                    match self.stage {
                        Some(stage) => {
                            let size = (batch.records.num_rows() as u64, batch.records.get_array_memory_size() as u64);
                            stats.batch(stage, size, None, started.elapsed());
                        }
                        None if batches.is_multiple_of(REJECTS_EVERY) => self.writer.commit()?,
                        None => {}
                    }
                }
                drop(permit);
            }
            Keep::End => self.writer.commit()?,
        }
        if let Some(stage) = self.stage {
            stats.committed(stage, self.writer.written());
        }
        Ok(())
    }
}
