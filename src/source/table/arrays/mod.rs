//! Arrays in files: their headers, and the conversion of their rows into records.

pub(crate) mod header;
pub(crate) mod idx;
pub(crate) mod npy_header;
pub(crate) mod npz;
pub(crate) mod reader;

use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::{BatchSize, PIXEL_BYTES};
use crate::source::table::arrays::header::ArrayHeader;
use crate::units::ByteSize;

/// The batches of records that are joined from arrays of equal length.
#[derive(Debug, Clone)]
pub(crate) struct JoinedArrays {
    /// Number of records in a batch.
    step: u64,
    /// Number of pixels of the images of a record; 0 if they exceed `limits.pixels` and are not
    /// decoded.
    pixels: u64,
}

impl JoinedArrays {
    /// Joins arrays and checks that a record of them does not exceed the limit.
    ///
    /// # Errors
    /// A sentence that states the size and the limit.
    pub(in crate::source) fn new(
        headers: &[&ArrayHeader],
        batch: BatchSize,
        limits: &PipelineLimits,
    ) -> Result<Self, String> {
        let bytes = headers
            .iter()
            .fold(0, |total: u64, header| total.saturating_add(header.bytes()));
        let limit = limits.record_bytes.0.min(i32::MAX as u64);
        if bytes > limit {
            return Err(format!(
                "a record takes {}, more than {}; increase limits.record_bytes to read it",
                ByteSize(bytes),
                ByteSize(limit)
            ));
        }
        let images = headers.iter().filter_map(|header| header.image());
        let pixels = images.fold(0, |total: u64, [height, width, _]| {
            total + height as u64 * width as u64
        });
        let pixels = if pixels > limits.pixels { 0 } else { pixels };
        let has_images = headers.iter().any(|header| header.is_image());
        let cut = if has_images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        Ok(Self {
            step: cut.records_of(bytes.max(pixels.saturating_mul(PIXEL_BYTES))),
            pixels,
        })
    }
}
