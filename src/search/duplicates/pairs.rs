//! Finds all pairs of rows within a distance: a product of matrices in float32 excludes most pairs,
//! and the others are compared in float64.

use nalgebra::{DMatrix, DMatrixView};

use crate::error::StageError;
use crate::search::duplicates::block::{Block, BlockRow};
use crate::search::duplicates::groups::RowGroups;
use crate::search::metric::{Metric, distance};
use crate::search::parallel;
use crate::system::simd_dispatch;

/// Number of rows of a tile. The products of two tiles take 256 KiB.
const TILE: usize = 256;

/// The largest distance of a pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairLimit {
    pub(super) metric: Metric,
    pub(super) threshold: f64,
}

impl PairLimit {
    /// The largest difference between the projections of a pair.
    fn projection_gap(self) -> f64 {
        match self.metric {
            // The squared distance of normalized vectors is twice their cosine distance.
            Metric::Cosine => (2.0 * self.threshold).sqrt(),
            Metric::Euclidean | Metric::Dot => self.threshold,
        }
    }

    /// The smallest inner product of a pair with these norms, less the error of a product of
    /// `width` values in float32.
    fn least_product(self, one: f64, other: f64, width: usize) -> f64 {
        let exact = match self.metric {
            Metric::Cosine => (1.0 - self.threshold) * one * other,
            Metric::Euclidean | Metric::Dot => {
                (one * one + other * other - self.threshold * self.threshold) / 2.0
            }
        };
        let rounding =
            (width as f64 + 8.0) * f64::from(f32::EPSILON) * (one * one).max(other * other);
        let underflow = (width as f64 + 8.0) * f64::from(f32::MIN_POSITIVE);
        exact - rounding - underflow
    }
}

/// Joins all pairs of rows of two blocks, or of one block if `other` is `None`. `progress` receives
/// the number of rows of the block whose pairs are done.
pub(super) fn join_pairs(
    block: &Block,
    other: Option<&Block>,
    limit: PairLimit,
    groups: &RowGroups,
    progress: &mut dyn FnMut(u64),
) -> Result<(), StageError> {
    let tiles: Vec<&[BlockRow]> = block.rows.chunks(TILE).collect();
    let gap = limit.projection_gap() * (1.0 + 1e-9);
    parallel::for_each(
        tiles.len(),
        || (),
        |(), index| {
            let tile = Tile::new(block, tiles[index]);
            let others = other.map_or(block, |other| other);
            // Within a block, each pair of tiles is compared once.
            let start = if other.is_some() { 0 } else { index * TILE };
            for rows in others.rows[start..].chunks(TILE) {
                let (first, last) = (rows[0].projection, rows[rows.len() - 1].projection);
                let margin = 1e-9 * (tile.last.abs() + first.abs() + tile.first.abs() + last.abs());
                if first - tile.last > gap + margin {
                    break;
                }
                if tile.first - last <= gap + margin {
                    tile.compare(block, &Tile::new(others, rows), others, limit, groups);
                }
            }
            Ok(tiles[index].len() as u64)
        },
        progress,
    )?;
    Ok(())
}

/// Some rows of a block with adjacent projections.
struct Tile<'a> {
    rows: &'a [BlockRow],
    /// The values, row-major.
    values: Vec<f32>,
    first: f64,
    last: f64,
}

impl<'a> Tile<'a> {
    fn new(block: &Block, rows: &'a [BlockRow]) -> Self {
        let values = rows.iter().flat_map(|row| block.latent(row)).copied();
        Self {
            rows,
            values: values.collect(),
            first: rows.first().map_or(0.0, |row| row.projection),
            last: rows.last().map_or(0.0, |row| row.projection),
        }
    }

    /// The rows as the columns of a matrix.
    fn columns(&self) -> DMatrixView<'_, f32> {
        let width = self.values.len() / self.rows.len().max(1);
        DMatrixView::from_slice(&self.values, width, self.rows.len())
    }

    fn compare(
        &self,
        block: &Block,
        other: &Tile<'_>,
        other_block: &Block,
        limit: PairLimit,
        groups: &RowGroups,
    ) {
        let products: DMatrix<f32> = self.columns().transpose() * other.columns();
        let width = self.columns().nrows();
        for (theirs, column) in other.rows.iter().zip(products.column_iter()) {
            for (mine, &product) in self.rows.iter().zip(column) {
                let least = limit.least_product(mine.norm, theirs.norm, width);
                // A product that is not finite decides nothing.
                let is_excluded = f64::from(product) < least && product.is_finite();
                if is_excluded || mine.row == theirs.row || groups.is_settled(mine.row, theirs.row)
                {
                    continue;
                }
                let (one, two) = (block.latent(mine), other_block.latent(theirs));
                let norms = || (mine.square * theirs.square).sqrt();
                let distance = simd_dispatch(|| distance(limit.metric, one, two, norms));
                if distance <= limit.threshold {
                    groups.join(mine.row, theirs.row, distance);
                }
            }
        }
    }
}
