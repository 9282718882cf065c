//! Groups of near-duplicates: rows that are connected by pairs within a distance.

mod block;
mod groups;
mod pairs;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::ops::Range;

use crate::error::StageError;
use crate::search::duplicates::block::Block;
use crate::search::duplicates::groups::RowGroups;
use crate::search::duplicates::pairs::{PairLimit, join_pairs};
use crate::search::latent_column::invalid;
use crate::search::latent_dataset::LatentDataset;
use crate::search::metric::Metric;
use crate::search::neighbors::RowCounts;

/// Maximum number of values of a block: 256 MiB. Two blocks are in memory at a time.
const BLOCK_VALUES: usize = 1 << 26;

/// The near-duplicates of a dataset.
#[derive(Debug, Default)]
pub(crate) struct Duplicates {
    /// The groups of two or more rows, largest first; of equal sizes, the one with the first row
    /// precedes.
    pub(crate) groups: Vec<Vec<DuplicateRow>>,
    pub(crate) counts: RowCounts,
}

impl Duplicates {
    /// The number of rows of all groups.
    pub(crate) fn rows(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }
}

/// A row of a group of near-duplicates. The rows of a group ascend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DuplicateRow {
    /// The position in the dataset.
    pub(crate) position: u64,
    /// The distance to the nearest other row of the group.
    pub(crate) distance: f64,
}

impl LatentDataset {
    /// Finds the near-duplicates: two rows whose distance is at most `threshold` are in one group, as
    /// are all rows that such pairs connect (single linkage). All pairs are compared, except for
    /// those that the projection on the first principal component excludes. `progress` receives the
    /// number of rows whose pairs are done, and that of all rows; each pass over the dataset counts.
    ///
    /// # Errors
    /// If the rows have latents of several models, or a file cannot be read.
    pub(crate) fn duplicates(
        &self,
        metric: Metric,
        threshold: f64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Duplicates, StageError> {
        self.check_one_model()?;
        let block_rows = (BLOCK_VALUES / self.width.max(1)).max(1) as u64;
        self.duplicates_in_blocks(PairLimit { metric, threshold }, block_rows, progress)
    }

    fn duplicates_in_blocks(
        &self,
        limit: PairLimit,
        block_rows: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Duplicates, StageError> {
        let Ok(rows) = u32::try_from(self.rows) else {
            return Err(invalid(format!(
                "{}: cannot compare {} rows; at most {} are supported",
                self.location,
                self.rows,
                u32::MAX
            )));
        };
        let groups = RowGroups::new(rows);
        let blocks: Vec<Range<u64>> = (0..self.rows)
            .step_by(usize::try_from(block_rows).unwrap_or(usize::MAX))
            .map(|first| first..(first + block_rows).min(self.rows))
            .collect();
        let (mut done, mut compared) = (0, 0);
        let passes = blocks.iter().zip((1..=blocks.len() as u64).rev());
        let total = passes
            .map(|(range, passes)| (range.end - range.start) * passes)
            .sum();
        let mut direction = None;
        for (index, range) in blocks.iter().enumerate() {
            let mut block = Block::read(self, range.clone(), limit.metric)?;
            let direction = direction.get_or_insert_with(|| block.direction(limit.metric));
            block.sort(direction, limit.metric);
            compared += block.rows.len() as u64;
            let mut step = |other: Option<&Block>| {
                let mut show = |finished| progress(done + finished, total);
                join_pairs(&block, other, limit, &groups, &mut show)?;
                done += range.end - range.start;
                Ok::<_, StageError>(())
            };
            step(None)?;
            for other in &blocks[index + 1..] {
                let mut other = Block::read(self, other.clone(), limit.metric)?;
                other.sort(direction, limit.metric);
                step(Some(&other))?;
            }
        }
        Ok(Duplicates {
            groups: listed(&groups, rows),
            counts: RowCounts {
                compared,
                without_distance: self.rows - compared,
                other_models: 0,
            },
        })
    }

    fn check_one_model(&self) -> Result<(), StageError> {
        let files = (0..self.files.len()).filter(|&file| self.files[file].has_latents);
        let mut models: Vec<_> = files.map(|file| self.models_of(file)).collect();
        models.sort_unstable();
        models.dedup();
        if models.len() < 2 {
            return Ok(());
        }
        let names: Vec<String> = models
            .iter()
            .map(|models| match models {
                Some(models) => models.to_string(),
                None => "another program".to_owned(),
            })
            .collect();
        Err(invalid(format!(
            "{}: holds latents of several models ({}), between which distances have no meaning; name a \
             file, or encode the inputs with one model",
            self.location,
            names.join(" and ")
        )))
    }
}

/// The groups of two or more rows.
fn listed(groups: &RowGroups, rows: u32) -> Vec<Vec<DuplicateRow>> {
    let joined = (0..rows).filter(|&row| groups.nearest(row).is_finite());
    let mut members: Vec<(u32, u32)> = joined.map(|row| (groups.first(row), row)).collect();
    members.sort_unstable();
    let mut listed: Vec<Vec<DuplicateRow>> = members
        .chunk_by(|one, other| one.0 == other.0)
        .map(|group| {
            let row = |&(_, row): &(u32, u32)| DuplicateRow {
                position: row.into(),
                distance: groups.nearest(row),
            };
            group.iter().map(row).collect()
        })
        .collect();
    listed.sort_by_key(|group| Reverse(group.len()));
    listed
}
