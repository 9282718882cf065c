//! The keys of recently acknowledged requests, by which repeated requests are accepted only once.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StageError;
use crate::fs_durable::{private_options, read_if_exists, write_atomically};
use crate::source::http::wal::record::{KeyDigest, RecordHeader, RequestFingerprint};

/// Maximum number of keys; beyond it, the oldest are deleted before the window ends.
const MAX_KEYS: usize = 1_000_000;
/// Memory of that many keys in bytes.
pub(crate) const KEYS_BYTES: u64 = 144 << 20;
/// Size of an entry of the log in bytes.
const ENTRY: usize = 57;
/// Size of an entry of the log in earlier versions, in bytes.
const EARLIER_ENTRY: usize = 44;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredOutcome {
    /// The row of its first record.
    pub(crate) first: u64,
    /// Number of records.
    pub(crate) rows: u32,
    /// Time of the request, in seconds since 1970.
    time: u64,
    /// The fingerprint of the request.
    pub(crate) request: RequestFingerprint,
}

/// Keys and the outcomes of their requests.
pub(crate) struct IdempotencyKeys {
    window: Duration,
    taken: HashMap<KeyDigest, StoredOutcome>,
    /// The keys, oldest first.
    order: VecDeque<KeyDigest>,
}

/// The file of keys whose frames were removed.
pub(crate) struct IdempotencyKeyLog {
    path: PathBuf,
    logged: usize,
}

/// Entries to be written to the log.
pub(crate) enum KeyLogEntries {
    /// Entries to append.
    More(Vec<u8>),
    /// Entries that replace the log.
    All(Vec<u8>),
}

impl IdempotencyKeys {
    /// Reads the log in `folder`, and removes keys that are older than `window` as of `now`.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or replaced.
    pub(crate) fn open(
        folder: &Path,
        window: Duration,
        now: u64,
    ) -> Result<(Self, IdempotencyKeyLog), StageError> {
        let (path, earlier) = (folder.join("keys-2.log"), folder.join("keys.log"));
        let mut keys = Self {
            window,
            taken: HashMap::new(),
            order: VecDeque::new(),
        };
        // An entry that a crash has truncated belongs to a frame that still exists.
        let earlier_entries = read_if_exists(&earlier)?.unwrap_or_default();
        earlier_entries
            .chunks_exact(EARLIER_ENTRY)
            .filter_map(parse_earlier)
            .for_each(|(key, taken)| keys.insert(key, taken));
        read_if_exists(&path)?
            .unwrap_or_default()
            .chunks_exact(ENTRY)
            .filter_map(parse)
            .for_each(|(key, taken)| keys.insert(key, taken));
        keys.remove_expired(now);
        let mut log = IdempotencyKeyLog { path, logged: 0 };
        log.write(&KeyLogEntries::All(keys.entries()))?;
        if !earlier_entries.is_empty() {
            fs::remove_file(&earlier).map_err(StageError::io(&earlier))?;
        }
        Ok((keys, log))
    }

    fn insert(&mut self, key: KeyDigest, taken: StoredOutcome) {
        if self.taken.insert(key, taken).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.taken.remove(&oldest);
        }
    }

    /// Adds the key of a frame in the journal.
    pub(crate) fn add(&mut self, head: &RecordHeader) {
        if let Some(key) = head.key {
            self.insert(
                key,
                StoredOutcome {
                    first: head.first,
                    rows: head.rows,
                    time: head.time,
                    request: head.request,
                },
            );
        }
    }

    /// The outcome of the request with this key.
    pub(crate) fn get(&self, key: &KeyDigest) -> Option<StoredOutcome> {
        self.taken.get(key).copied()
    }

    fn remove_expired(&mut self, now: u64) {
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

    /// The entries to write to `log` before the frames of these keys are removed.
    pub(crate) fn persist_before_truncate(
        &mut self,
        keys: &[KeyDigest],
        log: &IdempotencyKeyLog,
        now: u64,
    ) -> KeyLogEntries {
        self.remove_expired(now);
        if log.logged + keys.len() > 2 * self.taken.len() + 1024 {
            return KeyLogEntries::All(self.entries());
        }
        let entries = keys
            .iter()
            .filter_map(|key| Some(bytes(key, self.taken.get(key)?)));
        KeyLogEntries::More(entries.flatten().collect())
    }

    fn entries(&self) -> Vec<u8> {
        self.order
            .iter()
            .filter_map(|key| Some(bytes(key, self.taken.get(key)?)))
            .flatten()
            .collect()
    }
}

impl IdempotencyKeyLog {
    /// Writes entries durably.
    ///
    /// # Errors
    /// Returns an error if the log cannot be written.
    pub(crate) fn write(&mut self, entries: &KeyLogEntries) -> Result<(), StageError> {
        match entries {
            KeyLogEntries::All(all) => {
                write_atomically(&self.path, all)?;
                self.logged = all.len() / ENTRY;
                Ok(())
            }
            KeyLogEntries::More(more) if more.is_empty() => Ok(()),
            KeyLogEntries::More(more) => {
                let file = private_options().create(true).append(true).open(&self.path);
                let appended = file.and_then(|mut file: File| {
                    file.write_all(more).and_then(|()| file.sync_data())
                });
                self.logged += more.len() / ENTRY;
                appended.map_err(StageError::io(&self.path))
            }
        }
    }
}

fn bytes(key: &KeyDigest, taken: &StoredOutcome) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[0..16].copy_from_slice(key);
    bytes[16..24].copy_from_slice(&taken.first.to_le_bytes());
    bytes[24..28].copy_from_slice(&taken.rows.to_le_bytes());
    bytes[28..36].copy_from_slice(&taken.time.to_le_bytes());
    match taken.request {
        RequestFingerprint::Sha256(digest) => {
            bytes[36] = 1;
            bytes[37..53].copy_from_slice(&digest);
        }
        RequestFingerprint::Crc32(body) => bytes[37..41].copy_from_slice(&body.to_le_bytes()),
    }
    let checksum = crc32fast::hash(&bytes[..53]);
    bytes[53..57].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// `None` for a damaged entry: at worst, a repeated request is accepted twice.
fn parse(bytes: &[u8]) -> Option<(KeyDigest, StoredOutcome)> {
    let request = match bytes.get(36)? {
        0 => RequestFingerprint::Crc32(four(bytes, 37)?),
        _ => RequestFingerprint::Sha256(bytes.get(37..53)?.try_into().ok()?),
    };
    parsed(bytes, request, 53)
}

fn parse_earlier(bytes: &[u8]) -> Option<(KeyDigest, StoredOutcome)> {
    parsed(bytes, RequestFingerprint::Crc32(four(bytes, 36)?), 40)
}

/// An entry whose checksum is at `end`.
fn parsed(
    bytes: &[u8],
    request: RequestFingerprint,
    end: usize,
) -> Option<(KeyDigest, StoredOutcome)> {
    let eight = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let taken = StoredOutcome {
        first: eight(16)?,
        rows: four(bytes, 24)?,
        time: eight(28)?,
        request,
    };
    let is_valid = four(bytes, end)? == crc32fast::hash(bytes.get(..end)?);
    Some((bytes.get(..16)?.try_into().ok()?, taken)).filter(|_| is_valid)
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
