//! Batches of records with the source rows that they represent, and rejected records.

pub mod provenance;
pub mod reject;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;

use crate::batch::provenance::Provenance;
use crate::batch::reject::Reject;

/// Records that are processed together, with their provenance.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Arrow columns. Their schema is that of the edge of the graph, which is fixed at planning.
    pub records: RecordBatch,
    /// For each record, the ordinal of its source row in `provenance`.
    pub row_ordinals: Vec<u32>,
    /// All source rows that the batch represents, including those of filtered and rejected records.
    pub provenance: Arc<Provenance>,
}

impl Batch {
    /// A batch with one record for each source row.
    pub fn new(records: RecordBatch, provenance: Provenance) -> Self {
        let row_ordinals = (0..u32::try_from(records.num_rows()).unwrap_or(u32::MAX)).collect();
        Self {
            records,
            row_ordinals,
            provenance: Arc::new(provenance),
        }
    }

    /// The same rows with other columns; `records` must have the same number of rows as before.
    #[must_use]
    pub fn with_records(self, records: RecordBatch) -> Self {
        debug_assert_eq!(
            records.num_rows(),
            self.row_ordinals.len(),
            "a transform changed the number of rows"
        );
        Self { records, ..self }
    }

    /// Keeps only the records whose `mask` is true; null counts as false.
    ///
    /// # Errors
    /// Returns an error if the length of the mask is not the number of records.
    pub fn filter(self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let records = filter_record_batch(&self.records, mask)?;
        let kept = |place: usize| mask.is_valid(place) && mask.value(place);
        let row_ordinals = self
            .row_ordinals
            .iter()
            .enumerate()
            .filter(|(place, _)| kept(*place))
            .map(|(_, &o)| o)
            .collect();
        Ok(Self {
            records,
            row_ordinals,
            provenance: self.provenance,
        })
    }

    /// The records at these positions, with the provenance of the entire batch.
    #[must_use]
    pub fn rows(&self, part: Range<usize>) -> Self {
        Self {
            records: self.records.slice(part.start, part.end - part.start),
            row_ordinals: self.row_ordinals[part].to_vec(),
            provenance: Arc::clone(&self.provenance),
        }
    }

    /// Splits the batch between two source rows. The first part has the longest prefix of source
    /// rows with at most `records` records. With `at_least_one`, it has at least the first source
    /// row that has any records, even if those exceed `records`. Ordinals start at 0 in both parts.
    ///
    /// # Errors
    /// Returns an error if Arrow cannot filter the records.
    pub(crate) fn split_at_records(
        &self,
        records: usize,
        at_least_one: bool,
    ) -> Result<(Self, Self), ArrowError> {
        let mut ordinals = self.row_ordinals.clone();
        ordinals.sort_unstable();
        let all = self.provenance.len();
        let end = match (ordinals.first(), ordinals.get(records)) {
            (Some(first), Some(end)) if first == end && at_least_one => u64::from(*end) + 1,
            (_, Some(end)) => u64::from(*end),
            (_, None) => all,
        };
        let part = |rows: Range<u64>| -> Result<Self, ArrowError> {
            let is_inside = |ordinal: &u32| rows.contains(&u64::from(*ordinal));
            let mask: BooleanArray = self
                .row_ordinals
                .iter()
                .map(|ordinal| Some(is_inside(ordinal)))
                .collect();
            let shift = u32::try_from(rows.start).unwrap_or(u32::MAX);
            let row_ordinals = self
                .row_ordinals
                .iter()
                .filter(|ordinal| is_inside(ordinal))
                .map(|ordinal| ordinal - shift)
                .collect();
            let provenance = Arc::new(self.provenance.slice(rows.clone()));
            Ok(Self {
                records: filter_record_batch(&self.records, &mask)?,
                row_ordinals,
                provenance,
            })
        };
        Ok((part(0..end)?, part(end..all)?))
    }

    /// Concatenates the records of several branches of the graph, which all represent the same
    /// source rows.
    ///
    /// # Errors
    /// Returns an error if the schemas differ.
    pub fn concat(branches: &[Self]) -> Result<Option<Self>, ArrowError> {
        let Some(first) = branches.first() else {
            return Ok(None);
        };
        if branches.len() == 1 {
            return Ok(Some(first.clone()));
        }
        let records = concat_batches(
            &first.records.schema(),
            branches.iter().map(|branch| &branch.records),
        )?;
        let row_ordinals = branches
            .iter()
            .flat_map(|branch| branch.row_ordinals.iter().copied())
            .collect();
        Ok(Some(Self {
            records,
            row_ordinals,
            provenance: Arc::clone(&first.provenance),
        }))
    }
}

/// The acknowledgement of a batch: the outcome of its source rows, once it is durable in every
/// sink.
#[derive(Debug, Clone)]
pub struct BatchAck {
    /// The rows.
    pub provenance: Arc<Provenance>,
    /// Rejected records, with the stage that rejected each.
    pub rejected: Vec<(Arc<str>, Reject)>,
    /// Ordinals of the rows that reached no sink and were not rejected: a filter dropped them.
    pub filtered: Vec<u32>,
}

/// Output of a source: a batch, the rows that could not be read, and the number of pixels.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The records. Rows that could not be read are only in the provenance and in `rejects`.
    pub batch: Batch,
    /// Rows for which the source could not create records.
    pub rejects: Vec<Reject>,
    /// Number of pixels that the batch's images have after decoding, by their headers; 0 for
    /// feature records.
    pub pixels: u64,
}

impl From<Batch> for SourceBatch {
    /// A batch without rejects and without images.
    fn from(batch: Batch) -> Self {
        Self {
            batch,
            rejects: Vec::new(),
            pixels: 0,
        }
    }
}

impl SourceBatch {
    /// The part with the source rows at the ordinals `part`.
    #[must_use]
    pub fn slice(&self, part: Range<u64>) -> Self {
        let shift = |ordinal: u32| ordinal - u32::try_from(part.start).unwrap_or(u32::MAX);
        let row_ordinals = &self.batch.row_ordinals;
        let from = row_ordinals.partition_point(|&o| u64::from(o) < part.start);
        let to = row_ordinals.partition_point(|&o| u64::from(o) < part.end);
        let batch = Batch {
            records: self.batch.records.slice(from, to - from),
            row_ordinals: row_ordinals[from..to].iter().map(|&o| shift(o)).collect(),
            provenance: Arc::new(self.batch.provenance.slice(part.clone())),
        };
        let rejects = self
            .rejects
            .iter()
            .filter_map(|reject| reject.slice(&part))
            .collect();
        let all = self.batch.provenance.len().max(1);
        let pixels = self.pixels * (part.end - part.start) / all;
        Self {
            batch,
            rejects,
            pixels,
        }
    }
}

#[cfg(test)]
mod tests;
