//! The keys of requests that were acknowledged of late, so that a request that comes again is not taken again.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable::{private, write_atomically};
use crate::error::StageError;
use crate::source::http::frame::{Head, Key};

/// Keys that are remembered at most; beyond, the oldest are forgotten before their time.
const MOST: usize = 1_000_000;
/// Bytes of an entry of the log.
const ENTRY: usize = 44;

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// The row of its first record.
    pub(super) first: u64,
    /// Records.
    pub(super) rows: u32,
    /// When, in seconds since 1970.
    time: u64,
    /// A checksum of its body.
    pub(super) body: u32,
}

/// Keys, and what their requests came to.
pub(super) struct Keys {
    window: Duration,
    taken: HashMap<Key, Taken>,
    /// The oldest first.
    order: VecDeque<Key>,
    /// Keys whose frames are gone lie here.
    log: PathBuf,
    logged: usize,
}

impl Keys {
    /// What the log in `folder` remembers of the last `window`, as of `now`.
    ///
    /// # Errors
    /// When the log cannot be read or written anew.
    pub(super) fn open(folder: &Path, window: Duration, now: u64) -> Result<Self, StageError> {
        let log = folder.join("keys.log");
        let bytes = match fs::read(&log) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(StageError::io(&log))?,
        };
        let mut keys = Self { window, taken: HashMap::new(), order: VecDeque::new(), log, logged: 0 };
        // An entry that a crash cut short is that of a frame which is still there.
        bytes.chunks_exact(ENTRY).filter_map(parse).for_each(|(key, taken)| keys.insert(key, taken));
        keys.forget_old(now);
        keys.write_anew()?;
        Ok(keys)
    }

    fn insert(&mut self, key: Key, taken: Taken) {
        if self.taken.insert(key, taken).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.taken.remove(&oldest);
        }
    }

    /// Notes the key of a frame that is in the journal.
    pub(super) fn add(&mut self, head: &Head) {
        if let Some(key) = head.key {
            self.insert(key, Taken { first: head.first, rows: head.rows, time: head.time, body: head.body });
        }
    }

    /// What the request of this key came to.
    pub(super) fn get(&self, key: &Key) -> Option<Taken> {
        self.taken.get(key).copied()
    }

    fn forget_old(&mut self, now: u64) {
        let window = self.window.as_secs();
        while let Some(oldest) = self.order.front() {
            match self.taken.get(oldest) {
                Some(taken) if taken.time.saturating_add(window) >= now => return,
                _ => {
                    self.taken.remove(oldest);
                    self.order.pop_front();
                }
            }
        }
    }

    /// Makes the keys of frames durable that are about to go.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(super) fn outlive(&mut self, frames: &[Head], now: u64) -> Result<(), StageError> {
        self.forget_old(now);
        let known = frames.iter().filter_map(|head| Some((head.key?, self.get(&head.key?)?)));
        let entries: Vec<u8> = known.flat_map(|(key, taken)| bytes(&key, &taken)).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.logged += entries.len() / ENTRY;
        if self.logged > 2 * self.taken.len() + 1024 {
            return self.write_anew();
        }
        let file = private().create(true).append(true).open(&self.log);
        let appended = file.and_then(|mut file: File| file.write_all(&entries).and_then(|()| file.sync_data()));
        appended.map_err(StageError::io(&self.log))
    }

    fn write_anew(&mut self) -> Result<(), StageError> {
        let entries = self.order.iter().filter_map(|key| Some(bytes(key, self.taken.get(key)?)));
        let entries: Vec<u8> = entries.flatten().collect();
        self.logged = entries.len() / ENTRY;
        write_atomically(&self.log, &entries)
    }
}

fn bytes(key: &Key, taken: &Taken) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[0..16].copy_from_slice(key);
    bytes[16..24].copy_from_slice(&taken.first.to_le_bytes());
    bytes[24..28].copy_from_slice(&taken.rows.to_le_bytes());
    bytes[28..36].copy_from_slice(&taken.time.to_le_bytes());
    bytes[36..40].copy_from_slice(&taken.body.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// `None` for an entry that is damaged: it costs a repetition at worst.
fn parse(bytes: &[u8]) -> Option<(Key, Taken)> {
    let four = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let eight = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let taken = Taken { first: eight(16)?, rows: four(24)?, time: eight(28)?, body: four(36)? };
    let sound = four(40)? == crc32fast::hash(bytes.get(..40)?);
    Some((bytes.get(..16)?.try_into().ok()?, taken)).filter(|_| sound)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn head(key: u8, first: u64, time: u64) -> Head {
        Head::new(first, 2, time, Some([key; 16]), 5, b"payload").unwrap()
    }

    #[test]
    fn keys_outlive_their_frames_and_the_process_and_are_forgotten_after_the_window() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(folder.path(), HOUR, 0).unwrap();
        let frames = [head(1, 0, 1000), head(2, 2, 4000)];
        frames.iter().for_each(|head| keys.add(head));
        keys.outlive(&frames, 4000).unwrap();
        keys.add(&head(3, 4, 4001));
        let first = |keys: &Keys, key: u8| keys.get(&[key; 16]).map(|taken| taken.first);
        assert_eq!([first(&keys, 1), first(&keys, 2), first(&keys, 3)], [Some(0), Some(2), Some(4)]);
        let keys = Keys::open(folder.path(), HOUR, 4601).unwrap();
        assert_eq!([first(&keys, 1), first(&keys, 2), first(&keys, 3)], [None, Some(2), None], "3 was in a frame only");
    }

    #[test]
    fn the_log_does_not_grow_with_what_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(folder.path(), HOUR, 0).unwrap();
        for n in 0..10_000_u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(n + 1).to_le_bytes());
            let head = Head::new(n, 1, n * 3600, Some(key), 0, b"").unwrap();
            keys.add(&head);
            keys.outlive(&[head], n * 3600).unwrap();
        }
        assert!(fs::metadata(folder.path().join("keys.log")).unwrap().len() < 200_000);
        assert!(keys.taken.len() <= 2);
    }

    #[test]
    fn a_damaged_entry_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(folder.path(), HOUR, 0).unwrap();
        let frames = [head(1, 0, 10), head(2, 2, 10)];
        frames.iter().for_each(|head| keys.add(head));
        keys.outlive(&frames, 10).unwrap();
        let log = folder.path().join("keys.log");
        let mut bytes = fs::read(&log).unwrap();
        bytes[20] ^= 1;
        bytes.extend([1, 2, 3]);
        fs::write(&log, bytes).unwrap();
        let keys = Keys::open(folder.path(), HOUR, 10).unwrap();
        assert_eq!((keys.get(&[1; 16]), keys.get(&[2; 16]).map(|taken| taken.first)), (None, Some(2)));
    }
}
