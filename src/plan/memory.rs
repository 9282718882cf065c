//! The memory of a batch in flight, the allocation of memory to workers and batches, and the
//! predicted peak of a run.

use arrow::datatypes::{DataType, Schema};

use super::{Stage, StageOperator, max_in_flight_batches};
use crate::batch::SourceBatch;
use crate::error::ConfigError;
use crate::image::DECODE_BYTES_PER_PIXEL;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::sink::Sink;
use crate::source::{BatchCap, BatchSize, FEATURE_RECORDS, IMAGE, IMAGE_RECORDS, Source};
use crate::system;
use crate::units::ByteSize;

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
fn fixed_width(schema: &Schema) -> u64 {
    schema
        .fields()
        .iter()
        .map(|field| width(field.data_type()))
        .sum()
}

fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeList(item, len) => {
            width(item.data_type()) * u64::try_from(*len).unwrap_or(0)
        }
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        // The offset of a value of variable width; its bytes are counted as stored by the source.
        other => other.primitive_width().map_or(8, |bytes| bytes as u64),
    }
}

/// The memory that a graph requires, independent of the available memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryRequirements {
    /// The memory of a batch.
    pub(super) footprint: Footprint,
    /// Bytes per worker: its sessions and the scratch space of its transforms.
    per_worker: u64,
    /// Bytes of the sessions that all workers share.
    shared: u64,
}

/// The allocation of the available memory to workers and batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryAllocation {
    pub(super) requirements: MemoryRequirements,
    /// Number of workers that fit into the memory.
    pub(super) workers: usize,
    /// Available bytes in total.
    total: u64,
    /// Bytes for batches in flight.
    budget: u64,
}

impl MemoryRequirements {
    pub(super) fn from_stages(stages: &[Stage], context: &PlanContext) -> Self {
        let per_record = stages
            .iter()
            .filter_map(Stage::schema)
            .map(|schema| fixed_width(&schema))
            .sum();
        let transforms = || {
            stages.iter().filter_map(|stage| match &stage.operator {
                StageOperator::Transform(transform) => Some(transform),
                _ => None,
            })
        };
        let per_pixel = transforms()
            .map(|transform| transform.bytes_per_pixel())
            .sum();
        let scratch: u64 = transforms()
            .map(|transform| transform.scratch_bytes())
            .sum();
        let sessions = context
            .models
            .values()
            .flatten()
            .map(|model| model.session_bytes());
        let (own, shared) = sessions.fold((0, 0), |sum, bytes| (sum.0 + bytes.0, sum.1 + bytes.1));
        Self {
            footprint: Footprint {
                per_record,
                per_pixel,
            },
            per_worker: scratch + own,
            shared,
        }
    }

    /// Allocates the available memory: at most a quarter to workers after the first, and the
    /// remainder to batches.
    ///
    /// # Errors
    /// A fault at `memory` if the memory is too small for one worker and one batch.
    pub(super) fn allocate(
        self,
        memory: Option<ByteSize>,
        workers: usize,
    ) -> Result<MemoryAllocation, ConfigError> {
        let total = memory
            .unwrap_or_else(|| ByteSize(system::memory_limit() / 2))
            .0;
        let fit = usize::try_from(total / 4 / self.per_worker.max(1)).unwrap_or(usize::MAX);
        // Only a limit that the user has set reduces the number of workers.
        let workers = if memory.is_some() {
            workers.min(fit.max(1))
        } else {
            workers
        };
        let least = self
            .shared
            .saturating_add(self.per_worker)
            .saturating_add(MIN_BUDGET);
        if memory.is_some() && total < least {
            let message = format!(
                "{} is too little; models and one batch require {}",
                ByteSize(total),
                ByteSize(least)
            );
            return Err(ConfigError::new("memory", message));
        }
        let budget = total
            .saturating_sub(self.shared)
            .saturating_sub(self.per_worker * workers as u64);
        let budget = budget.max(MIN_BUDGET);
        Ok(MemoryAllocation {
            requirements: self,
            workers,
            total,
            budget,
        })
    }
}

/// Minimum number of bytes for batches in flight.
const MIN_BUDGET: u64 = 16 << 20;

/// Number of largest batches that fit into the memory at the same time. Neither this number nor the
/// limits that follow from it depend on the number of workers, because the ends of batches and the
/// rejected records must not depend on it.
const LARGEST_BATCHES: u64 = 16;

impl MemoryAllocation {
    /// Returns the maximum size of a batch.
    pub(super) fn batch_cap(&self) -> BatchCap {
        let each = self.total / LARGEST_BATCHES;
        let Footprint {
            per_record,
            per_pixel,
        } = self.requirements.footprint;
        // Half is for the stored and decoded records, half for the columns that the stages add.
        let records = u32::try_from(each / 2 / per_record.max(1))
            .unwrap_or(u32::MAX)
            .max(1);
        let bytes = (each / 2 / (2 + (per_pixel + DECODE_BYTES_PER_PIXEL) / 3)).max(1);
        BatchCap { records, bytes }
    }

    /// Reduces limits so that a single record fits into the memory.
    pub(super) fn limits(&self, limits: PipelineLimits) -> PipelineLimits {
        // The memory for batches with any number of workers. The stored bytes of a record count
        // twice.
        let MemoryRequirements {
            per_worker, shared, ..
        } = self.requirements;
        let models = per_worker.saturating_add(shared);
        let least = (self.total - self.total / 4)
            .min(self.total.saturating_sub(models))
            .max(MIN_BUDGET);
        let (stored, pixels) = (
            least / 16,
            least / 8 * 7 / (self.requirements.footprint.per_pixel + DECODE_BYTES_PER_PIXEL),
        );
        let record_bytes = ByteSize(limits.record_bytes.0.min(stored));
        PipelineLimits {
            pixels: limits.pixels.min(pixels),
            record_bytes,
            ..limits
        }
    }
}

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
    fn new(
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
pub(super) fn predict(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn requirements(per_worker: u64) -> MemoryRequirements {
        MemoryRequirements {
            footprint: Footprint {
                per_record: 1000,
                per_pixel: 12,
            },
            per_worker,
            shared: 0,
        }
    }

    #[test]
    fn memory_limit_reduces_workers_before_batches() {
        let workers = |mib: u64, workers| {
            requirements(40 << 20)
                .allocate(Some(ByteSize(mib << 20)), workers)
                .map(|allocation| allocation.workers)
        };
        assert_eq!(workers(1024, 4), Ok(4));
        assert_eq!(workers(512, 4), Ok(3));
        assert_eq!(workers(60, 4), Ok(1));
        let message = workers(50, 4).unwrap_err().message;
        assert_eq!(
            message,
            "50.0 MiB is too little; models and one batch require 56.0 MiB"
        );
        assert_eq!(
            requirements(1 << 60).allocate(None, 4).unwrap().workers,
            4,
            "without `limits.memory`, the number of workers is not reduced"
        );
    }

    #[test]
    fn shared_sessions_reduce_the_budget_of_batches_once() {
        let budget = |shared, workers| {
            let requirements = MemoryRequirements {
                shared,
                ..requirements(10 << 20)
            };
            requirements
                .allocate(Some(ByteSize(1 << 30)), workers)
                .unwrap()
                .budget
        };
        assert_eq!(budget(0, 4) - budget(200 << 20, 4), 200 << 20);
        assert_eq!(budget(0, 1) - budget(200 << 20, 1), 200 << 20);
        let fault = MemoryRequirements {
            shared: 60 << 20,
            ..requirements(1 << 20)
        }
        .allocate(Some(ByteSize(64 << 20)), 1)
        .unwrap_err();
        assert_eq!(
            fault.message,
            "64.0 MiB is too little; models and one batch require 77.0 MiB"
        );
    }

    #[test]
    fn batch_cap_and_limits_do_not_depend_on_the_workers() {
        let allocation = |workers| {
            requirements(1 << 20)
                .allocate(Some(ByteSize(512 << 20)), workers)
                .unwrap()
        };
        let (one, many) = (allocation(1), allocation(64));
        assert_ne!(one.budget, many.budget);
        assert_eq!(one.batch_cap(), many.batch_cap());
        assert_eq!(
            one.limits(PipelineLimits::default()),
            many.limits(PipelineLimits::default())
        );
    }

    #[test]
    fn peak_above_the_limit_of_the_control_group_is_a_warning() {
        let memory = MemoryEstimate {
            expected: 150 << 20,
            fixed: 100 << 20,
            workers: 0,
            batch: 100 << 20,
            slots: 4,
            budget: 300 << 20,
        };
        assert_eq!(
            memory.warning(Some(384 << 20)).unwrap(),
            "memory: about 150.0 MiB is expected, but records of the largest allowed size may \
             require 400.0 MiB; the control group (the container) allows 384.0 MiB, and the kernel \
             kills the process if it requires more; set limits.memory = \"284MiB\", or raise the \
             limit of the container"
        );
        assert!(memory.warning(Some(400 << 20)).is_none() && memory.warning(None).is_none());
    }

    #[test]
    fn estimate_states_the_expected_memory_before_the_maximum() {
        let memory = MemoryEstimate {
            expected: 150 << 20,
            fixed: 100 << 20,
            workers: 0,
            batch: 100 << 20,
            slots: 4,
            budget: 300 << 20,
        };
        assert_eq!(
            memory.to_string(),
            "about 150.0 MiB is expected, with records of ordinary size\n          \
             at most 400.0 MiB, if all records have the largest allowed size; `limits.memory` \
             lowers it"
        );
    }

    #[test]
    fn full_batch_and_largest_image_fit_into_the_memory() {
        for mib in [64, 256, 1024] {
            let allocation = requirements(1 << 20)
                .allocate(Some(ByteSize(mib << 20)), 2)
                .unwrap();
            let (cap, footprint) = (allocation.batch_cap(), allocation.requirements.footprint);
            let batch = footprint.cost(cap.records.into(), cap.bytes, cap.bytes / 3);
            assert!(
                batch <= allocation.total / LARGEST_BATCHES,
                "{mib}: {batch}"
            );
            let limits = allocation.limits(PipelineLimits {
                pixels: u64::MAX,
                record_bytes: ByteSize(u64::MAX),
                memory: None,
            });
            // The columns of fixed width, a kilobyte here, are not included.
            assert!(
                footprint.cost(0, limits.record_bytes.0, limits.pixels) <= allocation.budget,
                "{mib}"
            );
        }
    }
}
