//! The format of pixels in a tensor (channels, layout, range, normalization), stored in the
//! metadata of the column.

use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::option_error::ImageOptionError;

/// The channels of a pixel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green and blue.
    #[default]
    Rgb,
    /// Blue, green and red, the order of OpenCV and of models that were converted from Caffe.
    Bgr,
    /// Luma (ITU-R BT.601).
    Gray,
}

impl Channels {
    /// The number of values of a pixel.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }

    /// The channels of decoded pixels, which [`PixelFormat`] puts into their order in tensors.
    pub(crate) fn decoded(self) -> Self {
        match self {
            Self::Rgb | Self::Bgr => Self::Rgb,
            Self::Gray => Self::Gray,
        }
    }
}

/// The order of the dimensions of a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TensorLayout {
    /// Planes: channel, height, width.
    #[default]
    Nchw,
    /// Interleaved: height, width, channel.
    Nhwc,
}

/// The conversion of the bytes of an image to the values of a tensor:
/// `value = (range[0] + byte / 255 * (range[1] - range[0]) - mean[channel]) / std[channel]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PixelFormat {
    /// The channels of a pixel.
    pub channels: Channels,
    /// The order of the dimensions.
    pub layout: TensorLayout,
    /// The range to which bytes 0..255 are mapped linearly.
    pub range: [f32; 2],
    /// The mean of each channel, which is subtracted; empty to subtract nothing.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, by which values are divided; empty for no division.
    pub std: Vec<f32>,
}

impl Default for PixelFormat {
    fn default() -> Self {
        Self {
            channels: Channels::Rgb,
            layout: TensorLayout::Nchw,
            range: [0.0, 1.0],
            mean: vec![],
            std: vec![],
        }
    }
}

/// The key of a column's metadata that holds its [`PixelFormat`], as JSON.
const METADATA: &str = "latentflow.pixels";

impl PixelFormat {
    /// The shape of the tensor of an image, without the batch dimension.
    pub fn shape(&self, height: usize, width: usize) -> Vec<usize> {
        match self.layout {
            TensorLayout::Nchw => vec![self.channels.count(), height, width],
            TensorLayout::Nhwc => vec![height, width, self.channels.count()],
        }
    }

    /// The height and width of an image with this tensor shape; `None` if the shape does not match
    /// the format.
    pub fn size(&self, shape: &[usize]) -> Option<(usize, usize)> {
        let (channels, height, width) = match (self.layout, shape) {
            (TensorLayout::Nchw, &[channels, height, width])
            | (TensorLayout::Nhwc, &[height, width, channels]) => (channels, height, width),
            _ => return None,
        };
        (channels == self.channels.count()).then_some((height, width))
    }

    /// The index of a value in a tensor of `pixels` pixels, which are counted row by row.
    pub fn index(&self, channel: usize, pixel: usize, pixels: usize) -> usize {
        match self.layout {
            TensorLayout::Nchw => channel * pixels + pixel,
            TensorLayout::Nhwc => pixel * self.channels.count() + channel,
        }
    }

    /// The index in a decoded pixel, gray or RGB, of a channel of the tensor. The reverse mapping is
    /// the same.
    pub(crate) fn sample_index(&self, channel: usize) -> usize {
        match self.channels {
            Channels::Rgb | Channels::Gray => channel,
            Channels::Bgr => 2 - channel,
        }
    }

    /// The scale and offset of a channel: `value = byte * scale + offset`.
    pub fn affine(&self, channel: usize) -> (f32, f32) {
        let mean = self.mean.get(channel).copied().unwrap_or(0.0);
        let std = self.std.get(channel).copied().unwrap_or(1.0);
        (
            (self.range[1] - self.range[0]) / 255.0 / std,
            (self.range[0] - mean) / std,
        )
    }

    /// Whether both formats convert an image to the same values, even if their options differ.
    pub fn equals(&self, other: &Self) -> bool {
        let affine =
            (0..self.channels.count()).all(|channel| self.affine(channel) == other.affine(channel));
        affine && (self.channels, self.layout) == (other.channels, other.layout)
    }

    /// A description in one phrase, such as `rgb nchw in [0, 1], mean [0.5], std [0.5]`.
    pub fn describe(&self) -> String {
        let channels = match self.channels {
            Channels::Rgb => "rgb",
            Channels::Bgr => "bgr",
            Channels::Gray => "gray",
        };
        let layout = match self.layout {
            TensorLayout::Nchw => "nchw",
            TensorLayout::Nhwc => "nhwc",
        };
        let list = |name: &str, values: &[f32]| match values {
            [] => String::new(),
            values => format!(", {name} {values:?}"),
        };
        let [low, high] = self.range;
        format!(
            "{channels} {layout} in [{low}, {high}]{}{}",
            list("mean", &self.mean),
            list("std", &self.std)
        )
    }

    /// Checks that the format is valid.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> Result<(), ImageOptionError> {
        let count = self.channels.count();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if !values.is_empty() && values.len() != count {
                return Err(ImageOptionError::ValueCount {
                    name,
                    count: values.len(),
                    channels: count,
                });
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(ImageOptionError::NotFinite(name));
            }
        }
        if self.std.iter().any(|&std| std <= 0.0) {
            return Err(ImageOptionError::StdNotPositive);
        }
        if !(self.range[0] < self.range[1] && self.range.iter().all(|end| end.is_finite())) {
            return Err(ImageOptionError::Range(self.range));
        }
        Ok(())
    }

    /// Reads the format from a column's metadata.
    pub(crate) fn from_field(field: &Field) -> Option<Self> {
        serde_json::from_str(field.metadata().get(METADATA)?).ok()
    }

    /// Adds the format to the metadata of the field.
    #[must_use]
    pub fn annotate(&self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        // A struct of numbers and strings can always be serialized to JSON.
        metadata.insert(
            METADATA.to_owned(),
            serde_json::to_string(self).unwrap_or_default(),
        );
        field.with_metadata(metadata)
    }
}
