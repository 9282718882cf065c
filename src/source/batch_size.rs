//! The size of batches, as configured and as the available memory allows.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{ByteSize, HumanDuration};

/// Limits on the size of a batch. The first limit that is reached completes a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BatchSize {
    /// Maximum number of records. Default: 32 images, up to 128 if they are small, or 4096 feature
    /// records.
    pub records: Option<std::num::NonZeroU32>,
    /// Maximum size in bytes, with images counted as decoded; a single larger record is a batch of
    /// its own. Default: 32MiB.
    pub bytes: Option<ByteSize>,
    /// Maximum time that a source without an end waits for a batch to fill.
    pub delay: Option<HumanDuration>,
    /// Upper bound from the available memory, which takes precedence over the configured limits.
    #[serde(skip)]
    pub most: Option<BatchCap>,
}

/// The largest batch that fits into the available memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCap {
    /// Maximum number of records.
    pub records: u32,
    /// Maximum size in bytes.
    pub bytes: u64,
}

impl BatchSize {
    /// The maximum number of records, or `default` if it is not configured.
    pub fn records_or(&self, default: u32) -> usize {
        let records = self.records.map_or(default, std::num::NonZeroU32::get);
        self.most.map_or(records, |most| records.min(most.records)) as usize
    }

    /// The maximum size in bytes, 32 MiB if it is not configured.
    pub fn bytes(&self) -> u64 {
        let bytes = self.bytes.map_or(32 << 20, |bytes| bytes.0);
        self.most.map_or(bytes, |most| bytes.min(most.bytes))
    }
}

/// Size of a decoded pixel in bytes: red, green and blue.
pub(crate) const PIXEL_BYTES: u64 = 3;

/// Default maximum number of images in a batch of small images.
pub(crate) const IMAGE_RECORDS: u32 = 128;
/// Default maximum number of feature records in a batch.
pub(crate) const FEATURE_RECORDS: u32 = 4096;
