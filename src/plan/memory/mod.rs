//! The memory of a batch in flight, the allocation of memory to workers and batches, and the
//! predicted peak of a run.

pub(crate) mod estimate;

use crate::error::config_error::ConfigError;
use crate::image::DECODE_BYTES_PER_PIXEL;
use crate::plan::footprint::{Footprint, fixed_width};
use crate::plan::stage::{Stage, StageOperator};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::source::batch_size::BatchCap;
use crate::system;
use crate::units::ByteSize;

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

#[cfg(test)]
mod tests;
