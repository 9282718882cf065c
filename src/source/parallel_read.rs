//! Parts of a file read side by side, and handed over in their order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use crate::batch::SourceBatch;
use crate::error::StageError;
use crate::source::file_source::{BatchOutput, ReadEnd};

/// How many parts are read at a time, and how far each goes ahead of its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParallelRead {
    pub(super) count: usize,
    /// Bytes of batches that wait for their turn, in each lane; a single larger one may wait, too.
    pub(super) bytes: u64,
}

/// Reads parts, so many at a time, each on a thread of its own. What is handed over is what reading
/// them one after another would hand over.
///
/// # Errors
/// What `read` said of the first part that it failed on; what stands before that is handed over.
pub(super) fn read_ahead<T: Sync>(
    parts: &[T],
    lanes: ParallelRead,
    output: &BatchOutput<'_>,
    read: impl Fn(&T, &BatchOutput<'_>) -> Result<(), ReadEnd> + Sync,
) -> Result<(), ReadEnd> {
    if lanes.count <= 1 || parts.len() <= 1 {
        return parts.iter().try_for_each(|part| read(part, output));
    }
    let read = &read;
    scope(|scope| {
        let mut parts = parts.iter();
        let mut reading: VecDeque<ReadTask<'_>> = VecDeque::new();
        for part in parts.by_ref().take(lanes.count) {
            reading.push_back(begin(scope, part, lanes.bytes, output, read)?);
        }
        while let Some(ReadTask { waiting, thread }) = reading.pop_front() {
            waiting.0.begin_turn();
            // Whoever returns early drops the other lanes: their threads find that nobody listens,
            // and end.
            while let Some(batch) = waiting.0.pop() {
                if !output.forward(batch) {
                    return Err(ReadEnd::Cancelled);
                }
            }
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            if let Some(part) = parts.next() {
                reading.push_back(begin(scope, part, lanes.bytes, output, read)?);
            }
        }
        Ok(())
    })
}

/// A part that is being read.
struct ReadTask<'scope> {
    waiting: ConsumerGuard,
    thread: ScopedJoinHandle<'scope, Result<(), ReadEnd>>,
}

fn begin<'scope, 'env, T: Sync>(
    scope: &'scope Scope<'scope, 'env>,
    part: &'env T,
    bytes: u64,
    output: &'env BatchOutput<'env>,
    read: &'env (impl Fn(&T, &BatchOutput<'_>) -> Result<(), ReadEnd> + Sync),
) -> Result<ReadTask<'scope>, ReadEnd> {
    let queue = Arc::new(BatchQueue {
        state: Mutex::default(),
        changed: Condvar::new(),
        bytes,
    });
    let speaker = ProducerGuard(Arc::clone(&queue));
    let body = move || {
        let (take, wait) = (
            |batch| speaker.0.push(batch),
            || speaker.0.wait_until_head(),
        );
        read(part, &output.through(&take, &wait))
    };
    // That there is no thread says nothing about the file.
    let thread = Builder::new().spawn_scoped(scope, body);
    let thread =
        thread.map_err(|error| StageError::Other(format!("cannot start a thread: {error}")))?;
    Ok(ReadTask {
        waiting: ConsumerGuard(queue),
        thread,
    })
}

/// Batches that wait for their turn, bounded in bytes.
struct BatchQueue {
    state: Mutex<BatchQueueState>,
    changed: Condvar,
    bytes: u64,
}

#[derive(Default)]
struct BatchQueueState {
    batches: VecDeque<(u64, SourceBatch)>,
    bytes: u64,
    /// All that stands before has been handed over.
    turn: bool,
    /// There will be no more.
    ended: bool,
    /// Nobody wants more.
    closed: bool,
}

impl BatchQueue {
    /// Waits for room. `false`: nobody wants more.
    fn push(&self, batch: SourceBatch) -> bool {
        let bytes = batch.batch.records.get_array_memory_size() as u64;
        let full = |state: &mut BatchQueueState| {
            !state.closed && state.bytes > 0 && state.bytes + bytes > self.bytes
        };
        let mut state = self
            .changed
            .wait_while(self.lock(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return false;
        }
        state.bytes += bytes;
        state.batches.push_back((bytes, batch));
        self.changed.notify_all();
        true
    }

    fn begin_turn(&self) {
        self.lock().turn = true;
        self.changed.notify_all();
    }

    fn wait_until_head(&self) {
        let early = |state: &mut BatchQueueState| !state.turn && !state.closed;
        drop(self.changed.wait_while(self.lock(), early));
    }

    /// The next batch; `None` at the end.
    fn pop(&self) -> Option<SourceBatch> {
        let empty = |state: &mut BatchQueueState| state.batches.is_empty() && !state.ended;
        let mut state = self
            .changed
            .wait_while(self.lock(), empty)
            .unwrap_or_else(PoisonError::into_inner);
        let (bytes, batch) = state.batches.pop_front()?;
        state.bytes -= bytes;
        self.changed.notify_all();
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, BatchQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that there will be no more when it is dropped, by a panic too.
struct ProducerGuard(Arc<BatchQueue>);

impl Drop for ProducerGuard {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// Says that nobody wants more when it is dropped.
struct ConsumerGuard(Arc<BatchQueue>);

impl Drop for ConsumerGuard {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}
