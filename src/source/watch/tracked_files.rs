//! The files that were taken from a watched folder, there or away for a while, and the journal's
//! segments that they need.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{BatchAck, Split};
use crate::coverage::ResumeState;
use crate::source::arrival_log::ArrivalSegment;
use crate::source::digest_log::DigestEntry;
use crate::source::file_identity::{self, FileMatch};
use crate::source::listed_file::ListedFile;
use crate::source::listing::Listing;
use crate::source::listing_journal::{JournaledListing, RowState};

/// Seconds for which a file is remembered that its folder lacks: if it comes back with the same
/// content, it is the same file.
pub(super) const RETENTION: u64 = 7 * 24 * 3600;
/// Files that are remembered so at most; those that have been away longest are forgotten first.
const MAX_AWAY: usize = 1_000_000;

/// What is known of files that were journalled: it grows with those that are there, and with those
/// that went lately.
pub(super) struct TrackedFiles {
    files: BTreeMap<String, TrackedFile>,
    /// By their first row.
    segments: BTreeMap<u64, SegmentUsage>,
    /// Files that are there, as far as is known.
    present: usize,
}

struct TrackedFile {
    file: ListedFile,
    /// The first row of its segment; `None` where it was listed before the folder was watched.
    segment: Option<u64>,
    /// The device of its folder when it was listed last.
    device: Option<u64>,
    /// Since when its folder lacks it, in seconds since 1970.
    away: Option<u64>,
}

/// What keeps a segment: rows that are not done, and files that are remembered.
struct SegmentUsage {
    segment: ArrivalSegment,
    rows: u64,
    pending: u64,
    files: u64,
}

/// Since when files are away, by their latest notes.
pub(super) fn away(notes: &[DigestEntry]) -> BTreeMap<&str, u64> {
    let mut away = BTreeMap::new();
    for note in notes {
        if let Some(since) = note.away {
            away.insert(&*note.path, since);
        } else {
            away.remove(&*note.path);
        }
    }
    away
}

impl TrackedFiles {
    /// What the journals say. Files that their folders lack are away since the time that is noted,
    /// or since `now`.
    pub(super) fn of(
        journals: &[JournaledListing],
        resume: &ResumeState,
        away: &BTreeMap<&str, u64>,
        now: u64,
    ) -> Self {
        let mut known = Self {
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
                known.segments.insert(
                    *first,
                    SegmentUsage {
                        segment: segment.clone(),
                        rows: all,
                        pending,
                        files: 0,
                    },
                );
            }
            let first = segment.as_ref().map(|segment| segment.first);
            for row in rows.iter().filter(|row| row.standing != RowState::Rejected) {
                // Of several versions, the one that is there counts, or else the last.
                if row.standing == RowState::Present {
                    matched.insert(&*row.file.name);
                } else if matched.contains(&*row.file.name) {
                    continue;
                }
                let away = (row.standing == RowState::Gone)
                    .then(|| away.get(&*row.file.name).copied().unwrap_or(now));
                known.insert(TrackedFile {
                    file: row.file.clone(),
                    segment: first,
                    device: None,
                    away,
                });
            }
        }
        known
    }

    /// Files that are there, as far as is known.
    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// Files that are remembered.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether a file of this name is remembered.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// What must stay noted for the next start: the digests and times that journals lack, and which
    /// files are away.
    pub(super) fn notes(&self) -> impl Iterator<Item = DigestEntry> {
        self.files.values().map(|entry| DigestEntry {
            away: entry.away,
            ..DigestEntry::of(&entry.file)
        })
    }

    fn insert(&mut self, entry: TrackedFile) {
        if let Some(used) = entry
            .segment
            .and_then(|first| self.segments.get_mut(&first))
        {
            used.files += 1;
        }
        self.present += usize::from(entry.away.is_none());
        let before = self.files.insert(entry.file.name.clone(), entry);
        self.release(before);
    }

    fn release(&mut self, entry: Option<TrackedFile>) {
        let Some(entry) = entry else { return };
        self.present -= usize::from(entry.away.is_none());
        if let Some(used) = entry
            .segment
            .and_then(|first| self.segments.get_mut(&first))
        {
            used.files = used.files.saturating_sub(1);
        }
    }

    /// Whether a file that was found was taken before; `None`: its name is new.
    pub(super) fn verdict(&self, found: &ListedFile) -> Option<FileMatch> {
        self.files
            .get(&found.name)
            .map(|entry| file_identity::compare(&entry.file, found))
    }

    /// A file that was taken before is there, below a folder on this device. Returns what is to be
    /// noted of it.
    pub(super) fn met(&mut self, found: &ListedFile, device: Option<u64>) -> Option<DigestEntry> {
        let entry = self.files.get_mut(&found.name)?;
        entry.device = device.or(entry.device);
        if entry.away.is_none() && entry.file.mtime_ns == found.mtime_ns {
            return None;
        }
        self.present += usize::from(entry.away.take().is_some());
        entry.file.mtime_ns = found.mtime_ns;
        Some(DigestEntry::of(&entry.file))
    }

    /// Files that were just journalled in `segment`.
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
                away: None,
            });
        }
    }

    /// Rows are durable. `open` is the segment that is written to.
    pub(super) fn done(&mut self, split: &Split, ack: &BatchAck, open: &ArrivalSegment) {
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

    /// A file, or a folder with all below it, was removed or moved away. Returns what is to be
    /// noted.
    pub(super) fn lose_below(&mut self, name: &str, now: u64) -> Vec<DigestEntry> {
        let below = format!("{name}/");
        let lost = self
            .files
            .range(below.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&below));
        let lost: Vec<String> = lost
            .chain(self.files.get_key_value(name).map(|(name, _)| name))
            .cloned()
            .collect();
        self.lose(&lost, now)
    }

    /// Files are away that a whole listing lacks, unless they lie below folders that were not read,
    /// or that are on another device than they were. Returns what is to be noted.
    pub(super) fn lose_unlisted(&mut self, listing: &Listing, now: u64) -> Vec<DigestEntry> {
        let is_lost = |(name, entry): &(&String, &TrackedFile)| {
            !listing.files.contains_key(*name)
                && listing.has_seen(name)
                && entry
                    .device
                    .is_none_or(|device| listing.device_of(name).is_none_or(|now| now == device))
        };
        let lost: Vec<String> = self
            .files
            .iter()
            .filter(is_lost)
            .map(|(name, _)| name.clone())
            .collect();
        self.lose(&lost, now)
    }

    fn lose(&mut self, names: &[String], now: u64) -> Vec<DigestEntry> {
        let mut notes = Vec::new();
        for name in names {
            let Some(entry) = self
                .files
                .get_mut(name)
                .filter(|entry| entry.away.is_none())
            else {
                continue;
            };
            entry.away = Some(now);
            self.present -= 1;
            notes.push(DigestEntry {
                away: entry.away,
                ..DigestEntry::of(&entry.file)
            });
        }
        notes
    }

    /// Forgets files that have been away for too long, and segments that are of no more use.
    pub(super) fn expire(&mut self, now: u64, open: &ArrivalSegment) {
        let mut away: Vec<(u64, &String)> = self
            .files
            .iter()
            .filter_map(|(name, entry)| Some((entry.away?, name)))
            .collect();
        away.sort_unstable();
        let too_many = away.len().saturating_sub(MAX_AWAY);
        let expired = |(at, (since, _)): &(usize, (u64, &String))| {
            *at < too_many || now.saturating_sub(*since) >= RETENTION
        };
        let expired: Vec<String> = away
            .into_iter()
            .enumerate()
            .filter(expired)
            .map(|(_, (_, name))| name.clone())
            .collect();
        for name in expired {
            let entry = self.files.remove(&name);
            self.release(entry);
        }
        self.remove_unused_segments(open);
    }

    /// A file was rejected because it is gone: if the same one comes back, it is new.
    pub(super) fn forget(&mut self, name: &str) {
        let entry = self.files.remove(name);
        self.release(entry);
    }

    /// Removes segments whose rows are all done and whose files are all forgotten.
    fn remove_unused_segments(&mut self, open: &ArrivalSegment) {
        let useless = |first: &u64, used: &SegmentUsage| {
            used.pending == 0 && used.files == 0 && *first != open.first
        };
        let firsts: Vec<u64> = self
            .segments
            .iter()
            .filter(|(first, used)| useless(first, used))
            .map(|(f, _)| *f)
            .collect();
        for first in firsts {
            if let Some(used) = self.segments.remove(&first)
                && let Err(error) = used.segment.remove()
            {
                tracing::warn!(
                    "a segment of the journal that is not needed any more stays: {error}"
                );
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
        serde_json::from_value(
            serde_json::json!({"path": name, "size": content.len(), "mtime_ns": time, "digest": digest}),
        )
        .unwrap()
    }

    fn known() -> TrackedFiles {
        TrackedFiles::of(&[], &ResumeState::default(), &BTreeMap::new(), 0)
    }

    #[test]
    fn file_that_returns_is_known_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let mut appender = SegmentWriter::open("in", folder.path(), 0).unwrap();
        let (a, b) = (file("sub/a", 1, "a"), file("sub/b", 1, "b"));
        appender.append(&[a.clone(), b.clone()]).unwrap();
        let old = appender.segment.clone();
        let mut known = known();
        known.add(&[a.clone(), b], &old);
        known.segments.get_mut(&old.first).unwrap().pending = 0;
        let mut open = old.clone();
        open.first = 9;
        let noted: Vec<DigestEntry> = known.lose_below("sub", 100);
        assert_eq!(
            (noted.len(), noted[0].away, known.present()),
            (2, Some(100), 0)
        );
        let back = file("sub/a", 2, "a");
        assert_eq!(known.verdict(&back), Some(FileMatch::Same));
        assert_eq!(known.met(&back, None), Some(DigestEntry::of(&back)));
        assert_eq!((known.met(&back, None), known.present()), (None, 1));
        known.expire(100 + RETENTION, &open);
        assert_eq!(
            known.verdict(&file("sub/b", 1, "b")),
            None,
            "it was away for too long"
        );
        assert_eq!(
            segments("in", &state).unwrap().len(),
            1,
            "a file of the segment is there"
        );
        known.lose_below("sub/a", 200);
        known.expire(200 + RETENTION, &open);
        assert_eq!(segments("in", &state).unwrap().len(), 0);
    }

    #[test]
    fn file_below_folder_that_was_not_read_is_kept() {
        let mut known = known();
        let folder = tempfile::tempdir().unwrap();
        let appender = SegmentWriter::open("in", folder.path(), 0).unwrap();
        let names = ["gone", "locked/a", "other/a"];
        known.add(&names.map(|name| file(name, 1, name)), &appender.segment);
        known.met(&file("other/a", 1, "other/a"), Some(7));
        let mut listing = Listing::unread(Location::from(folder.path()));
        listing.unread = BTreeMap::from([("locked".to_owned(), None)]);
        let id = crate::storage::mounts::FolderId {
            device: 8,
            inode: 1,
        };
        listing.folders = ["", "other"].map(|name| (name.to_owned(), id)).into();
        let lost = known.lose_unlisted(&listing, 1);
        assert_eq!(
            lost.iter().map(|note| &*note.path).collect::<Vec<_>>(),
            ["gone"]
        );
        assert_eq!(known.present(), 2);
    }

    #[test]
    fn last_note_decides_whether_file_is_away() {
        let note = |path: &str, away| DigestEntry {
            away,
            ..DigestEntry::of(&file(path, 1, "x"))
        };
        let notes = [
            note("a", Some(1)),
            note("b", Some(2)),
            note("a", None),
            note("c", None),
            note("c", Some(3)),
        ];
        assert_eq!(away(&notes), BTreeMap::from([("b", 2), ("c", 3)]));
    }
}
