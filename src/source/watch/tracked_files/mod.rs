//! The files that were read from a watched folder, present or recently missing, and the segments
//! of the arrival log that they need.

pub(crate) mod missing;

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::BatchAck;
use crate::batch::provenance::Split;
use crate::coverage::ResumeState;
use crate::source::discovery::arrival_log::ArrivalSegment;
use crate::source::discovery::digest_log::DigestEntry;
use crate::source::discovery::file_identity::{self, FileMatch};
use crate::source::discovery::listed_file::ListedFile;
use crate::source::discovery::listing_journal::{JournaledListing, RowState};

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
}

#[cfg(test)]
mod tests;
