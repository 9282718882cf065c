//! A corruption as written, and its checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corruption::strength::Strength;
use crate::corruption::{Corruption, CorruptionOp};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::pixel_format::{Channels, PixelFormat};
use crate::image::watermark::Watermark;

/// The options of one corruption. A record receives the same corruption in every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CorruptionSpec {
    /// The kind of corruption.
    pub noise: CorruptionKind,
    /// For `gaussian`: the standard deviation, or a range such as [0, 55] from which the value of
    /// each record is drawn. For pixels, in 8-bit steps at any scale of the values, so that 25
    /// means 25/255 of the range; for other columns, in the units of the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Strength>,
    /// For `masking` and `salt_and_pepper`: the probability, 0 to 1, that a value (for
    /// `salt_and_pepper`, a pixel) is changed; or a range from which the value of each record is
    /// drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Strength>,
    /// For `watermark_text`: the text. Default: latentflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For watermarks: the opacity from 0 (invisible) to 1 (hides the image), or a range from which
    /// the value of each record is drawn. Default: 0.5; [0.2, 0.8] for `watermark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opacity: Option<Strength>,
}

/// Kinds of corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorruptionKind {
    /// Adds independent normally distributed values. Pixels are not clipped to their range, as is
    /// usual in the training and comparison of denoisers.
    Gaussian,
    /// Sets values to 0, each independently of the others.
    Masking,
    /// Sets pixels to black or white in all channels; in columns without pixels, sets values to 0
    /// or 1.
    SaltAndPepper,
    /// Blends a white text over the image, in repeated lines.
    WatermarkText,
    /// Blends a white grid over the image.
    WatermarkGrid,
    /// Blends a random watermark over the image, different for each record: words of random letters
    /// or a grid, with random size, position, angle, spacing and shade. For networks that learn to
    /// remove unseen watermarks.
    Watermark,
    /// Sets every channel to the luma of the pixel (ITU-R BT.601). For networks that learn to
    /// colorize.
    Gray,
}

/// The default text of `watermark_text`.
const TEXT: &str = "latentflow";

/// The default opacity of `watermark_text` and `watermark_grid`.
const OPACITY: Strength = Strength::Fixed(0.5);

/// The default range of opacities of `watermark`.
const OPACITIES: Strength = Strength::Range([0.2, 0.8]);

impl CorruptionSpec {
    /// Checks the options for tensors with pixels of `format`, or, if `format` is `None`, for
    /// tensors without pixels.
    ///
    /// # Errors
    /// Every fault of [`CorruptionSpec::faults`], and one at `noise` if the corruption is not
    /// applicable to such tensors.
    pub fn plan(&self, format: Option<&PixelFormat>) -> Result<Corruption, Vec<ConfigError>> {
        let mut faults = self.unused();
        let op = faults.record_all(self.op());
        faults.extend(
            self.incompatibility(format)
                .map(|reason| ConfigError::new("noise", format!("the input holds {reason}"))),
        );
        match op {
            Some(op) if faults.is_empty() => Ok(Corruption {
                op,
                pixels: format.is_some(),
            }),
            _ => Err(faults),
        }
    }

    /// The faults of the options that do not depend on the input.
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.unused();
        faults.extend(self.op().err().unwrap_or_default());
        faults
    }

    /// Sets the missing options to the defaults of their noise.
    #[must_use]
    pub(crate) fn with_defaults(self) -> Self {
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

    /// The reason that tensors of `format` cannot take the corruption, as the object of "holds";
    /// `None` if they can.
    pub(crate) fn incompatibility(&self, format: Option<&PixelFormat>) -> Option<&'static str> {
        match (self.noise, format) {
            (
                CorruptionKind::WatermarkText
                | CorruptionKind::WatermarkGrid
                | CorruptionKind::Watermark,
                None,
            ) => Some("no pixels to draw a watermark on"),
            (CorruptionKind::Gray, None) => Some("no pixels to remove the color from"),
            (
                CorruptionKind::Gray,
                Some(PixelFormat {
                    channels: Channels::Gray,
                    ..
                }),
            ) => Some("gray pixels, which have no color to remove; prepare them as rgb"),
            _ => None,
        }
    }

    /// Faults of options that the selected noise does not use.
    fn unused(&self) -> Vec<ConfigError> {
        let has_opacity = matches!(
            self.noise,
            CorruptionKind::WatermarkText
                | CorruptionKind::WatermarkGrid
                | CorruptionKind::Watermark
        );
        let has_rate = matches!(
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
                has_rate,
                "masking and salt_and_pepper",
            ),
            (
                "text",
                self.text.is_some(),
                self.noise == CorruptionKind::WatermarkText,
                "watermark_text",
            ),
            ("opacity", self.opacity.is_some(), has_opacity, "watermarks"),
        ];
        let unused = options
            .into_iter()
            .filter(|(_, given, used, _)| *given && !used);
        unused
            .map(|(key, _, _, owner)| {
                ConfigError::new(key, format!("is for {owner} only; leave it out"))
            })
            .collect()
    }

    pub(super) fn op(&self) -> Result<CorruptionOp, Vec<ConfigError>> {
        let one = |fault| vec![fault];
        let rate = || {
            let missing = || {
                ConfigError::new(
                    "rate",
                    "is missing; expected the fraction of values to change, such as 0.1",
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
                        "is missing; expected the standard deviation, such as 25 for pixels",
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
                let mark = mark.map_err(|error| ConfigError::new("text", error.to_string()));
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
