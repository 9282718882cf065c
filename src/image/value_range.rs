//! The sample values of black and white, for samples of more than 8 bits.

use crate::image::option_error::ImageOptionError;

/// The sample values that become 0 and 255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ValueRange {
    black: f64,
    white: f64,
}

impl ValueRange {
    /// Creates a range from the values of black and white.
    ///
    /// # Errors
    /// If the values are not finite or do not ascend.
    pub fn new([black, white]: [f64; 2]) -> Result<Self, ImageOptionError> {
        if black < white && (white - black).is_finite() {
            Ok(Self { black, white })
        } else {
            Err(ImageOptionError::ValueRange(black, white))
        }
    }

    /// The level of a sample: 0 to 255, rounded. Samples outside of the range become black or
    /// white.
    pub(super) fn level(self, sample: f64) -> u8 {
        // A cast to an integer clamps.
        ((sample - self.black) / (self.white - self.black) * 255.0).round() as u8
    }

    /// Whether the sample is in the range, apart from rounding.
    pub(super) fn contains(self, sample: f64) -> bool {
        let step = (self.white - self.black) / 255.0;
        sample >= self.black - step / 2.0 && sample <= self.white + step / 2.0
    }

    /// Whether the range is that of all values of 16 bits, of which the upper 8 bits are kept.
    fn is_all_16_bits(self) -> bool {
        self == Self {
            black: 0.0,
            white: 65535.0,
        }
    }
}

impl std::fmt::Display for ValueRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.black, self.white)
    }
}

/// The levels of 16-bit samples: those in the range, or their upper 8 bits if there is none.
pub(super) fn levels_of_16_bits(samples: &[u16], range: Option<ValueRange>) -> Vec<u8> {
    match range.filter(|range| !range.is_all_16_bits()) {
        Some(range) => samples
            .iter()
            .map(|&sample| range.level(sample.into()))
            .collect(),
        None => samples
            .iter()
            .map(|sample| sample.to_be_bytes()[0])
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn samples_become_levels_between_black_and_white() {
        let range = ValueRange::new([-1000.0, 1040.0]).unwrap();
        assert_eq!(
            [-2000.0, -1000.0, 20.0, 1040.0, 1e9].map(|sample| range.level(sample)),
            [0, 0, 128, 255, 255]
        );
        let twelve_bits = ValueRange::new([0.0, 4095.0]).ok();
        assert_eq!(
            levels_of_16_bits(&[0, 2048, 4095, 9999], twelve_bits),
            [0, 128, 255, 255]
        );
        let all = ValueRange::new([0.0, 65535.0]).ok();
        assert_eq!(levels_of_16_bits(&[511, 65535], all), [1, 255]);
        assert_eq!(levels_of_16_bits(&[511, 65535], None), [1, 255]);
    }

    #[test]
    fn range_must_ascend_between_finite_values() {
        for range in [
            [0.0, 0.0],
            [1.0, 0.0],
            [0.0, f64::NAN],
            [0.0, f64::INFINITY],
        ] {
            assert!(ValueRange::new(range).is_err(), "{range:?}");
        }
    }
}
