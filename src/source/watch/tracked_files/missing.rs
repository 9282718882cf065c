//! Files that are missing, and the segments that are not used any more.

use std::collections::BTreeMap;

use crate::source::discovery::arrival_log::ArrivalSegment;
use crate::source::discovery::digest_log::DigestEntry;
use crate::source::discovery::listing::Listing;
use crate::source::watch::tracked_files::{SegmentUsage, TrackedFile, TrackedFiles};

/// Seconds for which a missing file is tracked. If it reappears with the same content in this time,
/// it is the same file.
pub(in crate::source::watch) const RETENTION: u64 = 7 * 24 * 3600;

/// Maximum number of missing files that are tracked. Those that have been missing longest are
/// removed first.
const MAX_MISSING: usize = 1_000_000;

/// The missing files, each with the time since which it is missing, according to its latest entry.
pub(in crate::source::watch) fn missing_since(entries: &[DigestEntry]) -> BTreeMap<&str, u64> {
    let mut missing = BTreeMap::new();
    for entry in entries {
        if let Some(since) = entry.away {
            missing.insert(&*entry.path, since);
        } else {
            missing.remove(&*entry.path);
        }
    }
    missing
}

impl TrackedFiles {
    /// Marks a file, or a folder with all files below it, as missing after it was removed or moved
    /// away. Returns the entries to append to the digest log.
    pub(in crate::source::watch) fn mark_below_missing(
        &mut self,
        path: &str,
        now: u64,
    ) -> Vec<DigestEntry> {
        let below = format!("{path}/");
        let missing = self
            .files
            .range(below.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&below));
        let missing: Vec<String> = missing
            .chain(self.files.get_key_value(path).map(|(name, _)| name))
            .cloned()
            .collect();
        self.mark_missing(&missing, now)
    }

    /// Marks the files that a full listing lacks as missing, except those below folders that were
    /// not read or are on another device than before. Returns the entries to append to the digest
    /// log.
    pub(in crate::source::watch) fn mark_unlisted_missing(
        &mut self,
        listing: &Listing,
        now: u64,
    ) -> Vec<DigestEntry> {
        let is_missing = |(name, entry): &(&String, &TrackedFile)| {
            !listing.files.contains_key(*name)
                && listing.has_seen(name)
                && entry.device.is_none_or(|device| {
                    listing
                        .device_of(name)
                        .is_none_or(|current| current == device)
                })
        };
        let missing: Vec<String> = self
            .files
            .iter()
            .filter(is_missing)
            .map(|(name, _)| name.clone())
            .collect();
        self.mark_missing(&missing, now)
    }

    fn mark_missing(&mut self, names: &[String], now: u64) -> Vec<DigestEntry> {
        let mut entries = Vec::new();
        for name in names {
            let Some(entry) = self
                .files
                .get_mut(name)
                .filter(|entry| entry.missing_since.is_none())
            else {
                continue;
            };
            entry.missing_since = Some(now);
            self.present -= 1;
            entries.push(DigestEntry {
                away: entry.missing_since,
                ..DigestEntry::from_file(&entry.file)
            });
        }
        entries
    }

    /// Removes files that have been missing for too long, and unused segments.
    pub(in crate::source::watch) fn expire(&mut self, now: u64, open: &ArrivalSegment) {
        let mut missing: Vec<(u64, &String)> = self
            .files
            .iter()
            .filter_map(|(name, entry)| Some((entry.missing_since?, name)))
            .collect();
        missing.sort_unstable();
        let excess = missing.len().saturating_sub(MAX_MISSING);
        let is_expired = |(index, (since, _)): &(usize, (u64, &String))| {
            *index < excess || now.saturating_sub(*since) >= RETENTION
        };
        let expired: Vec<String> = missing
            .into_iter()
            .enumerate()
            .filter(is_expired)
            .map(|(_, (_, name))| name.clone())
            .collect();
        for name in expired {
            let entry = self.files.remove(&name);
            self.release(entry);
        }
        self.remove_unused_segments(open);
    }

    /// Removes a file that was rejected because it does not exist. If the same file reappears, it
    /// is new.
    pub(in crate::source::watch) fn remove(&mut self, name: &str) {
        let entry = self.files.remove(name);
        self.release(entry);
    }

    /// Removes segments whose rows are all committed and whose files are not tracked any more.
    pub(super) fn remove_unused_segments(&mut self, open: &ArrivalSegment) {
        let is_unused = |first: &u64, used: &SegmentUsage| {
            used.pending == 0 && used.files == 0 && *first != open.first
        };
        let firsts: Vec<u64> = self
            .segments
            .iter()
            .filter(|(first, used)| is_unused(first, used))
            .map(|(first, _)| *first)
            .collect();
        for first in firsts {
            if let Some(used) = self.segments.remove(&first)
                && let Err(error) = used.segment.remove()
            {
                tracing::warn!(%error, "cannot remove an unused segment of the arrival log");
            }
        }
    }
}
