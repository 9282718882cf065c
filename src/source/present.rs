//! The files of a watched folder that are there and journalled, and the journal's segments that are still of use.

use std::collections::BTreeMap;

use crate::batch::{Fate, Split};
use crate::coverage::Progress;
use crate::source::journal::Journal;
use crate::source::listing::ListedFile;
use crate::source::watched::Segment;

/// What is known of files that were journalled: it grows with those that are there, not with those that ever were.
pub(super) struct Present {
    files: BTreeMap<String, Known>,
    /// By their first row.
    segments: BTreeMap<u64, Use>,
}

struct Known {
    file: ListedFile,
    /// The first row of its segment; `None` where it was listed before the folder was watched.
    segment: Option<u64>,
}

/// What keeps a segment: rows that are not done, and files that are there.
struct Use {
    segment: Segment,
    rows: u64,
    pending: u64,
    present: u64,
}

impl Present {
    /// What the journals say of files that are there; segments of which nothing is left are removed.
    pub(super) fn of(journals: &[Journal], progress: &Progress) -> Self {
        let mut present = Self { files: BTreeMap::new(), segments: BTreeMap::new() };
        for Journal { split, first, rows, segment } in journals {
            let all = rows.len() as u64;
            let done = |&row: &u64| progress.done(split.name(), &(row..row + 1));
            if let Some(segment) = segment {
                let pending = all - (*first..*first + all).filter(done).count() as u64;
                let used = Use { segment: segment.clone(), rows: all, pending, present: 0 };
                present.segments.insert(*first, used);
            }
            let first = segment.as_ref().map(|segment| segment.first);
            rows.iter().filter(|row| !row.gone).for_each(|row| present.insert(row.file.clone(), first));
        }
        present
    }

    fn insert(&mut self, file: ListedFile, segment: Option<u64>) {
        let known = Known { file, segment };
        let before = self.files.insert(known.file.name.clone(), known);
        if let Some(used) = segment.and_then(|first| self.segments.get_mut(&first)) {
            used.present += 1;
        }
        self.let_go(before);
    }

    fn let_go(&mut self, known: Option<Known>) {
        let first = known.and_then(|known| known.segment);
        if let Some(used) = first.and_then(|first| self.segments.get_mut(&first)) {
            used.present = used.present.saturating_sub(1);
        }
    }

    /// Whether this very file is journalled.
    pub(super) fn has(&self, file: &ListedFile) -> bool {
        self.files.get(&file.name).is_some_and(|known| known.file.is_same(file))
    }

    /// Files that were just journalled in `segment`.
    pub(super) fn add(&mut self, files: &[ListedFile], segment: &Segment) {
        let used = self.segments.entry(segment.first).or_insert_with(|| Use {
            segment: segment.clone(),
            rows: 0,
            pending: 0,
            present: 0,
        });
        used.rows += files.len() as u64;
        used.pending += files.len() as u64;
        files.iter().for_each(|file| self.insert(file.clone(), Some(segment.first)));
    }

    /// Rows are durable. `open` is the segment that is written to.
    pub(super) fn done(&mut self, split: &Split, fate: &Fate, open: &Segment) {
        for range in fate.provenance.ranges().iter().filter(|range| *range.split == *split) {
            let mut rows = range.rows.clone();
            while rows.start < rows.end {
                let Some((&first, used)) = self.segments.range_mut(..=rows.start).next_back() else { break };
                let end = rows.end.min(first + used.rows).max(rows.start + 1);
                used.pending = used.pending.saturating_sub(end - rows.start);
                rows.start = end;
            }
        }
        self.sweep(open);
    }

    /// A file, or all below a folder, is gone.
    pub(super) fn forget_below(&mut self, name: &str, open: &Segment) {
        let known = self.files.remove(name);
        self.let_go(known);
        let below = format!("{name}/");
        let gone: Vec<String> = self
            .files
            .range(below.clone()..)
            .map(|(name, _)| name)
            .take_while(|n| n.starts_with(&below))
            .cloned()
            .collect();
        self.forget(gone, open);
    }

    /// All that is not among these is gone.
    pub(super) fn keep_only(&mut self, files: &BTreeMap<String, ListedFile>, open: &Segment) {
        let gone: Vec<String> = self.files.keys().filter(|name| !files.contains_key(*name)).cloned().collect();
        self.forget(gone, open);
    }

    fn forget(&mut self, names: Vec<String>, open: &Segment) {
        for name in names {
            let known = self.files.remove(&name);
            self.let_go(known);
        }
        self.sweep(open);
    }

    /// Removes segments whose rows are all done and whose files are all gone.
    fn sweep(&mut self, open: &Segment) {
        let useless = |first: &u64, used: &Use| used.pending == 0 && used.present == 0 && *first != open.first;
        let firsts: Vec<u64> =
            self.segments.iter().filter(|(first, used)| useless(first, used)).map(|(f, _)| *f).collect();
        for first in firsts {
            if let Some(used) = self.segments.remove(&first)
                && let Err(error) = used.segment.remove()
            {
                tracing::warn!("a journal of no more use stays: {error}");
            }
        }
    }
}
