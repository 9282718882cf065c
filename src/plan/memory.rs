//! How much memory a batch takes on its way through the graph, how the memory at hand is shared
//! out, and how much a run may take in all.

use arrow::datatypes::{DataType, Schema};

use super::{Stage, StageRole, max_in_flight_batches};
use crate::batch::SourceBatch;
use crate::error::ConfigError;
use crate::image::DECODING;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::sink::Sink;
use crate::source::{BatchCap, FEATURE_RECORDS, IMAGE, IMAGE_RECORDS};
use crate::system;
use crate::units::ByteSize;

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

impl Footprint {
    /// Bytes that a batch may take until every sink has accepted it.
    pub fn of(&self, batch: &SourceBatch) -> u64 {
        let stored = u64::try_from(batch.batch.records.get_array_memory_size()).unwrap_or(u64::MAX);
        self.cost(batch.batch.provenance.len(), stored, batch.pixels)
    }

    /// The same, for a batch of so many records, bytes as stored, and pixels.
    pub fn cost(&self, records: u64, stored: u64, pixels: u64) -> u64 {
        let decoding = if pixels == 0 {
            0
        } else {
            self.per_pixel + DECODING
        };
        stored.saturating_mul(2)
            + records.saturating_mul(self.per_record)
            + pixels.saturating_mul(decoding)
    }
}

/// Bytes that a record takes at least, in columns of this schema.
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
        // Offsets of what has no fixed width; the values count as the source's stored bytes.
        other => other.primitive_width().map_or(8, |bytes| bytes as u64),
    }
}

/// What a graph needs, whatever there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryRequirements {
    /// What a batch costs.
    pub(super) footprint: Footprint,
    /// What a worker costs: its sessions, and what its transforms hold while they work.
    per_worker: u64,
    /// What sessions cost that all workers share.
    shared: u64,
}

/// How the memory at hand is shared out.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryAllocation {
    pub(super) requirements: MemoryRequirements,
    /// Workers that there is room for.
    pub(super) workers: usize,
    /// Bytes that may be used in all.
    all: u64,
    /// Bytes of them for batches in flight.
    budget: u64,
}

impl MemoryRequirements {
    pub(super) fn of(stages: &[Stage], context: &PlanContext) -> Self {
        let per_record = stages
            .iter()
            .filter_map(Stage::schema)
            .map(|schema| fixed_width(&schema))
            .sum();
        let transforms = || {
            stages.iter().filter_map(|stage| match &stage.role {
                StageRole::Transform(transform) => Some(transform),
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

    /// Shares out what may be used: a quarter of it at most to workers after the first, the rest to
    /// batches.
    ///
    /// # Errors
    /// A fault at `memory` where not even one worker finds room.
    pub(super) fn share(
        self,
        memory: Option<ByteSize>,
        workers: usize,
    ) -> Result<MemoryAllocation, ConfigError> {
        let all = memory
            .unwrap_or_else(|| ByteSize(system::memory_limit() / 2))
            .0;
        let fit = usize::try_from(all / 4 / self.per_worker.max(1)).unwrap_or(usize::MAX);
        // Memory that is not limited by the user is not a reason to run with fewer workers than
        // were asked for.
        let workers = if memory.is_some() {
            workers.min(fit.max(1))
        } else {
            workers
        };
        let least = self
            .shared
            .saturating_add(self.per_worker)
            .saturating_add(LEAST_BUDGET);
        if memory.is_some() && all < least {
            let message = format!(
                "{} is too little: models and one batch take {}",
                ByteSize(all),
                ByteSize(least)
            );
            return Err(ConfigError::new("memory", message));
        }
        let budget = all
            .saturating_sub(self.shared)
            .saturating_sub(self.per_worker * workers as u64);
        let budget = budget.max(LEAST_BUDGET);
        Ok(MemoryAllocation {
            requirements: self,
            workers,
            all,
            budget,
        })
    }
}

/// Bytes for batches below which nothing can be done.
const LEAST_BUDGET: u64 = 16 << 20;

/// Batches of the largest size that find room together. Neither this nor what follows from it
/// depends on the number of workers: where batches end, and what is refused, must not.
const ROOM_FOR: u64 = 16;

impl MemoryAllocation {
    /// The largest batch.
    pub(super) fn most(&self) -> BatchCap {
        let each = self.all / ROOM_FOR;
        let Footprint {
            per_record,
            per_pixel,
        } = self.requirements.footprint;
        // Half for what is stored and decoded, half for the columns that the stages add.
        let records = u32::try_from(each / 2 / per_record.max(1))
            .unwrap_or(u32::MAX)
            .max(1);
        let bytes = (each / 2 / (2 + (per_pixel + DECODING) / 3)).max(1);
        BatchCap { records, bytes }
    }

    /// The limits under which one record, alone, stays within the memory.
    pub(super) fn limits(&self, limits: PipelineLimits) -> PipelineLimits {
        // What is left to batches however many workers there are. A record counts twice as it is
        // stored.
        let MemoryRequirements {
            per_worker, shared, ..
        } = self.requirements;
        let models = per_worker.saturating_add(shared);
        let least = (self.all - self.all / 4)
            .min(self.all.saturating_sub(models))
            .max(LEAST_BUDGET);
        let (stored, pixels) = (
            least / 16,
            least / 8 * 7 / (self.requirements.footprint.per_pixel + DECODING),
        );
        let record_bytes = ByteSize(limits.record_bytes.0.min(stored));
        PipelineLimits {
            pixels: limits.pixels.min(pixels),
            record_bytes,
            ..limits
        }
    }
}

/// The program and its libraries, ONNX Runtime among them: an estimate on the safe side.
const FIXED: u64 = 96 << 20;

/// What a run will take at most.
pub(super) fn predict(
    stages: &[Stage],
    rejects: Option<&dyn Sink>,
    share: &MemoryAllocation,
    limits: PipelineLimits,
) -> MemoryEstimate {
    let MemoryAllocation {
        requirements,
        workers,
        budget,
        ..
    } = *share;
    let held = |sink: &dyn Sink| {
        sink.buffer_bytes() + sink.folder().map_or(0, |folder| folder.writing_bytes())
    };
    let (mut batch, mut reading, mut endless, mut sinks) = (0, 0, 0, rejects.map_or(0, held));
    for stage in stages {
        match &stage.role {
            StageRole::Source(source, size) => {
                let images = source.schema().column_with_name(IMAGE).is_some();
                let records = size.records_or(if images {
                    IMAGE_RECORDS
                } else {
                    FEATURE_RECORDS
                });
                // An image above the batch's bytes travels alone: then its pixels count, up to the
                // limit.
                let pixels = if images {
                    (size.bytes() / 3).max(limits.pixels)
                } else {
                    0
                };
                // So does a record above them, of whatever kind.
                let stored = size.bytes().max(limits.record_bytes.0);
                batch = batch.max(requirements.footprint.cost(records as u64, stored, pixels));
                // Sources that end are read one after another, those that do not side by side.
                match source.is_unbounded() {
                    true => endless += source.reading_bytes(),
                    false => reading = reading.max(source.reading_bytes()),
                }
            }
            StageRole::Transform(_) => {}
            StageRole::Sink(sink, _) => sinks += held(sink.as_ref()),
        }
    }
    let workers_bytes = requirements.per_worker * workers as u64;
    MemoryEstimate {
        fixed: FIXED + requirements.shared + reading + endless + sinks,
        workers: workers_bytes,
        batch,
        slots: max_in_flight_batches(workers) as u64,
        budget,
    }
}

/// What a run may take in all, predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
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

impl MemoryEstimate {
    /// The bound on all batches in flight: a single batch above the budget travels alone.
    pub fn in_flight(&self) -> u64 {
        self.batch
            .saturating_mul(self.slots)
            .min(self.budget.max(self.batch))
    }

    /// The predicted peak of resident memory.
    pub fn peak(&self) -> u64 {
        self.fixed
            .saturating_add(self.workers)
            .saturating_add(self.in_flight())
    }

    /// A warning where the peak exceeds what the control group (the container) allows.
    #[must_use]
    pub fn warning(&self, group_limit: Option<u64>) -> Option<String> {
        let limit = group_limit.filter(|&limit| limit < self.peak())?;
        let (peak, allowed) = (ByteSize(self.peak()), ByteSize(limit));
        // What is fixed comes on top of `limits.memory`.
        let advice = match limit.saturating_sub(self.fixed) >> 20 {
            little if little < LEAST_BUDGET >> 20 => String::new(),
            mib => format!("write limits.memory = \"{mib}MiB\", or "),
        };
        Some(format!(
            "memory: the run may take {peak}, and the control group (the container) allows {allowed}, beyond which the kernel \
             kills the process; {advice}raise the limit of the container"
        ))
    }
}

impl std::fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [peak, fixed, workers, flight] =
            [self.peak(), self.fixed, self.workers, self.in_flight()].map(ByteSize);
        write!(
            f,
            "at most {peak}: {fixed} fixed, {workers} for models and workers, {flight} for batches in flight"
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn needs(per_worker: u64) -> MemoryRequirements {
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
    fn workers_become_fewer_before_batches_find_no_room() {
        let share = |mib: u64, workers| {
            needs(40 << 20)
                .share(Some(ByteSize(mib << 20)), workers)
                .map(|share| share.workers)
        };
        assert_eq!(share(1024, 4), Ok(4));
        assert_eq!(share(512, 4), Ok(3));
        assert_eq!(share(60, 4), Ok(1));
        let message = share(50, 4).unwrap_err().message;
        assert_eq!(
            message,
            "50.0 MiB is too little: models and one batch take 56.0 MiB"
        );
        assert_eq!(
            needs(1 << 60).share(None, 4).unwrap().workers,
            4,
            "only a limit that is written takes workers away"
        );
    }

    #[test]
    fn what_all_workers_share_is_taken_from_the_batches_once() {
        let budget = |shared, workers| {
            let needs = MemoryRequirements {
                shared,
                ..needs(10 << 20)
            };
            needs
                .share(Some(ByteSize(1 << 30)), workers)
                .unwrap()
                .budget
        };
        assert_eq!(budget(0, 4) - budget(200 << 20, 4), 200 << 20);
        assert_eq!(budget(0, 1) - budget(200 << 20, 1), 200 << 20);
        let none = MemoryRequirements {
            shared: 60 << 20,
            ..needs(1 << 20)
        }
        .share(Some(ByteSize(64 << 20)), 1)
        .unwrap_err();
        assert_eq!(
            none.message,
            "64.0 MiB is too little: models and one batch take 77.0 MiB"
        );
    }

    #[test]
    fn what_a_batch_may_hold_depends_on_the_memory_and_not_on_the_workers() {
        let share = |workers| {
            needs(1 << 20)
                .share(Some(ByteSize(512 << 20)), workers)
                .unwrap()
        };
        let (one, many) = (share(1), share(64));
        assert_ne!(one.budget, many.budget);
        assert_eq!(one.most(), many.most());
        assert_eq!(
            one.limits(PipelineLimits::default()),
            many.limits(PipelineLimits::default())
        );
    }

    #[test]
    fn peak_beyond_the_control_group_is_warned_of() {
        let memory = MemoryEstimate {
            fixed: 100 << 20,
            workers: 0,
            batch: 100 << 20,
            slots: 4,
            budget: 300 << 20,
        };
        let warning = memory.warning(Some(384 << 20)).unwrap();
        assert!(
            warning.contains("may take 400.0 MiB") && warning.contains("allows 384.0 MiB"),
            "{warning}"
        );
        assert!(warning.contains("limits.memory = \"284MiB\""), "{warning}");
        assert!(memory.warning(Some(400 << 20)).is_none() && memory.warning(None).is_none());
    }

    #[test]
    fn a_full_batch_and_the_largest_image_find_room() {
        for mib in [64, 256, 1024] {
            let share = needs(1 << 20).share(Some(ByteSize(mib << 20)), 2).unwrap();
            let (most, footprint) = (share.most(), share.requirements.footprint);
            let batch = footprint.cost(most.records.into(), most.bytes, most.bytes / 3);
            assert!(batch <= share.all / ROOM_FOR, "{mib}: {batch}");
            let limits = share.limits(PipelineLimits {
                pixels: u64::MAX,
                record_bytes: ByteSize(u64::MAX),
                memory: None,
            });
            // The columns of fixed width come on top: a kilobyte here.
            assert!(
                footprint.cost(0, limits.record_bytes.0, limits.pixels) <= share.budget,
                "{mib}"
            );
        }
    }
}
