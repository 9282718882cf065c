//! Reads parts of a file concurrently and sends their batches in the order of the parts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use parking_lot::{Condvar, Mutex};

use crate::batch::SourceBatch;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::BatchOutput;

/// The number of parts that are read concurrently, and the limit on batches that are read ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParallelRead {
    /// Maximum number of parts that are read concurrently.
    pub(crate) count: usize,
    /// Maximum size in bytes of the waiting batches of each part; a single larger batch may also
    /// wait.
    pub(crate) bytes: u64,
}

/// Reads up to `parallel.count` parts concurrently, each on its own thread. The batches and their
/// order are the same as with sequential reading.
///
/// # Errors
/// The error of the first part that `read` fails on; the batches before it are sent.
pub(crate) fn read_ahead<T: Sync>(
    parts: &[T],
    parallel: ParallelRead,
    output: &BatchOutput<'_>,
    read: impl Fn(&T, &BatchOutput<'_>) -> Result<(), ReadEnd> + Sync,
) -> Result<(), ReadEnd> {
    if parallel.count <= 1 || parts.len() <= 1 {
        return parts.iter().try_for_each(|part| read(part, output));
    }
    let read = &read;
    scope(|scope| {
        let mut parts = parts.iter();
        let mut reading: VecDeque<ReadTask<'_>> = VecDeque::new();
        for part in parts.by_ref().take(parallel.count) {
            reading.push_back(begin(scope, part, parallel.bytes, output, read)?);
        }
        while let Some(ReadTask { queue, thread }) = reading.pop_front() {
            queue.0.begin_turn();
            // An early return drops the other tasks, whose threads then find their queues closed
            // and end.
            while let Some(batch) = queue.0.pop() {
                if !output.forward(batch) {
                    return Err(ReadEnd::Cancelled);
                }
            }
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            if let Some(part) = parts.next() {
                reading.push_back(begin(scope, part, parallel.bytes, output, read)?);
            }
        }
        Ok(())
    })
}

/// A part that is being read.
struct ReadTask<'scope> {
    queue: ConsumerGuard,
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
    let producer = ProducerGuard(Arc::clone(&queue));
    let body = move || {
        let (take, wait) = (
            |batch| producer.0.push(batch),
            || producer.0.wait_until_head(),
        );
        read(part, &output.through(&take, &wait))
    };
    // A missing thread is an error of the run, not of the file.
    let thread = Builder::new().spawn_scoped(scope, body);
    let thread = thread.map_err(|error| {
        StageError::new(
            ErrorCode::ThreadFailed,
            format!("cannot start a thread: {error}"),
        )
    })?;
    Ok(ReadTask {
        queue: ConsumerGuard(queue),
        thread,
    })
}

/// The waiting batches of a part, bounded in bytes.
struct BatchQueue {
    state: Mutex<BatchQueueState>,
    changed: Condvar,
    bytes: u64,
}

#[derive(Default)]
struct BatchQueueState {
    batches: VecDeque<(u64, SourceBatch)>,
    bytes: u64,
    /// All earlier parts have been sent.
    turn: bool,
    /// The reader of the part has ended.
    ended: bool,
    /// The receiver is gone.
    closed: bool,
}

impl BatchQueue {
    /// Adds a batch once there is room. `false`: the receiver is gone.
    fn push(&self, batch: SourceBatch) -> bool {
        let bytes = batch.batch.records.get_array_memory_size() as u64;
        let full = |state: &mut BatchQueueState| {
            !state.closed && state.bytes > 0 && state.bytes + bytes > self.bytes
        };
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, full);
        if state.closed {
            return false;
        }
        state.bytes += bytes;
        state.batches.push_back((bytes, batch));
        self.changed.notify_all();
        true
    }

    fn begin_turn(&self) {
        self.state.lock().turn = true;
        self.changed.notify_all();
    }

    /// Waits for the turn of the part, or until the receiver is gone.
    fn wait_until_head(&self) {
        let early = |state: &mut BatchQueueState| !state.turn && !state.closed;
        self.changed.wait_while(&mut self.state.lock(), early);
    }

    /// Waits for the next batch; `None` at the end of the part.
    fn pop(&self) -> Option<SourceBatch> {
        let empty = |state: &mut BatchQueueState| state.batches.is_empty() && !state.ended;
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, empty);
        let (bytes, batch) = state.batches.pop_front()?;
        state.bytes -= bytes;
        self.changed.notify_all();
        Some(batch)
    }
}

/// Ends the queue when it is dropped, also by a panic of the reader.
struct ProducerGuard(Arc<BatchQueue>);

impl Drop for ProducerGuard {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// Closes the queue when it is dropped.
struct ConsumerGuard(Arc<BatchQueue>);

impl Drop for ConsumerGuard {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}
