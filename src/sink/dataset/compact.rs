//! Compaction: the merge of small Parquet files of a dataset into larger ones, while a run may
//! continue to write.
//!
//! Consecutive files with the same writer and columns are copied into one file with the name of the
//! last of them. The number of the next file and the meaning of the coverage snapshot thus stay
//! unchanged. The footer of the new file covers the source rows of all copied files.

use std::path::Path;

use crate::error::StageError;
use crate::sink::dataset::dataset_file::{DatasetFile, MergeKey, RewriteCandidate};
use crate::sink::dataset::rewrite::{DatasetRewrite, UnreadableFile};

/// The result of a compaction, or the expected result of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactionSummary {
    /// The data files before the compaction.
    pub before: DatasetSize,
    /// The data files after the compaction.
    pub after: DatasetSize,
    /// Number of records in the copied files.
    pub records: u64,
    /// Files that were skipped because they cannot be read, each with the reason.
    pub damaged: Vec<String>,
}

/// The number and the size of data files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatasetSize {
    /// Number of files.
    pub files: u64,
    /// Size of all files in bytes.
    pub bytes: u64,
}

impl DatasetSize {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// The intended size of files after a compaction.
#[derive(Debug, Clone, Copy)]
pub struct CompactionTarget {
    /// The approximate size of a file in bytes. Files with at least half of this size, or half of
    /// the records, are not copied.
    pub bytes: u64,
    /// The maximum number of records of a file; `None`: unlimited.
    pub records: Option<u64>,
}

impl CompactionTarget {
    /// Whether a file has at least half of the size or half of the records of the target.
    fn is_reached(self, bytes: u64, records: u64) -> bool {
        bytes >= self.bytes / 2
            || self
                .records
                .is_some_and(|max_records| records >= max_records / 2)
    }
}

/// Compacts the dataset in `folder`: merges small files into files of the size of `target`. Calls
/// `on_progress` after each file with the bytes of the files that are merged or left as they are,
/// and the bytes of all files. With `dry` no file is changed.
///
/// # Errors
/// If another compaction is running on the folder, if a file cannot be read or written, or if the
/// content of a file does not match its footer. Files that were already replaced stay replaced.
pub fn compact(
    folder: &Path,
    target: CompactionTarget,
    dry: bool,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<CompactionSummary, StageError> {
    let work = Compaction {
        rewrite: DatasetRewrite::begin(folder)?,
        target,
        dry,
    };
    let (mut compacted, mut group) = (CompactionSummary::default(), None::<MergeGroup>);
    let files = work.rewrite.files()?;
    let total = files.iter().map(|file| file.entry.size).sum();
    for file in files {
        compacted.before.add(file.entry.size);
        let size = file.entry.size;
        match RewriteCandidate::read(file) {
            Ok(Some(found)) => match group.as_mut().filter(|group| group.accepts(&found, target)) {
                Some(group) => group.add(found),
                None => {
                    let full = group.replace(MergeGroup {
                        kind: found.kind,
                        files: vec![found.file],
                    });
                    full.map_or(Ok(()), |full| work.merge(full, &mut compacted))?;
                }
            },
            // A file of another program is not changed.
            Ok(None) => compacted.after.add(size),
            Err(error) => {
                compacted.damaged.push(error.to_string());
                compacted.after.add(size);
            }
        }
        let pending = group.as_ref().map_or(0, MergeGroup::bytes);
        on_progress(compacted.before.bytes - pending, total);
    }
    group.map_or(Ok(()), |last| work.merge(last, &mut compacted))?;
    work.rewrite.end()?;
    Ok(compacted)
}

/// Consecutive files that can be merged.
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

    /// Whether a file can be merged with the files of the group.
    fn accepts(&self, next: &RewriteCandidate, target: CompactionTarget) -> bool {
        let is_small = |file: &DatasetFile| !target.is_reached(file.file.entry.size, file.rows);
        self.files.first().is_some_and(is_small)
            && is_small(&next.file)
            && self.bytes() + next.file.file.entry.size <= target.bytes
            && target
                .records
                .is_none_or(|max_records| self.records() + next.file.rows <= max_records)
            && self.kind.identity.can_merge_with(&next.kind.identity)
            && self.kind.schema == next.kind.schema
    }

    fn add(&mut self, next: RewriteCandidate) {
        self.kind.identity.absorb(&next.kind.identity);
        self.files.push(next.file);
    }

    /// The index of a file that is larger than all others together, if there is one. Merging it
    /// would copy it again for each small file that follows it.
    fn too_large(&self, target: CompactionTarget) -> Option<usize> {
        let bytes = self.bytes();
        let (index, largest) = self
            .files
            .iter()
            .enumerate()
            .max_by_key(|(_, small)| small.file.entry.size)?;
        (largest.file.entry.size > bytes / 2 && !target.is_reached(bytes, self.records()))
            .then_some(index)
    }
}

/// A running compaction of a folder.
struct Compaction<'a> {
    rewrite: DatasetRewrite<'a>,
    target: CompactionTarget,
    dry: bool,
}

impl Compaction<'_> {
    /// Merges a group into one file. If a file cannot be read, or is larger than all others
    /// together, the files before and after it are merged separately and it is skipped.
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
        if let Some(index) = group.too_large(self.target) {
            return self.merge_around(group, index, compacted);
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
            Err(UnreadableFile { index, reason }) => {
                compacted.damaged.push(reason);
                self.merge_around(group, index, compacted)
            }
        }
    }

    /// Skips the file at `index`, and merges the files before and after it.
    fn merge_around(
        &self,
        mut group: MergeGroup,
        index: usize,
        compacted: &mut CompactionSummary,
    ) -> Result<(), StageError> {
        let after = group.files.split_off(index + 1);
        group
            .files
            .pop()
            .into_iter()
            .for_each(|alone| compacted.after.add(alone.file.entry.size));
        let kind = group.kind.clone();
        self.merge(group, compacted)?;
        self.merge(MergeGroup { kind, files: after }, compacted)
    }
}
