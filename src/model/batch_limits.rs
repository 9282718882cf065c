//! The limits on the size of one call of a session.

use crate::model::config::RuntimeSpec;

/// The maximum number of records and of values of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InferenceBatchLimits {
    records: usize,
    values: usize,
}

/// Maximum number of vectors per call on the CPU. Dense networks are not faster with more.
pub(super) const OWN_RECORDS: usize = 1024;
/// Maximum number of images per call on the CPU. Convolutional networks are slower with more, since
/// their activations no longer fit the CPU cache.
const OWN_IMAGES: usize = 8;
/// Maximum number of values per call on the CPU: 32 RGB images of 64x64. ONNX Runtime keeps the
/// memory of the largest call, and larger batches are hardly faster.
const OWN_VALUES: usize = 32 * 3 * 64 * 64;
/// Maximum number of records per call on a device, which needs large batches.
const DEVICE_RECORDS: usize = 16_384;
/// Maximum number of values per call on a device: 512 RGB images of 64x64, 25 MB.
const DEVICE_VALUES: usize = 512 * 3 * 64 * 64;

impl InferenceBatchLimits {
    /// Returns the limits that the pipeline sets, or the defaults for the device and for `images`
    /// or vectors.
    pub fn new(runtime: &RuntimeSpec, images: bool) -> Self {
        match runtime.max_batch_records {
            Some(records) => Self {
                records: records.get(),
                values: usize::MAX,
            },
            None if runtime.uses_device() => Self {
                records: DEVICE_RECORDS,
                values: DEVICE_VALUES,
            },
            None => Self {
                records: if images { OWN_IMAGES } else { OWN_RECORDS },
                values: OWN_VALUES,
            },
        }
    }

    /// The maximum number of records of `len` values in one call.
    pub fn rows(self, len: usize) -> usize {
        (self.values / len.max(1)).clamp(1, self.records)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(written: &str, len: usize) -> usize {
        InferenceBatchLimits::new(&toml::from_str(written).unwrap(), false).rows(len)
    }

    #[test]
    fn calls_are_limited_in_values_and_records() {
        assert_eq!(rows("", 3 * 64 * 64), 32);
        assert_eq!(rows("", 8), OWN_RECORDS);
        assert_eq!(rows("", usize::MAX), 1);
        assert_eq!(
            InferenceBatchLimits::new(&RuntimeSpec::default(), true).rows(28 * 28),
            OWN_IMAGES
        );
    }

    #[test]
    fn devices_and_max_batch_records_have_other_limits() {
        assert_eq!(rows("providers = ['cuda', 'cpu']", 3 * 64 * 64), 512);
        assert_eq!(rows("sessions = 'shared'", 3 * 64 * 64), 32);
        assert_eq!(rows("max_batch_records = 7", 3 * 64 * 64), 7);
    }
}
