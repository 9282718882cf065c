//! Makes batches on a thread of its own, ahead of the training, and hands them over in order.

use std::thread::JoinHandle;

use super::epoch_sampler::{EpochSampler, TrainingBatch};
use crate::error::StageError;

/// Batches that the thread may be ahead.
const AHEAD: usize = 2;

/// The batches of one pass, in order.
pub struct BatchLoader {
    batches: async_channel::Receiver<Result<TrainingBatch, StageError>>,
    thread: Option<JoinHandle<()>>,
    left: u64,
}

impl BatchLoader {
    /// Starts to make the batches of `order` from number `from` on.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(order: EpochSampler, from: u64) -> Result<Self, StageError> {
        let end = order.batches();
        let (sender, batches) = async_channel::bounded(AHEAD);
        let make = move || {
            for number in from..end {
                // A closed channel: the training has ended for another reason.
                if sender.send_blocking(order.batch(number)).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(make);
        let thread = spawned
            .map_err(|error| StageError::Other(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            batches,
            thread: Some(thread),
            left: end.saturating_sub(from),
        })
    }

    /// The next batch, or `None` behind the last.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn next(&mut self) -> Result<Option<TrainingBatch>, StageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let batch = self.batches.recv_blocking();
        batch
            .unwrap_or_else(|_| {
                Err(StageError::Other(
                    "the thread that makes batches has panicked".to_owned(),
                ))
            })
            .map(Some)
    }
}

impl Drop for BatchLoader {
    fn drop(&mut self) {
        self.batches.close();
        if let Some(thread) = self.thread.take() {
            // A panic was reported already, in place of the batch that it cost.
            let _ = thread.join();
        }
    }
}
