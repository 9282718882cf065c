//! Standard error: a thread of its own writes it from a bounded queue, so that a log that cannot be
//! written neither ends nor stops the process.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::log;

/// Bytes that may wait to be written.
const MAX_BYTES: usize = 1 << 20;
/// How long the end of the process waits for a text to be written, and for all of them.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_IN_ALL: Duration = Duration::from_secs(10);
/// How long a descriptor that does not block is left alone before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);

static QUEUE: StderrQueue = StderrQueue::new();
/// Whether a thread writes what is queued.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Starts the thread that writes. Before that, and where it cannot be started, texts are written by
/// who gives them.
pub(super) fn start() {
    if STARTED.swap(true, Relaxed) {
        return;
    }
    let thread = std::thread::Builder::new().name("log".to_owned());
    if thread.spawn(|| QUEUE.write_to(&mut io::stderr())).is_err() {
        STARTED.store(false, Relaxed);
    }
}

/// Counts the lines that are lost in `counter`, too.
pub(super) fn count_lost_lines(counter: &IntCounter) {
    QUEUE.count_lost_lines(counter);
}

/// Writes whole lines to standard error, or loses them; never fails, and never waits once [`start`]
/// was called.
pub(super) fn write(text: &str) {
    if STARTED.load(Relaxed) {
        QUEUE.add(text.as_bytes());
    } else {
        // A command that only prints cannot report a closed pipe.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Waits until everything is written, as long as that makes progress.
pub fn flush() {
    if STARTED.load(Relaxed) {
        QUEUE.flush(PATIENCE, PATIENCE_IN_ALL);
    }
}

/// Standard error as a writer; each call has to have whole lines.
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

/// Texts that wait to be written. Where too many wait, the oldest are lost.
struct StderrQueue {
    waiting: Mutex<QueueState>,
    changed: Condvar,
    counter: OnceLock<IntCounter>,
}

struct QueueState {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a text was taken and is not written yet.
    is_writing: bool,
    /// Texts that were written or lost by the thread.
    done: u64,
    /// Lines that were lost in all.
    lost: u64,
    /// Lines that were lost and that the log does not mention yet.
    unmentioned: u64,
}

impl StderrQueue {
    const fn new() -> Self {
        let waiting = QueueState {
            texts: VecDeque::new(),
            bytes: 0,
            is_writing: false,
            done: 0,
            lost: 0,
            unmentioned: 0,
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
        waiting.unmentioned += lines;
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

    /// Writes texts as they come, for ever.
    fn write_to(&self, out: &mut impl Write) {
        let mut is_torn = false;
        loop {
            self.write_next(out, &mut is_torn);
        }
    }

    /// Waits for a text and writes it. `is_torn`: the last line that `out` took has no end.
    fn write_next(&self, out: &mut impl Write, is_torn: &mut bool) {
        let mut waiting = self.waiting();
        let (text, unmentioned) = loop {
            if let Some(text) = waiting.texts.pop_front() {
                waiting.bytes -= text.len();
                waiting.is_writing = true;
                break (text, std::mem::take(&mut waiting.unmentioned));
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(waiting);
        let mention = match unmentioned {
            0 => Ok(()),
            lost => put(out, log::lost_lines(lost).as_bytes(), is_torn),
        };
        let is_mentioned = mention.is_ok();
        let written = mention.and_then(|()| put(out, &text, is_torn));
        let mut waiting = self.waiting();
        if !is_mentioned {
            waiting.unmentioned += unmentioned;
        }
        if written.is_err() {
            self.lose(&mut waiting, &text);
        }
        waiting.is_writing = false;
        waiting.done += 1;
        drop(waiting);
        self.changed.notify_all();
    }

    fn flush(&self, patience: Duration, in_all: Duration) {
        let end = Instant::now() + in_all;
        let mut waiting = self.waiting();
        let (mut done, mut moved) = (waiting.done, Instant::now());
        while (waiting.is_writing || !waiting.texts.is_empty()) && Instant::now() < end {
            let left = patience.saturating_sub(moved.elapsed());
            if left.is_zero() {
                return;
            }
            waiting = self
                .changed
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if waiting.done != done {
                (done, moved) = (waiting.done, Instant::now());
            }
        }
    }
}

/// Lines of a text; the last one counts without an end as well.
fn lines(text: &[u8]) -> u64 {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count()
        .max(1) as u64
}

/// Writes a text as a whole. Where that fails in the middle of a line, the next text begins with
/// the end of that line.
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
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

    /// Takes so many bytes, then fails until it has room again.
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
    fn full_disk_loses_lines_and_later_mentions_them() {
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
        assert!(lines[2].contains("2 lines of the log were lost"), "{text}");
    }

    #[test]
    fn reader_that_stands_still_costs_bounded_memory() {
        let queue = StderrQueue::new();
        let counter = counted(&queue);
        let text = vec![b'x'; 1000];
        (0..3000).for_each(|_| queue.add(&text));
        let waiting = queue.waiting();
        assert!(waiting.bytes <= MAX_BYTES, "{}", waiting.bytes);
        assert_eq!(waiting.texts.len() as u64 + counter.get(), 3000);
    }

    #[test]
    fn flush_ends_where_nothing_is_written() {
        let queue = StderrQueue::new();
        queue.flush(PATIENCE, PATIENCE_IN_ALL);
        queue.add(b"never\n");
        queue.flush(Duration::from_millis(1), PATIENCE_IN_ALL);
        assert_eq!(queue.waiting().texts.len(), 1);
    }

    #[test]
    fn lines_lost_before_the_counter_is_known_are_counted() {
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
