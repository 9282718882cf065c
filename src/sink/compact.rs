//! Compaction: many small Parquet files of a dataset become few large ones, beside a run that goes
//! on writing there.
//!
//! Files that follow each other and have the same writer and columns are copied into one, which
//! takes the name of the last of them: so the number of the next file, and what the snapshot
//! accounts for, stay as they are. Its footer stands for the source rows of them all.

use std::path::Path;

use crate::error::StageError;
use crate::sink::rewrite::{
    DatasetFile, DatasetRewrite, MergeKey, RewriteCandidate, UnreadableFile,
};

/// What a compaction came to, or would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactionSummary {
    /// Data files that were there, and their bytes.
    pub before: DatasetSize,
    /// Data files that are there now.
    pub after: DatasetSize,
    /// Records in the files that were copied.
    pub records: u64,
    /// Files that were left alone since they cannot be read, each with the reason.
    pub damaged: Vec<String>,
}

/// Files, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatasetSize {
    /// How many.
    pub files: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl DatasetSize {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// How large files are to become.
#[derive(Debug, Clone, Copy)]
pub struct CompactionTarget {
    /// The size of a file in bytes, about. Files with half of that, or half of the records, are
    /// left as they are.
    pub bytes: u64,
    /// The maximum number of records of a file; `None`: unlimited.
    pub records: Option<u64>,
}

impl CompactionTarget {
    /// Whether a file is large enough: half of what it may be at most.
    fn is_reached(self, bytes: u64, records: u64) -> bool {
        bytes >= self.bytes / 2 || self.records.is_some_and(|most| records >= most / 2)
    }
}

/// Compacts the dataset in `folder`: small files are put together to files of the size of `target`.
/// `told` is called after each file that was looked at. With `dry` nothing is changed.
///
/// # Errors
/// When another compaction is at work there, the system refuses, or a file is not what its footer
/// says; what was exchanged before stays.
pub fn compact(
    folder: &Path,
    target: CompactionTarget,
    dry: bool,
    told: &mut dyn FnMut(&CompactionSummary),
) -> Result<CompactionSummary, StageError> {
    let work = Compaction {
        rewrite: DatasetRewrite::begin(folder)?,
        target,
        dry,
    };
    let (mut compacted, mut group) = (CompactionSummary::default(), None::<MergeGroup>);
    for file in work.rewrite.files()? {
        compacted.before.add(file.entry.size);
        let size = file.entry.size;
        match RewriteCandidate::of(file) {
            Ok(Some(found)) => {
                match group.as_mut().filter(|group| group.takes(&found, target)) {
                    Some(group) => group.add(found),
                    None => {
                        let full = group.replace(MergeGroup {
                            kind: found.kind,
                            files: vec![found.file],
                        });
                        full.map_or(Ok(()), |full| work.merge(full, &mut compacted))?;
                    }
                }
                told(&compacted);
            }
            // Somebody else's: it is none of ours to touch.
            Ok(None) => compacted.after.add(size),
            Err(error) => {
                compacted.damaged.push(error.to_string());
                compacted.after.add(size);
            }
        }
    }
    group.map_or(Ok(()), |last| work.merge(last, &mut compacted))?;
    work.rewrite.end()?;
    Ok(compacted)
}

/// Files that follow each other and can become one.
struct MergeGroup {
    kind: MergeKey,
    files: Vec<DatasetFile>,
}

impl MergeGroup {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|small| small.file.entry.size).sum()
    }

    fn records(&self) -> u64 {
        self.files.iter().map(|small| small.rows).sum()
    }

    /// Whether a file can join those that are there.
    fn takes(&self, next: &RewriteCandidate, target: CompactionTarget) -> bool {
        let is_small = |file: &DatasetFile| !target.is_reached(file.file.entry.size, file.rows);
        self.files.first().is_some_and(is_small)
            && is_small(&next.file)
            && self.bytes() + next.file.file.entry.size <= target.bytes
            && target
                .records
                .is_none_or(|most| self.records() + next.file.rows <= most)
            && self.kind.identity.is_one_with(&next.kind.identity)
            && self.kind.schema == next.kind.schema
    }

    fn add(&mut self, next: RewriteCandidate) {
        self.kind.identity.absorb(&next.kind.identity);
        self.files.push(next.file);
    }

    /// The place of a file that is larger than all others together, where one is: it would be
    /// copied again and again for each small one that comes behind it.
    fn too_large(&self, target: CompactionTarget) -> Option<usize> {
        let bytes = self.bytes();
        let (place, largest) = self
            .files
            .iter()
            .enumerate()
            .max_by_key(|(_, small)| small.file.entry.size)?;
        (largest.file.entry.size > bytes / 2 && !target.is_reached(bytes, self.records()))
            .then_some(place)
    }
}

/// A compaction at work in a folder.
struct Compaction<'a> {
    rewrite: DatasetRewrite<'a>,
    target: CompactionTarget,
    dry: bool,
}

impl Compaction<'_> {
    /// Makes one file of a group. A file that cannot be read, or that is larger than all others
    /// together, is left alone, and those before and behind it are put together each on their own.
    fn merge(
        &self,
        group: MergeGroup,
        compacted: &mut CompactionSummary,
    ) -> Result<(), StageError> {
        if group.files.len() < 2 {
            group
                .files
                .iter()
                .for_each(|small| compacted.after.add(small.file.entry.size));
            return Ok(());
        }
        if let Some(place) = group.too_large(self.target) {
            return self.merge_around(group, place, compacted);
        }
        let copied = match self.dry {
            true => Ok(group.bytes()),
            false => self.rewrite.replace(&group.kind, &group.files, Ok)?,
        };
        match copied {
            Ok(bytes) => {
                compacted.after.add(bytes);
                compacted.records += group.files.iter().map(|small| small.rows).sum::<u64>();
                Ok(())
            }
            Err(UnreadableFile { place, reason }) => {
                compacted.damaged.push(reason);
                self.merge_around(group, place, compacted)
            }
        }
    }

    /// Leaves the file at `place` alone.
    fn merge_around(
        &self,
        mut group: MergeGroup,
        place: usize,
        compacted: &mut CompactionSummary,
    ) -> Result<(), StageError> {
        let behind = group.files.split_off(place + 1);
        group
            .files
            .pop()
            .into_iter()
            .for_each(|alone| compacted.after.add(alone.file.entry.size));
        let kind = group.kind.clone();
        self.merge(group, compacted)?;
        self.merge(
            MergeGroup {
                kind,
                files: behind,
            },
            compacted,
        )
    }
}
