//! Parts of a file read side by side, and handed over in their order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use crate::batch::SourceBatch;
use crate::error::StageError;
use crate::source::record_files::{Output, Stop};

/// How many parts are read at a time, and how far each goes ahead of its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    pub(super) count: usize,
    /// Bytes of batches that wait for their turn, in each lane; a single larger one may wait, too.
    pub(super) bytes: u64,
}

/// Reads parts, so many at a time, each on a thread of its own. What is handed over is what reading them one after another
/// would hand over.
///
/// # Errors
/// What `read` said of the first part that it failed on; what stands before that is handed over.
pub(super) fn read_ahead<T: Sync>(
    parts: &[T],
    lanes: Lanes,
    output: &Output<'_>,
    read: impl Fn(&T, &Output<'_>) -> Result<(), Stop> + Sync,
) -> Result<(), Stop> {
    if lanes.count <= 1 || parts.len() <= 1 {
        return parts.iter().try_for_each(|part| read(part, output));
    }
    let read = &read;
    scope(|scope| {
        let mut parts = parts.iter();
        let mut reading: VecDeque<Lane<'_>> = VecDeque::new();
        for part in parts.by_ref().take(lanes.count) {
            reading.push_back(begin(scope, part, lanes.bytes, output, read)?);
        }
        while let Some(Lane { waiting, thread }) = reading.pop_front() {
            waiting.0.begin_turn();
            // Whoever returns early drops the other lanes: their threads find that nobody listens, and end.
            while let Some(batch) = waiting.0.pop() {
                if !output.hand_over(batch) {
                    return Err(Stop::Closed);
                }
            }
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            if let Some(part) = parts.next() {
                reading.push_back(begin(scope, part, lanes.bytes, output, read)?);
            }
        }
        Ok(())
    })
}

/// A part that is being read.
struct Lane<'scope> {
    waiting: Listener,
    thread: ScopedJoinHandle<'scope, Result<(), Stop>>,
}

fn begin<'scope, 'env, T: Sync>(
    scope: &'scope Scope<'scope, 'env>,
    part: &'env T,
    bytes: u64,
    output: &'env Output<'env>,
    read: &'env (impl Fn(&T, &Output<'_>) -> Result<(), Stop> + Sync),
) -> Result<Lane<'scope>, Stop> {
    let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new(), bytes });
    let speaker = Speaker(Arc::clone(&queue));
    let body = move || {
        let (take, wait) = (|batch| speaker.0.push(batch), || speaker.0.wait_for_turn());
        read(part, &output.through(&take, &wait))
    };
    // That there is no thread says nothing about the file.
    let thread = Builder::new().spawn_scoped(scope, body);
    let thread = thread.map_err(|error| StageError::Other(format!("cannot start a thread: {error}")))?;
    Ok(Lane { waiting: Listener(queue), thread })
}

/// Batches that wait for their turn, bounded in bytes.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes: u64,
}

#[derive(Default)]
struct State {
    batches: VecDeque<(u64, SourceBatch)>,
    bytes: u64,
    /// All that stands before has been handed over.
    turn: bool,
    /// There will be no more.
    ended: bool,
    /// Nobody wants more.
    closed: bool,
}

impl Queue {
    /// Waits for room. `false`: nobody wants more.
    fn push(&self, batch: SourceBatch) -> bool {
        let bytes = batch.batch.records.get_array_memory_size() as u64;
        let full = |state: &mut State| !state.closed && state.bytes > 0 && state.bytes + bytes > self.bytes;
        let mut state = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
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

    fn wait_for_turn(&self) {
        let early = |state: &mut State| !state.turn && !state.closed;
        drop(self.changed.wait_while(self.lock(), early));
    }

    /// The next batch; `None` at the end.
    fn pop(&self) -> Option<SourceBatch> {
        let empty = |state: &mut State| state.batches.is_empty() && !state.ended;
        let mut state = self.changed.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        let (bytes, batch) = state.batches.pop_front()?;
        state.bytes -= bytes;
        self.changed.notify_all();
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that there will be no more when it is dropped, by a panic too.
struct Speaker(Arc<Queue>);

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// Says that nobody wants more when it is dropped.
struct Listener(Arc<Queue>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}
