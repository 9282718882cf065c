//! A block of latents in memory, in the order of their projections on a direction.

use std::ops::Range;

use arrow::array::Array;
use arrow::datatypes::Field;
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::StageError;
use crate::eval_metrics::Pca;
use crate::search::latent_column::latents;
use crate::search::latent_dataset::{FilePart, LatentDataset};
use crate::search::metric::{Metric, dot};
use crate::tensor::fixed_values;

/// Maximum number of rows that the direction is computed from.
const SAMPLE: usize = 2000;

/// A latent without its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockRow {
    /// The index of the row in the dataset.
    pub(super) row: u32,
    /// The index of its values in the block.
    slot: u32,
    /// The length of the latent.
    pub(super) norm: f64,
    /// The square of the length.
    pub(super) square: f64,
    /// The projection of the latent, which is normalized for the cosine.
    pub(super) projection: f64,
}

/// Consecutive rows of a dataset that have a distance to others.
pub(super) struct Block {
    width: usize,
    values: Vec<f32>,
    /// The rows by ascending projection.
    pub(super) rows: Vec<BlockRow>,
}

impl Block {
    /// Reads the rows of a range. Those without a distance are left out.
    pub(super) fn read(
        dataset: &LatentDataset,
        range: Range<u64>,
        metric: Metric,
    ) -> Result<Self, StageError> {
        let mut block = Self {
            width: dataset.width,
            values: Vec::new(),
            rows: Vec::new(),
        };
        for file in dataset.files.iter().filter(|file| file.has_latents) {
            let end = (file.first + file.rows()).min(range.end);
            let mut next = file.first.max(range.start);
            if next >= end {
                continue;
            }
            let own = (next - file.first) as usize..(end - file.first) as usize;
            let rows =
                RowSelection::from_consecutive_ranges(std::iter::once(own), file.rows() as usize);
            let is_read = |field: &Field| *field.name() == dataset.column;
            let part = FilePart::Rows(rows);
            for records in file.reader(file.metadata()?, &is_read, part, dataset.batch_rows())? {
                let records = records.map_err(|error| file.corrupt(&error))?;
                let latents = latents(records.column(0), dataset.width)?;
                let values = fixed_values(&latents).unwrap_or_default();
                for (index, latent) in values.chunks_exact(dataset.width).enumerate() {
                    if latents.is_valid(index) {
                        block.add((next + index as u64) as u32, latent, metric);
                    }
                }
                next += records.num_rows() as u64;
            }
        }
        Ok(block)
    }

    fn add(&mut self, row: u32, latent: &[f32], metric: Metric) {
        let square = dot(latent, latent);
        let norm = square.sqrt();
        if norm.is_finite() && (norm > 0.0 || metric != Metric::Cosine) {
            let slot = self.rows.len() as u32;
            self.values.extend_from_slice(latent);
            self.rows.push(BlockRow {
                row,
                slot,
                norm,
                square,
                projection: 0.0,
            });
        }
    }

    /// The values of a row.
    pub(super) fn latent(&self, row: &BlockRow) -> &[f32] {
        let start = row.slot as usize * self.width;
        &self.values[start..start + self.width]
    }

    /// The direction in which the latents differ most; zeros if they are all equal.
    pub(super) fn direction(&self, metric: Metric) -> Vec<f32> {
        let step = self.rows.len().div_ceil(SAMPLE).max(1);
        let fitted = Pca::fit(self.width, 1, |work| {
            for row in self.rows.iter().step_by(step) {
                let scale = scale(metric, row.norm);
                let latent = self.latent(row).iter();
                let scaled: Vec<f32> = latent
                    .map(|&value| (f64::from(value) * scale) as f32)
                    .collect();
                work(&scaled);
            }
            Ok::<_, std::convert::Infallible>(())
        });
        let component = fitted.ok().flatten().and_then(|pca| pca.component(0));
        component.unwrap_or_else(|| vec![0.0; self.width])
    }

    /// Sorts the rows by their projections on a direction.
    pub(super) fn sort(&mut self, direction: &[f32], metric: Metric) {
        let length = dot(direction, direction).sqrt();
        let mut rows = std::mem::take(&mut self.rows);
        for row in rows.iter_mut().filter(|_| length > 0.0) {
            row.projection = dot(direction, self.latent(row)) * scale(metric, row.norm) / length;
        }
        rows.sort_by(|one, other| one.projection.total_cmp(&other.projection));
        self.rows = rows;
    }
}

/// The factor that a latent is multiplied by before its projection.
fn scale(metric: Metric, norm: f64) -> f64 {
    match metric {
        Metric::Cosine => 1.0 / norm,
        Metric::Euclidean | Metric::Dot => 1.0,
    }
}
