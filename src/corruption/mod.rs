//! Corruption of tensors: noise, masks, watermarks and the loss of colour, declared once for
//! serving and for training.

mod strength;
mod pixel_tensor;

pub use strength::Strength;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::image::pixel_format::{Channels, PixelFormat};
use crate::image::random_watermark::RandomWatermark;
use crate::image::watermark::Watermark;
use pixel_tensor::PixelTensorMut;

/// One corruption, as it is declared. The same record gets the same one in every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CorruptionSpec {
    /// What is done to the values.
    pub noise: CorruptionKind,
    /// For `gaussian`: the standard deviation, or a range as in [0, 55] from which each record
    /// draws its own. For pixels in steps of 8 bits, whatever their scale, so that 25 means 25/255
    /// of the range; for other columns in their own units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Strength>,
    /// For `masking` and `salt_and_pepper`: the probability that a value (a pixel) is changed, 0 to
    /// 1, or a range of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Strength>,
    /// For `watermark_text`: the text. Default: latentflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For watermarks: 0 is invisible, 1 hides what is below; or a range of it. Default: 0.5; [0.2,
    /// 0.8] for `watermark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opacity: Option<Strength>,
}

/// Kinds of corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorruptionKind {
    /// Adds independent normal values. Pixels are not clipped to their range, as denoisers are
    /// trained and compared.
    Gaussian,
    /// Sets values to 0, each on its own.
    Masking,
    /// Sets pixels to black or white, all channels together; values that are no pixels to 0 or 1.
    SaltAndPepper,
    /// Blends a text in white over the image, tiled.
    WatermarkText,
    /// Blends a white grid over the image.
    WatermarkGrid,
    /// Blends a watermark over the image that is drawn at random for each record: words of random
    /// letters or a grid, of any size, place, angle and spacing, light or dark. For networks that
    /// learn to remove what they have not seen.
    Watermark,
    /// Sets every channel to the pixel's luma (ITU-R BT.601): what a network that adds colour is
    /// given.
    Gray,
}

/// What a watermark of text says where no text is given.
const TEXT: &str = "latentflow";
/// How far watermarks hide what is below where no opacity is given.
const OPACITY: Strength = Strength::Fixed(0.5);
/// The same, for those that are drawn at random.
const OPACITIES: Strength = Strength::Range([0.2, 0.8]);

/// A corruption that was checked against what it is done to.
#[derive(Debug, Clone)]
pub struct Corruption {
    op: CorruptionOp,
    /// Whether the values are pixels, so that numbers count steps of 8 bits.
    pixels: bool,
}

/// What is done, with the numbers that it needs.
#[derive(Debug, Clone)]
enum CorruptionOp {
    Gaussian { sigma: Strength },
    Masking { rate: Strength },
    SaltAndPepper { rate: Strength },
    Watermark { mark: Watermark, opacity: Strength },
    RandomWatermark { opacity: Strength },
    Gray,
}

impl CorruptionSpec {
    /// The corruption of tensors whose pixels stand as `format` says; `None` for values that are no
    /// pixels.
    ///
    /// # Errors
    /// Every fault of [`CorruptionSpec::faults`], and one at `noise` where it does not fit such
    /// tensors.
    pub fn plan(&self, format: Option<&PixelFormat>) -> Result<Corruption, Vec<ConfigError>> {
        let mut faults = self.unused();
        let op = self.op().map_err(|found| faults.extend(found));
        faults.extend(
            self.unfit(format)
                .map(|what| ConfigError::new("noise", format!("the input holds {what}"))),
        );
        match op {
            Ok(op) if faults.is_empty() => Ok(Corruption {
                op,
                pixels: format.is_some(),
            }),
            _ => Err(faults),
        }
    }

    /// What is wrong with the options, whatever they are used on.
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.unused();
        faults.extend(self.op().err().unwrap_or_default());
        faults
    }

    /// The same with what its noise takes for options that are left out.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        let (text, opacity) = match self.noise {
            CorruptionKind::WatermarkText => (Some(TEXT.to_owned()), Some(OPACITY)),
            CorruptionKind::WatermarkGrid => (None, Some(OPACITY)),
            CorruptionKind::Watermark => (None, Some(OPACITIES)),
            CorruptionKind::Gaussian
            | CorruptionKind::Masking
            | CorruptionKind::SaltAndPepper
            | CorruptionKind::Gray => (None, None),
        };
        Self {
            text: self.text.or(text),
            opacity: self.opacity.or(opacity),
            ..self
        }
    }

    /// What tensors of this format lack for such noise, as the object of "holds"; `None` where they
    /// lack nothing.
    pub fn unfit(&self, format: Option<&PixelFormat>) -> Option<&'static str> {
        match (self.noise, format) {
            (
                CorruptionKind::WatermarkText
                | CorruptionKind::WatermarkGrid
                | CorruptionKind::Watermark,
                None,
            ) => Some("no pixels to draw a watermark on"),
            (CorruptionKind::Gray, None) => Some("no pixels to take the colour from"),
            (
                CorruptionKind::Gray,
                Some(PixelFormat {
                    channels: Channels::Gray,
                    ..
                }),
            ) => Some("gray pixels, which have no colour to take; prepare them as rgb"),
            _ => None,
        }
    }

    /// Faults for options that the chosen noise does not use.
    fn unused(&self) -> Vec<ConfigError> {
        let watermark = matches!(
            self.noise,
            CorruptionKind::WatermarkText
                | CorruptionKind::WatermarkGrid
                | CorruptionKind::Watermark
        );
        let share = matches!(
            self.noise,
            CorruptionKind::Masking | CorruptionKind::SaltAndPepper
        );
        let options = [
            (
                "sigma",
                self.sigma.is_some(),
                self.noise == CorruptionKind::Gaussian,
                "gaussian noise",
            ),
            (
                "rate",
                self.rate.is_some(),
                share,
                "masking and salt_and_pepper",
            ),
            (
                "text",
                self.text.is_some(),
                self.noise == CorruptionKind::WatermarkText,
                "watermark_text",
            ),
            ("opacity", self.opacity.is_some(), watermark, "watermarks"),
        ];
        let idle = options
            .into_iter()
            .filter(|(_, given, used, _)| *given && !used);
        idle.map(|(key, _, _, owner)| {
            ConfigError::new(key, format!("is for {owner} only; leave it out"))
        })
        .collect()
    }

    fn op(&self) -> Result<CorruptionOp, Vec<ConfigError>> {
        let one = |fault| vec![fault];
        let rate = || {
            let missing = || {
                ConfigError::new(
                    "rate",
                    "is missing; the share of values to change, such as 0.1",
                )
            };
            self.rate.ok_or_else(missing)?.within("rate", 0.0, 1.0)
        };
        let opacity = |default| self.opacity.unwrap_or(default).within("opacity", 0.0, 1.0);
        match self.noise {
            CorruptionKind::Gaussian => {
                let missing = || {
                    ConfigError::new(
                        "sigma",
                        "is missing; the standard deviation, such as 25 for pixels",
                    )
                };
                let sigma = self
                    .sigma
                    .ok_or_else(missing)
                    .and_then(|sigma| sigma.within("sigma", 0.0, f64::INFINITY));
                Ok(CorruptionOp::Gaussian {
                    sigma: sigma.map_err(one)?,
                })
            }
            CorruptionKind::Masking => Ok(CorruptionOp::Masking {
                rate: rate().map_err(one)?,
            }),
            CorruptionKind::SaltAndPepper => Ok(CorruptionOp::SaltAndPepper {
                rate: rate().map_err(one)?,
            }),
            CorruptionKind::WatermarkText => {
                let mark = Watermark::text(self.text.as_deref().unwrap_or(TEXT));
                let mark = mark.map_err(|message| ConfigError::new("text", message));
                match (mark, opacity(OPACITY)) {
                    (Ok(mark), Ok(opacity)) => Ok(CorruptionOp::Watermark { mark, opacity }),
                    (mark, opacity) => Err(mark.err().into_iter().chain(opacity.err()).collect()),
                }
            }
            CorruptionKind::WatermarkGrid => {
                let opacity = opacity(OPACITY).map_err(one)?;
                Ok(CorruptionOp::Watermark {
                    mark: Watermark::Grid,
                    opacity,
                })
            }
            CorruptionKind::Watermark => Ok(CorruptionOp::RandomWatermark {
                opacity: opacity(OPACITIES).map_err(one)?,
            }),
            CorruptionKind::Gray => Ok(CorruptionOp::Gray),
        }
    }
}

impl Corruption {
    /// Corrupts one record in place. `size` is the height and width of an image; values that are no
    /// pixels are an image of height 1. `format` is the one that was planned with; `seed` is the
    /// record's own, from its identity.
    ///
    /// Numbers are drawn in the order of channels, then pixels, so that the noise does not depend
    /// on the layout.
    pub fn apply(
        &self,
        values: &mut [f32],
        size: (usize, usize),
        format: Option<&PixelFormat>,
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut canvas = PixelTensorMut::new(values, size, format);
        match &self.op {
            CorruptionOp::Gaussian { sigma } => canvas.add_normal(sigma.draw(&mut rng), &mut rng),
            CorruptionOp::Masking { rate } => canvas.mask(rate.draw(&mut rng), &mut rng),
            CorruptionOp::SaltAndPepper { rate } => {
                canvas.salt_and_pepper(rate.draw(&mut rng), &mut rng)
            }
            CorruptionOp::Watermark { mark, opacity } => {
                let opacity = opacity.draw(&mut rng);
                mark.draw(size.0, size.1, rng.random(), |pixel| {
                    canvas.blend(pixel, 1.0, opacity)
                });
            }
            CorruptionOp::RandomWatermark { opacity } => {
                let opacity = opacity.draw(&mut rng);
                let mark = RandomWatermark::draw(size.0, size.1, &mut rng);
                mark.paint(size.0, size.1, |pixel, share| {
                    canvas.blend(pixel, mark.shade(), opacity * share)
                });
            }
            CorruptionOp::Gray => canvas.grayscale(),
        }
    }

    /// What is done, in a phrase: `gaussian noise, sigma [0, 55]/255`.
    pub fn summary(&self) -> String {
        match &self.op {
            CorruptionOp::Gaussian { sigma } if self.pixels => {
                format!("gaussian noise, sigma {sigma}/255")
            }
            CorruptionOp::Gaussian { sigma } => format!("gaussian noise, sigma {sigma}"),
            CorruptionOp::Masking { rate } => format!("sets {rate} of the values to 0"),
            CorruptionOp::SaltAndPepper { rate } => {
                format!("salt and pepper on {rate} of the values")
            }
            CorruptionOp::Watermark { opacity, .. } => format!("a watermark of opacity {opacity}"),
            CorruptionOp::RandomWatermark { opacity } => {
                format!("a random watermark of opacity {opacity}")
            }
            CorruptionOp::Gray => "takes the colour away".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
