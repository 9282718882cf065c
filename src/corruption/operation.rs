//! The operation of a corruption with its checked parameters.

use rand::{Rng, RngCore};

use crate::corruption::Strength;
use crate::corruption::pixel_tensor::PixelTensorMut;
use crate::image::ImageError;
use crate::image::drawn_watermark::DrawnWatermark;
use crate::image::jpeg_encoding::{ChromaSubsampling, JpegOptions};
use crate::image::random_watermark::RandomWatermark;
use crate::image::watermark::Watermark;

/// The operation with its checked parameters.
#[derive(Debug, Clone)]
pub(super) enum CorruptionOp {
    Gaussian {
        sigma: Strength,
        correlation: Option<Strength>,
    },
    Poisson {
        peak: Strength,
    },
    Masking {
        rate: Strength,
    },
    SaltAndPepper {
        rate: Strength,
    },
    Blur {
        sigma: Strength,
    },
    Downscale {
        factor: Strength,
    },
    Jpeg {
        quality: Strength,
        subsampling: Vec<ChromaSubsampling>,
    },
    Watermark {
        mark: Watermark,
        opacity: Strength,
    },
    RandomWatermark {
        opacity: Strength,
    },
    DrawnWatermark {
        opacity: Strength,
        size: Strength,
    },
    Gray,
}

impl CorruptionOp {
    /// Corrupts a record with numbers from `rng`.
    ///
    /// # Errors
    /// If the image cannot be a JPEG.
    pub(super) fn apply(
        &self,
        tensor: &mut PixelTensorMut<'_>,
        rng: &mut impl RngCore,
    ) -> Result<(), ImageError> {
        let (height, width) = tensor.size();
        match self {
            Self::Gaussian {
                sigma,
                correlation: None,
            } => tensor.add_normal(sigma.draw(rng), rng),
            Self::Gaussian {
                sigma,
                correlation: Some(correlation),
            } => {
                let sigma = sigma.draw(rng);
                tensor.add_correlated(sigma, correlation.draw(rng), rng);
            }
            Self::Poisson { peak } => tensor.draw_photons(peak.draw(rng), rng),
            Self::Masking { rate } => tensor.mask(rate.draw(rng), rng),
            Self::SaltAndPepper { rate } => tensor.salt_and_pepper(rate.draw(rng), rng),
            Self::Blur { sigma } => tensor.blur(sigma.draw(rng)),
            Self::Downscale { factor } => tensor.downscale(factor.draw(rng)),
            Self::Jpeg {
                quality,
                subsampling,
            } => {
                let quality = quality.draw(rng).round() as u8;
                let drawn = match subsampling.as_slice() {
                    [one] => *one,
                    several => several[rng.random_range(0..several.len())],
                };
                tensor.compress(JpegOptions {
                    quality,
                    subsampling: drawn,
                })?;
            }
            Self::Watermark { mark, opacity } => {
                let opacity = opacity.draw(rng);
                mark.draw(height, width, rng.random(), |pixel| {
                    tensor.blend(pixel, 1.0, opacity)
                });
            }
            Self::RandomWatermark { opacity } => {
                let opacity = opacity.draw(rng);
                let mark = RandomWatermark::draw(height, width, rng);
                mark.paint(height, width, |pixel, share| {
                    tensor.blend(pixel, mark.shade(), opacity * share)
                });
            }
            Self::DrawnWatermark { opacity, size } => {
                let (opacity, size) = (opacity.draw(rng), size.draw_scale(rng));
                let mark = DrawnWatermark::draw(height, width, size, rng);
                mark.paint(height, width, |pixel, color, share| {
                    tensor.blend_color(pixel, color, opacity * share)
                });
            }
            Self::Gray => tensor.grayscale(),
        }
        Ok(())
    }

    /// A description in one phrase. Sigma counts 8-bit steps if the values are `pixels`.
    pub(super) fn summary(&self, pixels: bool) -> String {
        match self {
            Self::Gaussian { sigma, correlation } => {
                let unit = if pixels { "/255" } else { "" };
                let filter = correlation.map(|given| format!(", correlated over {given} pixels"));
                let filter = filter.unwrap_or_default();
                format!("gaussian noise, sigma {sigma}{unit}{filter}")
            }
            Self::Poisson { peak } => format!("Poisson noise, {peak} photons for white"),
            Self::Masking { rate } => format!("sets {rate} of the values to 0"),
            Self::SaltAndPepper { rate } => format!("salt and pepper on {rate} of the values"),
            Self::Blur { sigma } => format!("Gaussian blur, sigma {sigma} pixels"),
            Self::Downscale { factor } => format!("reduction by {factor} and enlargement"),
            Self::Jpeg {
                quality,
                subsampling,
            } => {
                let names: Vec<&str> = subsampling.iter().map(|one| one.as_str()).collect();
                format!("JPEG of quality {quality}, {}", names.join(" or "))
            }
            Self::Watermark { opacity, .. } => format!("a watermark of opacity {opacity}"),
            Self::RandomWatermark { opacity } => {
                format!("a random watermark of opacity {opacity}")
            }
            Self::DrawnWatermark { opacity, size } => {
                format!("a drawn watermark of {size} pixels and opacity {opacity}")
            }
            Self::Gray => "removes the color".to_owned(),
        }
    }
}
