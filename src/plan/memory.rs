//! How much memory a batch takes on its way through the graph, and how much a run may take in all.

use arrow::datatypes::{DataType, Schema};

use crate::batch::SourceBatch;
use crate::units::Bytes;

/// What a batch costs while it is in flight, from what is known when it leaves its source.
///
/// An upper bound: it counts the columns that each stage puts out as if nobody shared them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes per record, over all edges, of columns with a fixed width.
    pub per_record: u64,
    /// Bytes per pixel of decoded images, over all edges.
    pub per_pixel: u64,
}

/// Decoded bytes of a pixel, at three channels, once as the decoder gives them and once turned or resized.
const DECODING: u64 = 6;

impl Footprint {
    /// Bytes that a batch may take until every sink has accepted it.
    pub fn of(&self, batch: &SourceBatch) -> u64 {
        let stored = u64::try_from(batch.batch.records.get_array_memory_size()).unwrap_or(u64::MAX);
        self.cost(batch.batch.provenance.len(), stored, batch.pixels)
    }

    /// The same, for a batch of so many records, bytes as stored, and pixels.
    pub fn cost(&self, records: u64, stored: u64, pixels: u64) -> u64 {
        let decoding = if pixels == 0 { 0 } else { self.per_pixel + DECODING };
        stored.saturating_mul(2) + records.saturating_mul(self.per_record) + pixels.saturating_mul(decoding)
    }
}

/// Bytes that a record takes at least, in columns of this schema.
pub(super) fn fixed_width(schema: &Schema) -> u64 {
    schema.fields().iter().map(|field| width(field.data_type())).sum()
}

fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeList(item, len) => width(item.data_type()) * u64::try_from(*len).unwrap_or(0),
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        // Offsets of what has no fixed width; the values count as the source's stored bytes.
        other => other.primitive_width().map_or(8, |bytes| bytes as u64),
    }
}

/// What a run may take in all, predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The program, ONNX Runtime and the sinks' open row groups.
    pub fixed: u64,
    /// Sessions and the scratch space of transforms, over all workers.
    pub workers: u64,
    /// The largest batch that the sources' limits allow.
    pub batch: u64,
    /// Batches that may be in flight.
    pub slots: u64,
    /// Bytes that batches in flight may reserve.
    pub budget: u64,
}

impl Memory {
    /// The bound on all batches in flight: a single batch above the budget travels alone.
    pub fn in_flight(&self) -> u64 {
        self.batch.saturating_mul(self.slots).min(self.budget.max(self.batch))
    }

    /// The predicted peak of resident memory.
    pub fn peak(&self) -> u64 {
        self.fixed.saturating_add(self.workers).saturating_add(self.in_flight())
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [peak, fixed, workers, flight] = [self.peak(), self.fixed, self.workers, self.in_flight()].map(Bytes);
        write!(f, "at most {peak}: {fixed} fixed, {workers} for models and workers, {flight} for batches in flight")
    }
}
