//! The memory that a run is predicted to take, as `check` prints it.

use crate::columns::IMAGE;
use crate::plan::footprint::{Footprint, fixed_width};
use crate::plan::max_in_flight_batches;
use crate::plan::memory::{MIN_BUDGET, MemoryAllocation};
use crate::plan::stage::{Stage, StageOperator};
use crate::plan_context::PipelineLimits;
use crate::sink::Sink;
use crate::source::Source;
use crate::source::batch_size::{BatchSize, FEATURE_RECORDS, IMAGE_RECORDS};
use crate::units::ByteSize;

/// Bytes of the program and its libraries, including ONNX Runtime: a conservative estimate.
const PROGRAM_BYTES: u64 = 96 << 20;

/// The share of decoded pixels in the size of an encoded photograph: JPEG and PNG files take an
/// eighth of their pixels and more.
const COMPRESSION: u64 = 8;

/// Bytes that a source is expected to hold in addition to its batches; the maximum is reached only
/// by the largest units of its format.
const EXPECTED_READING: u64 = 64 << 20;

/// The memory of one batch of a source.
struct BatchEstimate {
    /// The largest batch that the limits allow.
    largest: u64,
    /// A full batch of records of ordinary size, while it waits.
    usual: u64,
    /// The pixels of such a batch while a worker decodes them.
    decoding: u64,
}

impl BatchEstimate {
    pub(super) fn new(
        source: &dyn Source,
        size: &BatchSize,
        footprint: Footprint,
        limits: PipelineLimits,
    ) -> Self {
        let schema = source.schema();
        let images = schema.column_with_name(IMAGE).is_some();
        let records = size.records_or(if images {
            IMAGE_RECORDS
        } else {
            FEATURE_RECORDS
        }) as u64;
        let full = size.bytes();
        // An image that is larger than a batch is a batch of its own, with at most `limits.pixels`.
        let pixels = if images {
            (full / 3).max(limits.pixels)
        } else {
            0
        };
        // A record that is larger than a batch is a batch of its own, too.
        let stored = full.max(limits.record_bytes.0);
        // A full batch of photographs has a quarter of the maximum number of small images.
        let (usual_records, usual_stored, decoding) = if images {
            let decoded = (full / 3).saturating_mul(3 + footprint.per_pixel);
            (records.div_ceil(4), full / COMPRESSION, decoded)
        } else {
            let widths = fixed_width(&schema).saturating_mul(2);
            (records, records.saturating_mul(widths).min(full), 0)
        };
        Self {
            largest: footprint.cost(records, stored, pixels),
            usual: footprint.cost(usual_records, usual_stored, 0),
            decoding,
        }
    }
}

/// Predicts the expected and the maximum memory of a run.
pub(in crate::plan) fn predict(
    stages: &[Stage],
    rejects: Option<&dyn Sink>,
    allocation: &MemoryAllocation,
    limits: PipelineLimits,
) -> MemoryEstimate {
    let MemoryAllocation {
        requirements,
        workers,
        budget,
        ..
    } = *allocation;
    let sink_bytes = |sink: &dyn Sink| {
        sink.buffer_bytes() + sink.folder().map_or(0, |folder| folder.writing_bytes())
    };
    let (mut batch, mut bounded, mut unbounded) = (0, 0, 0);
    let (mut usual, mut decoding) = (0, 0);
    let mut sinks = rejects.map_or(0, sink_bytes);
    for stage in stages {
        match &stage.operator {
            StageOperator::Source(source, size) => {
                let estimate =
                    BatchEstimate::new(source.as_ref(), size, requirements.footprint, limits);
                batch = batch.max(estimate.largest);
                usual = usual.max(estimate.usual);
                decoding = decoding.max(estimate.decoding);
                // Bounded sources are read one after another, unbounded sources concurrently.
                match source.is_unbounded() {
                    true => unbounded += source.reading_bytes(),
                    false => bounded = bounded.max(source.reading_bytes()),
                }
            }
            StageOperator::Transform(_) => {}
            StageOperator::Sink(sink, _) => sinks += sink_bytes(sink.as_ref()),
        }
    }
    let workers_bytes = requirements.per_worker * workers as u64;
    let slots = max_in_flight_batches(workers) as u64;
    let fixed = PROGRAM_BYTES + requirements.shared + sinks;
    let in_flight = usual
        .saturating_mul(slots)
        .saturating_add(decoding.saturating_mul(workers as u64))
        .min(budget);
    let reading = bounded.min(EXPECTED_READING) + unbounded.min(EXPECTED_READING);
    let estimate = MemoryEstimate {
        expected: (fixed + workers_bytes + reading).saturating_add(in_flight),
        fixed: fixed + bounded + unbounded,
        workers: workers_bytes,
        batch,
        slots,
        budget,
    };
    MemoryEstimate {
        expected: estimate.expected.min(estimate.peak()),
        ..estimate
    }
}

/// The predicted memory of a run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// The resident memory of a run whose records have an ordinary size: full batches of
    /// photographs or of feature records. Most runs take less.
    pub expected: u64,
    /// The program, ONNX Runtime, shared sessions, the buffers of the sources, and the open row
    /// groups of the sinks.
    pub fixed: u64,
    /// Sessions and the scratch space of transforms, summed over all workers.
    pub workers: u64,
    /// The largest batch that the limits of the sources allow.
    pub batch: u64,
    /// Maximum number of batches in flight.
    pub slots: u64,
    /// Bytes that batches in flight may reserve.
    pub budget: u64,
}

impl MemoryEstimate {
    /// Returns the maximum memory of all batches in flight. A batch that is larger than the budget
    /// is processed alone.
    pub fn in_flight(&self) -> u64 {
        self.batch
            .saturating_mul(self.slots)
            .min(self.budget.max(self.batch))
    }

    /// Returns the predicted peak of resident memory.
    pub fn peak(&self) -> u64 {
        self.fixed
            .saturating_add(self.workers)
            .saturating_add(self.in_flight())
    }

    /// Returns a warning if the peak exceeds the limit of the control group (the container).
    #[must_use]
    pub fn warning(&self, group_limit: Option<u64>) -> Option<String> {
        let limit = group_limit.filter(|&limit| limit < self.peak())?;
        let [expected, peak, allowed] = [self.expected, self.peak(), limit].map(ByteSize);
        // The fixed memory is not part of `limits.memory`.
        let hint = match limit.saturating_sub(self.fixed) >> 20 {
            mib if mib < MIN_BUDGET >> 20 => String::new(),
            mib => format!("set limits.memory = \"{mib}MiB\", or "),
        };
        Some(format!(
            "memory: about {expected} is expected, but records of the largest allowed size may \
             require {peak}; the control group (the container) allows {allowed}, and the kernel \
             kills the process if it requires more; {hint}raise the limit of the container"
        ))
    }
}

impl std::fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [expected, peak] = [self.expected, self.peak()].map(ByteSize);
        let indent = " ".repeat(MEMORY_INDENT);
        write!(
            f,
            "about {expected} is expected, with records of ordinary size\n{indent}at most {peak}, \
             if all records have the largest allowed size; `limits.memory` lowers it"
        )
    }
}

/// The column at which the lines of the estimate begin in the printed plan.
const MEMORY_INDENT: usize = 10;
