//! Divides numbered tasks among threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::ScopedJoinHandle;

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::system::available_cores;

/// Maximum number of threads.
const MAX_THREADS: usize = 16;

/// Calls `work` for each of `tasks` numbers, in no fixed order. Each thread has its own state, which
/// `new` makes; all states are returned. `work` returns the amount that it has done, and `progress`
/// receives the sum of these amounts.
///
/// # Errors
/// The first error of `work`, after which no other task begins.
pub(super) fn for_each<S: Send>(
    tasks: usize,
    new: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<u64, StageError> + Sync,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<S>, StageError> {
    let threads = available_cores().min(tasks).clamp(1, MAX_THREADS);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = |sender: Sender<u64>| {
        let mut state = new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks || failed.load(Ordering::Relaxed) {
                return Ok(state);
            }
            let done = work(&mut state, task);
            failed.fetch_or(done.is_err(), Ordering::Relaxed);
            // The receiver lives until all threads have ended.
            let _ = sender.send(done?);
        }
    };
    let (sender, amounts) = channel();
    std::thread::scope(|scope| {
        let start = |_| {
            let sender = sender.clone();
            scope.spawn(|| run(sender))
        };
        let started: Vec<_> = (0..threads).map(start).collect();
        drop(sender);
        let mut done = 0;
        for amount in amounts {
            done += amount;
            progress(done);
        }
        started.into_iter().map(join).collect()
    })
}

fn join<S>(thread: ScopedJoinHandle<'_, Result<S, StageError>>) -> Result<S, StageError> {
    thread.join().unwrap_or_else(|_| {
        let message = "a thread of the search has panicked".to_owned();
        Err(StageError::new(ErrorCode::Internal, message))
    })
}
