//! Standard error, written by a dedicated thread from a bounded queue, so that an unwritable log
//! neither ends nor blocks the process.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use crate::cli::log_lines::lost_lines;

/// Maximum size of the queue in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Maximum time that the exit of the process waits for one text to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time that the exit of the process waits for all texts to be written.
const TOTAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between attempts to write to a nonblocking descriptor.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

static QUEUE: StderrQueue = StderrQueue::new();
/// Whether the thread runs that writes the queue.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The progress bars on standard error, which texts must not break.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Writes texts above these progress bars from now on.
pub(super) fn write_above(bars: &MultiProgress) {
    *BARS.lock() = Some(bars.clone());
}

/// Runs `write` while the progress bars are hidden.
fn above_bars<T>(write: impl FnOnce() -> T) -> T {
    let bars = BARS.lock().clone();
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Starts the writing thread. Before that, or if it cannot be started, callers write their texts
/// directly.
pub(super) fn start() {
    if STARTED.swap(true, Relaxed) {
        return;
    }
    let thread = std::thread::Builder::new().name("log".to_owned());
    if thread.spawn(|| QUEUE.write_to(&mut io::stderr())).is_err() {
        STARTED.store(false, Relaxed);
    }
}

/// Also counts lost lines in `counter`.
pub(super) fn count_lost_lines(counter: &IntCounter) {
    QUEUE.count_lost_lines(counter);
}

/// Writes complete lines to standard error. Never fails, and never blocks after [`start`]: lines
/// that cannot be written are dropped and counted.
pub(super) fn write(text: &str) {
    if STARTED.load(Relaxed) {
        QUEUE.add(text.as_bytes());
    } else {
        // An error of standard error itself cannot be reported.
        let _ = above_bars(|| io::stderr().write_all(text.as_bytes()));
    }
}

/// Waits until the queue is written: at most 1 s for one text, and 10 s in total.
pub fn flush() {
    if STARTED.load(Relaxed) {
        QUEUE.flush(FLUSH_TIMEOUT, TOTAL_FLUSH_TIMEOUT);
    }
}

/// Standard error as a writer; each call has to pass complete lines.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A queue of texts to be written. If it is full, the oldest texts are dropped.
struct StderrQueue {
    waiting: Mutex<QueueState>,
    changed: Condvar,
    counter: OnceLock<IntCounter>,
}

struct QueueState {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread is writing a text that it has taken from the queue.
    is_writing: bool,
    /// Number of texts that the thread has written or lost.
    done: u64,
    /// Total number of lost lines.
    lost: u64,
    /// Number of lost lines that the log does not report yet.
    unreported: u64,
}

impl StderrQueue {
    const fn new() -> Self {
        let waiting = QueueState {
            texts: VecDeque::new(),
            bytes: 0,
            is_writing: false,
            done: 0,
            lost: 0,
            unreported: 0,
        };
        Self {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            counter: OnceLock::new(),
        }
    }

    fn count_lost_lines(&self, counter: &IntCounter) {
        let waiting = self.waiting.lock();
        if self.counter.set(counter.clone()).is_ok() {
            counter.inc_by(waiting.lost);
        }
    }

    fn lose(&self, waiting: &mut QueueState, text: &[u8]) {
        let lines = lines(text);
        waiting.lost += lines;
        waiting.unreported += lines;
        if let Some(counter) = self.counter.get() {
            counter.inc_by(lines);
        }
    }

    fn add(&self, text: &[u8]) {
        let mut waiting = self.waiting.lock();
        while waiting.bytes + text.len() > MAX_BYTES
            && let Some(oldest) = waiting.texts.pop_front()
        {
            waiting.bytes -= oldest.len();
            self.lose(&mut waiting, &oldest);
        }
        waiting.bytes += text.len();
        waiting.texts.push_back(text.to_vec());
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes texts as they arrive; does not return.
    fn write_to(&self, out: &mut impl Write) {
        let mut is_torn = false;
        loop {
            self.write_next(out, &mut is_torn);
        }
    }

    /// Waits for a text and writes it. `is_torn` states whether the last line in `out` has no line
    /// break.
    fn write_next(&self, out: &mut impl Write, is_torn: &mut bool) {
        let mut waiting = self.waiting.lock();
        let (text, unreported) = loop {
            if let Some(text) = waiting.texts.pop_front() {
                waiting.bytes -= text.len();
                waiting.is_writing = true;
                break (text, std::mem::take(&mut waiting.unreported));
            }
            self.changed.wait(&mut waiting);
        };
        drop(waiting);
        let (is_reported, written) = above_bars(|| {
            let report = match unreported {
                0 => Ok(()),
                lost => put(out, lost_lines(lost).as_bytes(), is_torn),
            };
            let is_reported = report.is_ok();
            (is_reported, report.and_then(|()| put(out, &text, is_torn)))
        });
        waiting = self.waiting.lock();
        if !is_reported {
            waiting.unreported += unreported;
        }
        if written.is_err() {
            self.lose(&mut waiting, &text);
        }
        waiting.is_writing = false;
        waiting.done += 1;
        drop(waiting);
        self.changed.notify_all();
    }

    fn flush(&self, timeout: Duration, total_timeout: Duration) {
        let end = Instant::now() + total_timeout;
        let mut waiting = self.waiting.lock();
        let (mut done, mut last_progress) = (waiting.done, Instant::now());
        while (waiting.is_writing || !waiting.texts.is_empty()) && Instant::now() < end {
            let left = timeout.saturating_sub(last_progress.elapsed());
            if left.is_zero() {
                return;
            }
            self.changed.wait_for(&mut waiting, left);
            if waiting.done != done {
                (done, last_progress) = (waiting.done, Instant::now());
            }
        }
    }
}

/// Counts the lines of a text, including a last line without a line break.
fn lines(text: &[u8]) -> u64 {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count()
        .max(1) as u64
}

/// Writes a complete text. After a failure in the middle of a line, the next text begins with a
/// line break.
fn put(out: &mut impl Write, text: &[u8], is_torn: &mut bool) -> io::Result<()> {
    let end: &[u8] = if *is_torn { b"\n" } else { b"" };
    for mut part in [end, text] {
        while !part.is_empty() {
            match out.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    *is_torn = part[written - 1] != b'\n';
                    part = &part[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
