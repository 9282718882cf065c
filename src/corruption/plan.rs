//! The checks of a corruption as written, and its operation.

use crate::corruption::operation::CorruptionOp;
use crate::corruption::spec::{
    CorruptionKind, CorruptionSpec, OPACITIES, OPACITY, QUALITY, SUBSAMPLING, TEXT,
};
use crate::corruption::{Corruption, Strength};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::pixel_format::PixelFormat;
use crate::image::watermark::Watermark;

/// The largest standard deviation of a blur, in pixels.
const MAX_BLUR: f64 = 64.0;

/// The largest standard deviation of the filter of correlated noise, in pixels.
const MAX_CORRELATION: f64 = 16.0;

/// The largest factor of a reduction.
const MAX_FACTOR: f64 = 64.0;

/// The smallest and the largest height of the letters of a watermark, in pixels.
const MIN_SIZE: f64 = 4.0;
const MAX_SIZE: f64 = 1000.0;

/// The largest number of photons of white, at which the noise is far below an 8-bit step.
const MAX_PEAK: f64 = 1e6;

impl CorruptionSpec {
    /// Checks the options for tensors with pixels of `format`, or, if `format` is `None`, for
    /// tensors without pixels.
    ///
    /// # Errors
    /// Every fault of [`CorruptionSpec::faults`], and one at `noise` if the corruption is not
    /// applicable to such tensors.
    pub fn plan(&self, format: Option<&PixelFormat>) -> Result<Corruption, Vec<ConfigError>> {
        let mut faults = self.unused();
        faults.extend(self.probability_fault());
        let op = faults.record_all(self.op());
        faults.extend(
            self.incompatibility(format)
                .map(|(key, reason)| ConfigError::new(key, format!("the input holds {reason}"))),
        );
        match op {
            Some(op) if faults.is_empty() => Ok(Corruption {
                op,
                pixels: format.is_some(),
                probability: self.probability.unwrap_or(1.0),
            }),
            _ => Err(faults),
        }
    }

    /// The faults of the options that do not depend on the input.
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.unused();
        faults.extend(self.probability_fault());
        faults.extend(self.op().err().unwrap_or_default());
        faults
    }

    /// Checks the options of the selected noise, and sets the missing ones to their defaults.
    ///
    /// # Errors
    /// One fault per option.
    fn op(&self) -> Result<CorruptionOp, Vec<ConfigError>> {
        let within = |key, value: Option<Strength>, low, high, expected: &str| {
            let missing = || ConfigError::new(key, format!("is missing; expected {expected}"));
            value.ok_or_else(missing)?.within(key, low, high)
        };
        let rate = || {
            let expected = "the fraction of values to change, such as 0.1";
            within("rate", self.rate, 0.0, 1.0, expected)
        };
        let opacity = |default: Strength| {
            let given = self.opacity.unwrap_or(default);
            given.within("opacity", 0.0, 1.0)
        };
        let one = |fault| vec![fault];
        match self.noise {
            CorruptionKind::Gaussian => {
                let expected = "the standard deviation, such as 25 for pixels";
                let sigma = within("sigma", self.sigma, 0.0, f64::INFINITY, expected);
                let correlation = self
                    .correlation
                    .map(|given| given.within("correlation", 0.0, MAX_CORRELATION))
                    .transpose();
                match (sigma, correlation) {
                    (Ok(sigma), Ok(correlation)) => {
                        Ok(CorruptionOp::Gaussian { sigma, correlation })
                    }
                    (sigma, correlation) => {
                        Err(sigma.err().into_iter().chain(correlation.err()).collect())
                    }
                }
            }
            CorruptionKind::Poisson => {
                let expected = "the number of photons of a white pixel, such as 30";
                let peak = within("peak", self.peak, 1.0, MAX_PEAK, expected);
                peak.map(|peak| CorruptionOp::Poisson { peak }).map_err(one)
            }
            CorruptionKind::Masking => rate()
                .map(|rate| CorruptionOp::Masking { rate })
                .map_err(one),
            CorruptionKind::SaltAndPepper => rate()
                .map(|rate| CorruptionOp::SaltAndPepper { rate })
                .map_err(one),
            CorruptionKind::Blur => {
                let expected = "the standard deviation of the blur in pixels, such as 1.5";
                let sigma = within("sigma", self.sigma, 0.0, MAX_BLUR, expected);
                sigma.map(|sigma| CorruptionOp::Blur { sigma }).map_err(one)
            }
            CorruptionKind::Downscale => {
                let expected = "the factor of the reduction, such as 2";
                let factor = within("factor", self.factor, 1.0, MAX_FACTOR, expected);
                factor
                    .map(|factor| CorruptionOp::Downscale { factor })
                    .map_err(one)
            }
            CorruptionKind::Jpeg => {
                let subsampling = self.subsampling.clone().unwrap_or(SUBSAMPLING.to_vec());
                let quality = self.quality.unwrap_or(QUALITY);
                let quality = quality.within("quality", 1.0, 100.0).map_err(one)?;
                if subsampling.is_empty() {
                    let message = "lists no value; expected [\"4:2:0\"], [\"4:4:4\"] or both";
                    return Err(vec![ConfigError::new("subsampling", message)]);
                }
                Ok(CorruptionOp::Jpeg {
                    quality,
                    subsampling,
                })
            }
            CorruptionKind::WatermarkText => {
                let mark = Watermark::text(self.text.as_deref().unwrap_or(TEXT));
                let mark = mark.map_err(|error| ConfigError::new("text", error.to_string()));
                match (mark, opacity(OPACITY)) {
                    (Ok(mark), Ok(opacity)) => Ok(CorruptionOp::Watermark { mark, opacity }),
                    (mark, opacity) => Err(mark.err().into_iter().chain(opacity.err()).collect()),
                }
            }
            CorruptionKind::WatermarkGrid => {
                let mark = Watermark::Grid;
                let opacity = opacity(OPACITY).map_err(one)?;
                Ok(CorruptionOp::Watermark { mark, opacity })
            }
            CorruptionKind::Watermark => self.random_watermark(opacity(OPACITIES)),
            CorruptionKind::Gray => Ok(CorruptionOp::Gray),
        }
    }

    /// Checks the options of a random watermark.
    fn random_watermark(
        &self,
        opacity: Result<Strength, ConfigError>,
    ) -> Result<CorruptionOp, Vec<ConfigError>> {
        let size = self
            .size
            .map(|size| size.within("size", MIN_SIZE, MAX_SIZE));
        match (opacity, size.transpose()) {
            (Ok(opacity), Ok(None)) => Ok(CorruptionOp::RandomWatermark { opacity }),
            (Ok(opacity), Ok(Some(size))) => Ok(CorruptionOp::DrawnWatermark { opacity, size }),
            (opacity, size) => Err(opacity.err().into_iter().chain(size.err()).collect()),
        }
    }
}
