//! The memory of a row and of a batch.

use arrow::datatypes::{DataType, Schema};

use crate::batch::SourceBatch;
use crate::image::DECODE_BYTES_PER_PIXEL;

/// The memory of a batch in flight, as a function of its size when it leaves its source.
///
/// This is an upper bound: the output columns of each stage are counted as if no memory was shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes per record in columns of fixed width, summed over all edges.
    pub per_record: u64,
    /// Bytes per pixel of decoded images, summed over all edges.
    pub per_pixel: u64,
}

impl Footprint {
    /// Returns the maximum memory in bytes of a batch until every sink has released it.
    pub fn of(&self, batch: &SourceBatch) -> u64 {
        let stored = u64::try_from(batch.batch.records.get_array_memory_size()).unwrap_or(u64::MAX);
        self.cost(batch.batch.provenance.len(), stored, batch.pixels)
    }

    /// As [`of`](Self::of), for a batch with these numbers of records, stored bytes and pixels.
    pub fn cost(&self, records: u64, stored: u64, pixels: u64) -> u64 {
        let decoding = if pixels == 0 {
            0
        } else {
            self.per_pixel + DECODE_BYTES_PER_PIXEL
        };
        stored.saturating_mul(2)
            + records.saturating_mul(self.per_record)
            + pixels.saturating_mul(decoding)
    }
}

/// Returns the minimum size in bytes of a record with the columns of a schema.
pub(super) fn fixed_width(schema: &Schema) -> u64 {
    schema
        .fields()
        .iter()
        .map(|field| width(field.data_type()))
        .sum()
}

pub(super) fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeList(item, len) => {
            width(item.data_type()) * u64::try_from(*len).unwrap_or(0)
        }
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        // The offset of a value of variable width; its bytes are counted as stored by the source.
        other => other.primitive_width().map_or(8, |bytes| bytes as u64),
    }
}
