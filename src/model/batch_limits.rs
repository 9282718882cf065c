//! How much goes into one call of a session.

use crate::model::config::RuntimeSpec;

/// What goes into one call at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InferenceBatchLimits {
    records: usize,
    values: usize,
}

/// On the processor, dense networks gain nothing from more records.
pub(super) const OWN_RECORDS: usize = 1024;
/// Convolutional ones gain nothing from more than a few, and lose: what they compute with leaves
/// the processor's cache.
const OWN_IMAGES: usize = 8;
/// 32 colour images of 64x64. ONNX Runtime keeps the most memory that a call ever took, and larger
/// batches gain next to nothing.
const OWN_VALUES: usize = 32 * 3 * 64 * 64;
/// A device wants much to do at a time.
const DEVICE_RECORDS: usize = 16_384;
/// 512 colour images of 64x64, 25 MB.
const DEVICE_VALUES: usize = 512 * 3 * 64 * 64;

impl InferenceBatchLimits {
    /// What the pipeline says, or what suits who computes what: `images` or vectors.
    pub fn of(runtime: &RuntimeSpec, images: bool) -> Self {
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

    /// Records of `len` values that go into one call.
    pub fn rows(self, len: usize) -> usize {
        (self.values / len.max(1)).clamp(1, self.records)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(written: &str, len: usize) -> usize {
        InferenceBatchLimits::of(&toml::from_str(written).unwrap(), false).rows(len)
    }

    #[test]
    fn calls_are_bounded_in_values_and_records() {
        assert_eq!(rows("", 3 * 64 * 64), 32);
        assert_eq!(rows("", 8), OWN_RECORDS);
        assert_eq!(rows("", usize::MAX), 1);
        assert_eq!(
            InferenceBatchLimits::of(&RuntimeSpec::default(), true).rows(28 * 28),
            OWN_IMAGES
        );
    }

    #[test]
    fn devices_and_users_have_limits_of_their_own() {
        assert_eq!(rows("providers = ['cuda', 'cpu']", 3 * 64 * 64), 512);
        assert_eq!(rows("sessions = 'shared'", 3 * 64 * 64), 32);
        assert_eq!(rows("max_batch_records = 7", 3 * 64 * 64), 7);
    }
}
