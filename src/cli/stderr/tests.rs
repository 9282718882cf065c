//! Unit tests of the module `stderr`.

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
    let waiting = queue.waiting.lock();
    assert!(waiting.bytes <= MAX_BYTES, "{}", waiting.bytes);
    assert_eq!(waiting.texts.len() as u64 + counter.get(), 3000);
}

#[test]
fn flush_without_a_writing_thread_times_out() {
    let queue = StderrQueue::new();
    queue.flush(FLUSH_TIMEOUT, TOTAL_FLUSH_TIMEOUT);
    queue.add(b"never\n");
    queue.flush(Duration::from_millis(1), TOTAL_FLUSH_TIMEOUT);
    assert_eq!(queue.waiting.lock().texts.len(), 1);
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
