//! The exact nearest neighbors of a latent.

use arrow::array::Array;
use arrow::datatypes::Field;
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::StageError;
use crate::eval_metrics::nearest::Nearest;
use crate::search::latent_column::{invalid, latents};
use crate::search::latent_dataset::{FilePart, LatentDataset};
use crate::search::metric::{Metric, QueryVector};
use crate::search::model_digests::ModelDigests;
use crate::tensor::fixed_values;

/// The vector whose neighbors are searched.
pub(crate) struct NeighborQuery {
    /// The latent.
    pub(crate) latent: Vec<f32>,
    /// The models that computed it; `None` if another program wrote it. Latents of other models are
    /// not compared with it.
    pub(crate) models: Option<ModelDigests>,
    /// Its position in the dataset, which is not its own neighbor.
    pub(crate) position: Option<u64>,
}

/// The nearest rows of a dataset.
#[derive(Debug, Default)]
pub(crate) struct Neighbors {
    /// The distances and positions, nearest first. Of equal distances, the smaller position precedes.
    pub(crate) found: Vec<(f64, u64)>,
    pub(crate) counts: RowCounts,
}

/// The numbers of rows of a dataset by their part in a search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RowCounts {
    /// Rows that were compared.
    pub(crate) compared: u64,
    /// Rows without a distance: the latent is null, is not finite, or is zero with the cosine.
    pub(crate) without_distance: u64,
    /// Rows of other models.
    pub(crate) other_models: u64,
}

impl LatentDataset {
    /// The query for a row of the dataset.
    ///
    /// # Errors
    /// If there is no such row, or it has no latent.
    pub(crate) fn row_query(&self, position: u64) -> Result<NeighborQuery, StageError> {
        let Some(index) = self.file_at(position) else {
            return Err(invalid(format!(
                "{}: no row at position {position}; positions are 0 to {}",
                self.location,
                self.rows.saturating_sub(1)
            )));
        };
        let file = &self.files[index];
        let missing = || invalid(format!("{}: row {position} has no latent", self.location));
        if !file.has_latents {
            return Err(missing());
        }
        let row = (position - file.first) as usize;
        let rows = RowSelection::from_consecutive_ranges(
            std::iter::once(row..row + 1),
            file.rows() as usize,
        );
        let is_read = |field: &Field| *field.name() == self.column;
        let mut reader = file.reader(file.metadata()?, &is_read, FilePart::Rows(rows), 1)?;
        let records = reader.next().ok_or_else(missing)?;
        let records = records.map_err(|error| file.corrupt(&error))?;
        let latents = latents(records.column(0), self.width)?;
        let latent = fixed_values(&latents).filter(|_| latents.is_valid(0));
        Ok(NeighborQuery {
            latent: latent.ok_or_else(missing)?.to_vec(),
            models: self.models_of(index),
            position: Some(position),
        })
    }

    /// Compares a latent with all rows, and returns the `k` nearest ones. `progress` receives the
    /// number of rows that were read, and that of all rows.
    ///
    /// # Errors
    /// If the latent has no distance to others, or a file cannot be read.
    pub(crate) fn neighbors(
        &self,
        query: &NeighborQuery,
        metric: Metric,
        k: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Neighbors, StageError> {
        let vector = self.query_vector(&query.latent, metric)?;
        let same_models = |file: usize| self.models_of(file) == query.models;
        let groups = self.row_groups(same_models);
        let rows: u64 = groups.iter().map(|group| group.rows).sum();
        let states = self.scan(
            &groups,
            || (Nearest::new(k), 0_u64),
            |(nearest, compared), batch| {
                vector.distances(batch.values, |row, distance| {
                    let position = batch.first + row as u64;
                    let is_compared = batch.is_valid(row) && query.position != Some(position);
                    if let Some(distance) = distance.filter(|_| is_compared) {
                        nearest.add(distance, position);
                        *compared += 1;
                    }
                });
            },
            &mut |done| progress(done, rows),
        )?;
        let (mut nearest, mut compared) = (Nearest::new(k), 0);
        for (part, count) in states {
            nearest.merge(part);
            compared += count;
        }
        let files = self.files.iter().enumerate();
        let others = files.filter(|(index, _)| !same_models(*index));
        let other_models: u64 = others.map(|(_, file)| file.rows()).sum();
        let itself = u64::from(query.position.is_some());
        Ok(Neighbors {
            found: nearest.items().to_vec(),
            counts: RowCounts {
                compared,
                without_distance: self.rows - other_models - compared - itself,
                other_models,
            },
        })
    }

    fn query_vector(&self, latent: &[f32], metric: Metric) -> Result<QueryVector, StageError> {
        if latent.len() != self.width {
            return Err(invalid(format!(
                "the latent has {} values, but those in `{}` of {} have {}",
                latent.len(),
                self.column,
                self.location,
                self.width
            )));
        }
        QueryVector::new(metric, latent.to_vec()).ok_or_else(|| {
            let fault = match latent.iter().all(|value| value.is_finite()) {
                true => "all of its values are 0, so that it has no cosine; use another --metric",
                false => "one of its values is not finite",
            };
            invalid(format!("the latent has no distance to others: {fault}"))
        })
    }
}
