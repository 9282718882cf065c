//! Makes batches on threads of its own, ahead of the training, and hands them over in order.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::batches::{Batch, Order};
use crate::error::StageError;

/// Batches that each thread may be ahead.
const AHEAD: usize = 2;

/// The batches of one pass, in order.
pub struct Loader {
    receivers: Vec<async_channel::Receiver<Result<Batch, StageError>>>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
    end: u64,
}

impl Loader {
    /// Starts to make the batches of `order` from number `from` on.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(order: Order, from: u64, threads: usize) -> Result<Self, StageError> {
        let (end, order, count) = (order.batches(), Arc::new(order), threads.max(1));
        let mut loader = Self { receivers: Vec::new(), threads: Vec::new(), next: from, end };
        for thread in 0..count as u64 {
            let (sender, receiver) = async_channel::bounded(AHEAD);
            let order = Arc::clone(&order);
            let make = move || {
                for number in (from + thread..end).step_by(count) {
                    // A closed channel: the training has ended for another reason.
                    if sender.send_blocking(order.batch(number)).is_err() {
                        return;
                    }
                }
            };
            let spawned = std::thread::Builder::new().name("loader".to_owned()).spawn(make);
            let spawned = spawned.map_err(|error| StageError::Other(format!("cannot start a thread: {error}")))?;
            loader.receivers.push(receiver);
            loader.threads.push(spawned);
        }
        Ok(loader)
    }

    /// The next batch, or `None` behind the last.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn next(&mut self) -> Result<Option<Batch>, StageError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let turn = self.receivers.remove(0);
        let batch = turn.recv_blocking();
        self.receivers.push(turn);
        self.next += 1;
        batch
            .unwrap_or_else(|_| Err(StageError::Other("a thread that makes batches has panicked".to_owned())))
            .map(Some)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            // A panic was told already, in place of the batch that it cost.
            let _ = thread.join();
        }
    }
}
