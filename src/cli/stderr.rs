//! Standard error, written by a dedicated thread from a bounded queue, so that an unwritable log
//! neither ends nor blocks the process.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use prometheus::IntCounter;

use super::log;

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
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars.clone());
}

/// Runs `write` while the progress bars are hidden.
fn above_bars<T>(write: impl FnOnce() -> T) -> T {
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

    fn waiting(&self) -> MutexGuard<'_, QueueState> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_lost_lines(&self, counter: &IntCounter) {
        let waiting = self.waiting();
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
        let mut waiting = self.waiting();
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
        let mut waiting = self.waiting();
        let (text, unreported) = loop {
            if let Some(text) = waiting.texts.pop_front() {
                waiting.bytes -= text.len();
                waiting.is_writing = true;
                break (text, std::mem::take(&mut waiting.unreported));
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(waiting);
        let (is_reported, written) = above_bars(|| {
            let report = match unreported {
                0 => Ok(()),
                lost => put(out, log::lost_lines(lost).as_bytes(), is_torn),
            };
            let is_reported = report.is_ok();
            (is_reported, report.and_then(|()| put(out, &text, is_torn)))
        });
        waiting = self.waiting();
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
        let mut waiting = self.waiting();
        let (mut done, mut last_progress) = (waiting.done, Instant::now());
        while (waiting.is_writing || !waiting.texts.is_empty()) && Instant::now() < end {
            let left = timeout.saturating_sub(last_progress.elapsed());
            if left.is_zero() {
                return;
            }
            waiting = self
                .changed
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A writer that accepts `room` bytes and then fails with [`ErrorKind::StorageFull`].
    struct Disk {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counted(queue: &StderrQueue) -> IntCounter {
        let counter = IntCounter::new("lost", "lost").unwrap();
        queue.count_lost_lines(&counter);
        counter
    }

    #[test]
    fn lines_lost_on_a_full_disk_are_reported_later() {
        let queue = StderrQueue::new();
        let (mut disk, mut is_torn) = (
            Disk {
                room: 6,
                taken: Vec::new(),
            },
            false,
        );
        for text in ["one\n", "two\n", "three\n", "four\n"] {
            queue.add(text.as_bytes());
        }
        (0..3).for_each(|_| queue.write_next(&mut disk, &mut is_torn));
        assert_eq!(
            (disk.taken.as_slice(), counted(&queue).get()),
            (b"one\ntw".as_slice(), 2)
        );
        disk.room = usize::MAX;
        queue.write_next(&mut disk, &mut is_torn);
        let text = String::from_utf8(disk.taken).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            (lines[0], lines[1], lines[3], lines.len()),
            ("one", "tw", "four", 4),
            "{text}"
        );
        let expected = "2 lines of the log were lost, because standard error was not writable";
        assert!(lines[2].ends_with(expected), "{text}");
    }

    #[test]
    fn blocked_reader_uses_bounded_memory() {
        let queue = StderrQueue::new();
        let counter = counted(&queue);
        let text = vec![b'x'; 1000];
        (0..3000).for_each(|_| queue.add(&text));
        let waiting = queue.waiting();
        assert!(waiting.bytes <= MAX_BYTES, "{}", waiting.bytes);
        assert_eq!(waiting.texts.len() as u64 + counter.get(), 3000);
    }

    #[test]
    fn flush_without_a_writing_thread_times_out() {
        let queue = StderrQueue::new();
        queue.flush(FLUSH_TIMEOUT, TOTAL_FLUSH_TIMEOUT);
        queue.add(b"never\n");
        queue.flush(Duration::from_millis(1), TOTAL_FLUSH_TIMEOUT);
        assert_eq!(queue.waiting().texts.len(), 1);
    }

    #[test]
    fn lines_lost_before_the_counter_is_set_are_counted() {
        let queue = StderrQueue::new();
        queue.add(b"one\ntwo\n");
        queue.write_next(
            &mut Disk {
                room: 0,
                taken: Vec::new(),
            },
            &mut false,
        );
        assert_eq!(counted(&queue).get(), 2);
    }
}
