//! The files that were read from a watched folder, present or recently missing, and the segments
//! of the arrival log that they need.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{BatchAck, Split};
use crate::coverage::ResumeState;
use crate::source::arrival_log::ArrivalSegment;
use crate::source::digest_log::DigestEntry;
use crate::source::file_identity::{self, FileMatch};
use crate::source::listed_file::ListedFile;
use crate::source::listing::Listing;
use crate::source::listing_journal::{JournaledListing, RowState};

/// Seconds for which a missing file is tracked. If it reappears with the same content in this time,
/// it is the same file.
pub(super) const RETENTION: u64 = 7 * 24 * 3600;
/// Maximum number of missing files that are tracked. Those that have been missing longest are
/// removed first.
const MAX_MISSING: usize = 1_000_000;

/// The journaled files of a stage. The memory grows with the number of present and recently missing
/// files.
pub(super) struct TrackedFiles {
    files: BTreeMap<String, TrackedFile>,
    /// The segments by their first row.
    segments: BTreeMap<u64, SegmentUsage>,
    /// Number of files that are assumed to be present.
    present: usize,
}

struct TrackedFile {
    file: ListedFile,
    /// The first row of its segment; `None` if it was listed before the folder was watched.
    segment: Option<u64>,
    /// The device of its folder at the last listing.
    device: Option<u64>,
    /// The time since which its folder lacks it, in seconds since 1970; `None` if it is present.
    missing_since: Option<u64>,
}

/// The uses that keep a segment: uncommitted rows and tracked files.
struct SegmentUsage {
    segment: ArrivalSegment,
    rows: u64,
    pending: u64,
    files: u64,
}

/// The missing files, each with the time since which it is missing, according to its latest entry.
pub(super) fn missing_since(entries: &[DigestEntry]) -> BTreeMap<&str, u64> {
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
    /// The files of the journals. Files that their folders lack are missing since the time in
    /// `missing_since`, or since `now`.
    pub(super) fn from_journals(
        journals: &[JournaledListing],
        resume: &ResumeState,
        missing_since: &BTreeMap<&str, u64>,
        now: u64,
    ) -> Self {
        let mut tracked = Self {
            files: BTreeMap::new(),
            segments: BTreeMap::new(),
            present: 0,
        };
        let mut matched = BTreeSet::new();
        for JournaledListing {
            split,
            first,
            rows,
            segment,
        } in journals
        {
            let all = rows.len() as u64;
            let done = |&row: &u64| resume.is_committed(split.name(), &(row..row + 1));
            if let Some(segment) = segment {
                let pending = all - (*first..*first + all).filter(done).count() as u64;
                tracked.segments.insert(
                    *first,
                    SegmentUsage {
                        segment: segment.clone(),
                        rows: all,
                        pending,
                        files: 0,
                    },
                );
            }
            let segment_start = segment.as_ref().map(|segment| segment.first);
            for row in rows.iter().filter(|row| row.state != RowState::Rejected) {
                // Of several versions, the present one is tracked, or else the last one.
                if row.state == RowState::Present {
                    matched.insert(&*row.file.name);
                } else if matched.contains(&*row.file.name) {
                    continue;
                }
                let missing_since = (row.state == RowState::Gone)
                    .then(|| missing_since.get(&*row.file.name).copied().unwrap_or(now));
                tracked.insert(TrackedFile {
                    file: row.file.clone(),
                    segment: segment_start,
                    device: None,
                    missing_since,
                });
            }
        }
        tracked
    }

    /// Number of files that are assumed to be present.
    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// Number of tracked files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether a file of this name is tracked.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The entries of the digest log that the next start needs: digests and times that the journals
    /// lack, and the missing files.
    pub(super) fn digest_entries(&self) -> impl Iterator<Item = DigestEntry> {
        self.files.values().map(|entry| DigestEntry {
            away: entry.missing_since,
            ..DigestEntry::from_file(&entry.file)
        })
    }

    fn insert(&mut self, entry: TrackedFile) {
        if let Some(used) = entry
            .segment
            .and_then(|first| self.segments.get_mut(&first))
        {
            used.files += 1;
        }
        self.present += usize::from(entry.missing_since.is_none());
        let before = self.files.insert(entry.file.name.clone(), entry);
        self.release(before);
    }

    fn release(&mut self, entry: Option<TrackedFile>) {
        let Some(entry) = entry else { return };
        self.present -= usize::from(entry.missing_since.is_none());
        if let Some(used) = entry
            .segment
            .and_then(|first| self.segments.get_mut(&first))
        {
            used.files = used.files.saturating_sub(1);
        }
    }

    /// Compares a found file with the tracked one of its name; `None` if the name is new.
    pub(super) fn compare(&self, found: &ListedFile) -> Option<FileMatch> {
        self.files
            .get(&found.name)
            .map(|entry| file_identity::compare(&entry.file, found))
    }

    /// Marks a tracked file as present in a folder on `device`. Returns the entry to append to the
    /// digest log, if anything has changed.
    pub(super) fn mark_present(
        &mut self,
        found: &ListedFile,
        device: Option<u64>,
    ) -> Option<DigestEntry> {
        let entry = self.files.get_mut(&found.name)?;
        entry.device = device.or(entry.device);
        if entry.missing_since.is_none() && entry.file.mtime_ns == found.mtime_ns {
            return None;
        }
        self.present += usize::from(entry.missing_since.take().is_some());
        entry.file.mtime_ns = found.mtime_ns;
        Some(DigestEntry::from_file(&entry.file))
    }

    /// Adds files that were just journaled in `segment`.
    pub(super) fn add(&mut self, files: &[ListedFile], segment: &ArrivalSegment) {
        let used = self
            .segments
            .entry(segment.first)
            .or_insert_with(|| SegmentUsage {
                segment: segment.clone(),
                rows: 0,
                pending: 0,
                files: 0,
            });
        used.rows += files.len() as u64;
        used.pending += files.len() as u64;
        for file in files {
            self.insert(TrackedFile {
                file: file.clone(),
                segment: Some(segment.first),
                device: None,
                missing_since: None,
            });
        }
    }

    /// Releases committed rows. `open` is the segment that is written to.
    pub(super) fn acknowledge(&mut self, split: &Split, ack: &BatchAck, open: &ArrivalSegment) {
        for range in ack
            .provenance
            .ranges()
            .iter()
            .filter(|range| *range.split == *split)
        {
            let mut rows = range.rows.clone();
            while rows.start < rows.end {
                let Some((&first, used)) = self.segments.range_mut(..=rows.start).next_back()
                else {
                    break;
                };
                let end = rows.end.min(first + used.rows).max(rows.start + 1);
                used.pending = used.pending.saturating_sub(end - rows.start);
                rows.start = end;
            }
        }
        self.remove_unused_segments(open);
    }

    /// Marks a file, or a folder with all files below it, as missing after it was removed or moved
    /// away. Returns the entries to append to the digest log.
    pub(super) fn mark_below_missing(&mut self, path: &str, now: u64) -> Vec<DigestEntry> {
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
    pub(super) fn mark_unlisted_missing(
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
    pub(super) fn expire(&mut self, now: u64, open: &ArrivalSegment) {
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
    pub(super) fn remove(&mut self, name: &str) {
        let entry = self.files.remove(name);
        self.release(entry);
    }

    /// Removes segments whose rows are all committed and whose files are not tracked any more.
    fn remove_unused_segments(&mut self, open: &ArrivalSegment) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::source::arrival_log::{SegmentWriter, segments};
    use crate::source::content_digest::ContentDigest;
    use crate::storage::Location;

    fn file(name: &str, time: i64, content: &str) -> ListedFile {
        let digest = ContentDigest::of(content.as_bytes()).to_string();
        serde_json::from_value(serde_json::json!({
            "path": name,
            "size": content.len(),
            "mtime_ns": time,
            "digest": digest,
        }))
        .unwrap()
    }

    fn empty() -> TrackedFiles {
        TrackedFiles::from_journals(&[], &ResumeState::default(), &BTreeMap::new(), 0)
    }

    #[test]
    fn returning_file_is_recognized_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let mut writer = SegmentWriter::open("in", folder.path(), 0).unwrap();
        let (a, b) = (file("sub/a", 1, "a"), file("sub/b", 1, "b"));
        writer.append(&[a.clone(), b.clone()]).unwrap();
        let old = writer.segment.clone();
        let mut tracked = empty();
        tracked.add(&[a.clone(), b], &old);
        tracked.segments.get_mut(&old.first).unwrap().pending = 0;
        let mut open = old.clone();
        open.first = 9;
        let entries: Vec<DigestEntry> = tracked.mark_below_missing("sub", 100);
        assert_eq!(
            (entries.len(), entries[0].away, tracked.present()),
            (2, Some(100), 0)
        );
        let back = file("sub/a", 2, "a");
        assert_eq!(tracked.compare(&back), Some(FileMatch::Same));
        assert_eq!(
            tracked.mark_present(&back, None),
            Some(DigestEntry::from_file(&back))
        );
        assert_eq!(
            (tracked.mark_present(&back, None), tracked.present()),
            (None, 1)
        );
        tracked.expire(100 + RETENTION, &open);
        assert_eq!(
            tracked.compare(&file("sub/b", 1, "b")),
            None,
            "the file was missing for too long"
        );
        assert_eq!(
            segments("in", &state).unwrap().len(),
            1,
            "a file of the segment is present"
        );
        tracked.mark_below_missing("sub/a", 200);
        tracked.expire(200 + RETENTION, &open);
        assert_eq!(segments("in", &state).unwrap().len(), 0);
    }

    #[test]
    fn file_below_unread_folder_stays_present() {
        let mut tracked = empty();
        let folder = tempfile::tempdir().unwrap();
        let writer = SegmentWriter::open("in", folder.path(), 0).unwrap();
        let names = ["gone", "locked/a", "other/a"];
        tracked.add(&names.map(|name| file(name, 1, name)), &writer.segment);
        tracked.mark_present(&file("other/a", 1, "other/a"), Some(7));
        let mut listing = Listing::unread(Location::from(folder.path()));
        listing.unread = BTreeMap::from([("locked".to_owned(), None)]);
        let id = crate::storage::mounts::FolderId {
            device: 8,
            inode: 1,
        };
        listing.folders = ["", "other"].map(|name| (name.to_owned(), id)).into();
        let missing = tracked.mark_unlisted_missing(&listing, 1);
        assert_eq!(
            missing.iter().map(|entry| &*entry.path).collect::<Vec<_>>(),
            ["gone"]
        );
        assert_eq!(tracked.present(), 2);
    }

    #[test]
    fn last_entry_decides_whether_file_is_missing() {
        let entry = |path: &str, away| DigestEntry {
            away,
            ..DigestEntry::from_file(&file(path, 1, "x"))
        };
        let entries = [
            entry("a", Some(1)),
            entry("b", Some(2)),
            entry("a", None),
            entry("c", None),
            entry("c", Some(3)),
        ];
        assert_eq!(
            missing_since(&entries),
            BTreeMap::from([("b", 2), ("c", 3)])
        );
    }
}
