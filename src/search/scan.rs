//! Reads the latents of a dataset with several threads, one row group per thread at a time.

use arrow::array::Array;
use arrow::datatypes::Field;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::error::StageError;
use crate::search::latent_column::latents;
use crate::search::latent_dataset::{FilePart, LatentDataset};
use crate::search::parallel;
use crate::tensor::fixed_values;

/// A row group of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowGroup {
    pub(super) file: usize,
    pub(super) group: usize,
    /// The position of its first row.
    pub(super) first: u64,
    pub(super) rows: u64,
}

/// Consecutive latents of a dataset.
pub(super) struct LatentBatch<'a> {
    /// The position of the first of them.
    pub(super) first: u64,
    /// The values in row-major order. Those of a null are arbitrary.
    pub(super) values: &'a [f32],
    latents: &'a dyn Array,
}

impl LatentBatch<'_> {
    /// Whether the latent of a row of the batch exists.
    pub(super) fn is_valid(&self, row: usize) -> bool {
        self.latents.is_valid(row)
    }
}

impl LatentDataset {
    /// The row groups with latents of the files that `is_read` selects by their indices.
    pub(super) fn row_groups(&self, is_read: impl Fn(usize) -> bool) -> Vec<RowGroup> {
        let files = self.files.iter().enumerate();
        let files = files.filter(|(index, file)| file.has_latents && is_read(*index));
        let groups = files.flat_map(|(index, file)| {
            let rows = file.groups.iter().enumerate();
            rows.scan(file.first, move |next, (group, &rows)| {
                let first = *next;
                *next += rows;
                Some(RowGroup {
                    file: index,
                    group,
                    first,
                    rows,
                })
            })
        });
        groups.filter(|group| group.rows > 0).collect()
    }

    /// Calls `work` for all latents of the row groups, in the order of each group. Each thread has
    /// its own state, which `new` makes; all states are returned. `progress` receives the number of
    /// rows that were read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn scan<S: Send>(
        &self,
        groups: &[RowGroup],
        new: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &LatentBatch<'_>) + Sync,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<S>, StageError> {
        let states = parallel::for_each(
            groups.len(),
            || (new(), GroupReader::new(self)),
            |(state, reader), index| {
                let group = groups[index];
                reader.read(group, &mut |batch| work(state, batch))?;
                Ok(group.rows)
            },
            progress,
        )?;
        Ok(states.into_iter().map(|(state, _)| state).collect())
    }
}

/// Reads row groups; the metadata of the last file is kept.
struct GroupReader<'a> {
    dataset: &'a LatentDataset,
    metadata: Option<(usize, ArrowReaderMetadata)>,
}

impl<'a> GroupReader<'a> {
    fn new(dataset: &'a LatentDataset) -> Self {
        Self {
            dataset,
            metadata: None,
        }
    }

    fn read(
        &mut self,
        group: RowGroup,
        with: &mut dyn FnMut(&LatentBatch<'_>),
    ) -> Result<(), StageError> {
        let dataset = self.dataset;
        let file = &dataset.files[group.file];
        let metadata = match self.metadata.take() {
            Some((index, metadata)) if index == group.file => metadata,
            _ => file.metadata()?,
        };
        self.metadata = Some((group.file, metadata.clone()));
        let is_read = |field: &Field| *field.name() == dataset.column;
        let part = FilePart::Group(group.group);
        let mut first = group.first;
        for records in file.reader(metadata, &is_read, part, dataset.batch_rows())? {
            let records = records.map_err(|error| file.corrupt(&error))?;
            let latents = latents(records.column(0), dataset.width)?;
            let values = fixed_values(&latents).unwrap_or_default();
            with(&LatentBatch {
                first,
                values,
                latents: &latents,
            });
            first += records.num_rows() as u64;
        }
        Ok(())
    }
}
