//! Loads batches on a separate thread, ahead of the training and in order.

use std::thread::JoinHandle;

use super::epoch_sampler::{EpochSampler, TrainingBatch};
use crate::error::StageError;
use crate::error::code::ErrorCode;

/// Maximum number of batches that are loaded ahead.
const MAX_AHEAD: usize = 2;

/// Maximum number of batches in memory: those that are loaded ahead, the one that is being loaded,
/// and the one that is in use.
pub(crate) const MAX_BATCHES: u64 = MAX_AHEAD as u64 + 2;

/// The batches of one pass, in order.
pub(crate) struct BatchLoader {
    batches: async_channel::Receiver<Result<TrainingBatch, StageError>>,
    thread: Option<JoinHandle<()>>,
    left: u64,
}

impl BatchLoader {
    /// Starts to load the batches of `order` from number `from` on.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(order: EpochSampler, from: u64) -> Result<Self, StageError> {
        let end = order.batches();
        let (sender, batches) = async_channel::bounded(MAX_AHEAD);
        let load = move || {
            for number in from..end {
                // The channel is closed if the training has ended for another reason.
                if sender.send_blocking(order.batch(number)).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(load);
        let thread = spawned.map_err(|error| {
            StageError::new(
                ErrorCode::ThreadFailed,
                format!("cannot start a thread: {error}"),
            )
        })?;
        Ok(Self {
            batches,
            thread: Some(thread),
            left: end.saturating_sub(from),
        })
    }

    /// Returns the next batch, or `None` after the last.
    ///
    /// # Errors
    /// When the batch cannot be loaded.
    pub fn next(&mut self) -> Result<Option<TrainingBatch>, StageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let batch = self.batches.recv_blocking();
        batch
            .unwrap_or_else(|_| {
                Err(StageError::new(
                    ErrorCode::Internal,
                    "the thread that loads batches panicked".to_owned(),
                ))
            })
            .map(Some)
    }
}

impl Drop for BatchLoader {
    fn drop(&mut self) {
        self.batches.close();
        if let Some(thread) = self.thread.take() {
            // A panic was reported already as the error of the batch.
            let _ = thread.join();
        }
    }
}
