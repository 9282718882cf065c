//! A corruption as written, and its checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corruption::strength::Strength;
use crate::error::config_error::ConfigError;
use crate::image::jpeg_encoding::ChromaSubsampling;
use crate::image::pixel_format::{Channels, PixelFormat};

/// The options of one corruption. A record receives the same corruption in every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CorruptionSpec {
    /// The kind of corruption.
    pub noise: CorruptionKind,
    /// For `gaussian`: the standard deviation, or a range such as [0, 55] from which the value of
    /// each record is drawn. For pixels, in 8-bit steps at any scale of the values, so that 25
    /// means 25/255 of the range; for other columns, in the units of the column. For `blur`: the
    /// standard deviation of the kernel, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Strength>,
    /// For `gaussian`: the standard deviation, in pixels, of a Gaussian filter of the noise, or a
    /// range from which the value of each record is drawn. Neighboring pixels then have similar
    /// noise, as after demosaicing; its own standard deviation stays `sigma`. Default: independent
    /// noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Strength>,
    /// For `poisson`: the number of photons of a white pixel, or a range from which the value of
    /// each record is drawn. A smaller number gives more noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Strength>,
    /// For `masking` and `salt_and_pepper`: the probability, 0 to 1, that a value (for
    /// `salt_and_pepper`, a pixel) is changed; or a range from which the value of each record is
    /// drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Strength>,
    /// For `downscale`: the factor by which height and width are reduced, or a range from which the
    /// value of each record is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<Strength>,
    /// For `jpeg`: the quality, 1 to 100, or a range from which the value of each record is drawn.
    /// Default: [30, 95].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Strength>,
    /// For `jpeg`: the resolutions of color, from which that of each record is drawn. Default:
    /// ["4:2:0", "4:4:4"].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsampling: Option<Vec<ChromaSubsampling>>,
    /// For `watermark_text`: the text. Default: latentflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For watermarks: the opacity from 0 (invisible) to 1 (hides the image), or a range from which
    /// the value of each record is drawn. Default: 0.5; [0.2, 0.8] for `watermark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opacity: Option<Strength>,
    /// For `watermark`: the height of its letters in pixels, from 4 to 1000, or a range from which
    /// the value of each record is drawn, uniformly on a logarithmic scale. Watermarks are then
    /// words of letters that are drawn with strokes, or logos, of random color, angle and position,
    /// some with an outline, some tiled. Default: words of a font of dots or a grid, in white or
    /// black, whose size follows that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Strength>,
    /// The probability, above 0 and up to 1, that a record is corrupted; the others stay as they
    /// are. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

/// Kinds of corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorruptionKind {
    /// Adds normally distributed values. Pixels are not clipped to their range, as is usual in the
    /// training and comparison of denoisers.
    Gaussian,
    /// Replaces each value of a pixel by a Poisson distributed one with the same mean, as photons
    /// arrive at a sensor: bright pixels have more noise.
    Poisson,
    /// Sets values to 0, each independently of the others.
    Masking,
    /// Sets pixels to black or white in all channels; in columns without pixels, sets values to 0
    /// or 1.
    SaltAndPepper,
    /// Blurs the image with a Gaussian kernel.
    Blur,
    /// Reduces the image and enlarges it to its size again, both with Pillow's bicubic filter.
    Downscale,
    /// Compresses the image as a JPEG and decodes it. Pixels are rounded to bytes.
    Jpeg,
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

impl CorruptionKind {
    /// What the corruption does with pixels, which it requires; `None` if it takes any values.
    fn work_on_pixels(self) -> Option<&'static str> {
        match self {
            Self::Gaussian | Self::Masking | Self::SaltAndPepper => None,
            Self::Poisson => Some("to count photons of"),
            Self::Blur => Some("to blur"),
            Self::Downscale => Some("to reduce"),
            Self::Jpeg => Some("to compress"),
            Self::WatermarkText | Self::WatermarkGrid | Self::Watermark => {
                Some("to draw a watermark on")
            }
            Self::Gray => Some("to remove the color from"),
        }
    }

    fn is_watermark(self) -> bool {
        matches!(
            self,
            Self::WatermarkText | Self::WatermarkGrid | Self::Watermark
        )
    }
}

/// The default text of `watermark_text`.
pub(super) const TEXT: &str = "latentflow";

/// The default opacity of `watermark_text` and `watermark_grid`.
pub(super) const OPACITY: Strength = Strength::Fixed(0.5);

/// The default range of opacities of `watermark`.
pub(super) const OPACITIES: Strength = Strength::Range([0.2, 0.8]);

/// The default range of qualities of `jpeg`.
pub(super) const QUALITY: Strength = Strength::Range([30.0, 95.0]);

/// The default resolutions of color of `jpeg`.
pub(super) const SUBSAMPLING: [ChromaSubsampling; 2] =
    [ChromaSubsampling::Half, ChromaSubsampling::Full];

impl CorruptionSpec {
    /// A corruption without options.
    pub(crate) fn of(noise: CorruptionKind) -> Self {
        Self {
            noise,
            sigma: None,
            correlation: None,
            peak: None,
            rate: None,
            factor: None,
            quality: None,
            subsampling: None,
            text: None,
            opacity: None,
            size: None,
            probability: None,
        }
    }

    /// Sets the missing options to the defaults of their noise.
    #[must_use]
    pub(crate) fn with_defaults(mut self) -> Self {
        match self.noise {
            CorruptionKind::WatermarkText => {
                self.text.get_or_insert_with(|| TEXT.to_owned());
                self.opacity.get_or_insert(OPACITY);
            }
            CorruptionKind::WatermarkGrid => {
                self.opacity.get_or_insert(OPACITY);
            }
            CorruptionKind::Watermark => {
                self.opacity.get_or_insert(OPACITIES);
            }
            CorruptionKind::Jpeg => {
                self.quality.get_or_insert(QUALITY);
                self.subsampling.get_or_insert_with(|| SUBSAMPLING.to_vec());
            }
            _ => {}
        }
        self
    }

    /// The reason that tensors of `format` cannot take the corruption, as the object of "holds",
    /// and the option that requires others; `None` if they can.
    pub(crate) fn incompatibility(
        &self,
        format: Option<&PixelFormat>,
    ) -> Option<(&'static str, String)> {
        match (self.noise.work_on_pixels(), format) {
            (Some(work), None) => Some(("noise", format!("no pixels {work}"))),
            (None, None) if self.correlation.is_some() => Some((
                "correlation",
                "no pixels, whose noise could depend on that of their neighbors".to_owned(),
            )),
            (_, Some(format)) if self.noise == CorruptionKind::Gray => {
                let reason = "gray pixels, which have no color to remove; prepare them as rgb";
                (format.channels == Channels::Gray).then(|| ("noise", reason.to_owned()))
            }
            _ => None,
        }
    }

    pub(super) fn probability_fault(&self) -> Option<ConfigError> {
        let probability = self.probability.unwrap_or(1.0);
        let is_valid = probability > 0.0 && probability <= 1.0;
        (!is_valid).then(|| {
            let message = format!("must be above 0 and at most 1; met {probability}");
            ConfigError::new("probability", message)
        })
    }

    /// Faults of options that the selected noise does not use.
    pub(super) fn unused(&self) -> Vec<ConfigError> {
        use CorruptionKind::{Blur, Downscale, Gaussian, Jpeg, Masking, Poisson};
        let noise = self.noise;
        let is = |kinds: &[CorruptionKind]| kinds.contains(&noise);
        let options = [
            (
                "sigma",
                self.sigma.is_some(),
                is(&[Gaussian, Blur]),
                "gaussian noise and blur",
            ),
            (
                "correlation",
                self.correlation.is_some(),
                is(&[Gaussian]),
                "gaussian noise",
            ),
            ("peak", self.peak.is_some(), is(&[Poisson]), "poisson noise"),
            (
                "rate",
                self.rate.is_some(),
                is(&[Masking, CorruptionKind::SaltAndPepper]),
                "masking and salt_and_pepper",
            ),
            (
                "factor",
                self.factor.is_some(),
                is(&[Downscale]),
                "downscale",
            ),
            ("quality", self.quality.is_some(), is(&[Jpeg]), "jpeg"),
            (
                "subsampling",
                self.subsampling.is_some(),
                is(&[Jpeg]),
                "jpeg",
            ),
            (
                "text",
                self.text.is_some(),
                is(&[CorruptionKind::WatermarkText]),
                "watermark_text",
            ),
            (
                "opacity",
                self.opacity.is_some(),
                noise.is_watermark(),
                "watermarks",
            ),
            (
                "size",
                self.size.is_some(),
                is(&[CorruptionKind::Watermark]),
                "watermark",
            ),
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
}
