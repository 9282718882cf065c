//! The layers of a network: their shapes, parameters and sizes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::train::normalization::Normalization;
use crate::train::record_shape::RecordShape;

/// Activations: element-wise functions between layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The identity: `x`.
    Linear,
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// `x` above 0, `0.01 x` below.
    LeakyRelu,
    /// `x` above 0, `exp(x) - 1` below (Clevert, Unterthiner and Hochreiter, 2015).
    Elu,
    /// `x sigmoid(x)` (Hendrycks and Gimpel, 2016).
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// The slope of [`Activation::LeakyRelu`] below 0.
pub(crate) const LEAK: f32 = 0.01;

impl Activation {
    /// Returns the name used in training files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Relu => "relu",
            Self::LeakyRelu => "leaky_relu",
            Self::Elu => "elu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }
}

/// A two-dimensional convolution, with zero padding of its input and a bias per output channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvolutionSpec {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels between adjacent positions of the kernel.
    pub stride: usize,
    /// Zeros on each side; for a transposed convolution, the pixels that are cut off each side.
    pub padding: usize,
}

/// The range of the logarithm of the variance of a [`LayerSpec::Sample`]: values outside are
/// clamped, as in latent diffusion (Rombach and others, 2022).
pub(crate) const LOGVAR_RANGE: [f32; 2] = [-30.0, 20.0];

/// One step of a network. Shapes are per record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LayerSpec {
    /// `x scale + offset` with constants that are not learned, used to standardize the input.
    Affine {
        /// Factor.
        scale: f32,
        /// Summand.
        offset: f32,
    },
    /// `[inputs] -> [outputs]`: `x W + b`, W of `[inputs, outputs]`.
    Dense {
        /// Input values.
        inputs: usize,
        /// Output values.
        outputs: usize,
    },
    /// `[inputs, h, w] -> [outputs, h', w']`, W of `[outputs, inputs, kernel, kernel]`;
    /// `h' = (h + 2 padding - kernel) / stride + 1`.
    Conv(ConvolutionSpec),
    /// A transposed convolution, W of `[inputs, outputs, kernel, kernel]`; `h' = (h - 1) stride - 2
    /// padding + kernel`.
    ConvTranspose(ConvolutionSpec),
    /// An activation.
    Activate(Activation),
    /// `[c, h, w] -> [c h w]`.
    Flatten,
    /// `[c h w] -> [c, h, w]`.
    Unflatten {
        /// Channels, height, width.
        shape: [usize; 3],
    },
    /// `[c, h, w] -> [4 c, h / 2, w / 2]`: each square of four pixels becomes one pixel with four
    /// times the channels.
    SpaceToDepth,
    /// The inverse of [`LayerSpec::SpaceToDepth`].
    DepthToSpace,
    /// A normalization, followed by a learned factor and a learned summand for each channel, or for
    /// each value of a flat record.
    Normalize {
        /// The values that have one mean and one variance.
        over: Normalization,
        /// Channels of an image, or values of a flat record.
        channels: usize,
    },
    /// `[2 code] -> [code]`: the first half is the mean of the code, the second half the logarithm
    /// of its variance. The training draws the code from this normal distribution; the model uses
    /// the mean.
    Sample {
        /// Number of values of the code.
        code: usize,
    },
    /// Stores the value for the matching [`LayerSpec::AddSkip`] or [`LayerSpec::ConcatSkip`]; pairs
    /// nest.
    SaveSkip,
    /// Adds the value that was stored last.
    AddSkip,
    /// Appends the channels of the value that was stored last.
    ConcatSkip,
}

impl LayerSpec {
    /// Returns the shape of a record after this step; `kept` holds the shapes of the stored values.
    ///
    /// # Errors
    /// Describes why the shape does not match.
    pub(super) fn after(
        &self,
        shape: RecordShape,
        kept: &mut Vec<RecordShape>,
    ) -> Result<RecordShape, String> {
        match (*self, shape) {
            (Self::Affine { .. } | Self::Activate(_), shape) => Ok(shape),
            (Self::Dense { inputs, outputs }, RecordShape::Flat(len)) if len == inputs => {
                Ok(RecordShape::Flat(outputs))
            }
            (Self::Conv(conv), RecordShape::Planes { channels, size })
                if channels == conv.inputs =>
            {
                let size = size.map(|(h, w)| Some((conv.shrink(h)?, conv.shrink(w)?)));
                planes(conv.outputs, size, "the image is smaller than the kernel")
            }
            (Self::ConvTranspose(conv), RecordShape::Planes { channels, size })
                if channels == conv.inputs =>
            {
                let size = size.map(|(h, w)| Some((conv.grow(h)?, conv.grow(w)?)));
                planes(conv.outputs, size, "the padding cuts off all pixels")
            }
            (Self::Flatten, RecordShape::Planes { size: Some(_), .. }) => {
                Ok(RecordShape::Flat(shape.len().unwrap_or_default()))
            }
            (Self::Flatten, RecordShape::Planes { .. }) => {
                Err("images of any size cannot be flattened".to_owned())
            }
            (
                Self::Unflatten {
                    shape: [channels, height, width],
                },
                RecordShape::Flat(len),
            ) if channels * height * width == len => Ok(RecordShape::Planes {
                channels,
                size: Some((height, width)),
            }),
            (Self::SpaceToDepth, RecordShape::Planes { channels, size }) => {
                let halves =
                    |(h, w): (usize, usize)| (h % 2 == 0 && w % 2 == 0).then_some((h / 2, w / 2));
                planes(
                    4 * channels,
                    size.map(halves),
                    "height and width must be even",
                )
            }
            (Self::DepthToSpace, RecordShape::Planes { channels, size }) if channels % 4 == 0 => {
                planes(channels / 4, size.map(|(h, w)| Some((2 * h, 2 * w))), "")
            }
            (Self::Normalize { channels, .. }, RecordShape::Flat(len)) if len == channels => {
                Ok(shape)
            }
            (
                Self::Normalize { channels, .. },
                RecordShape::Planes {
                    channels: planes, ..
                },
            ) if planes == channels => Ok(shape),
            (Self::Sample { code }, RecordShape::Flat(len)) if len == 2 * code => {
                Ok(RecordShape::Flat(code))
            }
            (Self::SaveSkip, shape) => {
                kept.push(shape);
                Ok(shape)
            }
            (Self::AddSkip, shape) => match kept.pop() {
                Some(other) if other == shape => Ok(shape),
                other => Err(other_skip(other)),
            },
            (Self::ConcatSkip, RecordShape::Planes { channels, size }) => match kept.pop() {
                Some(RecordShape::Planes {
                    channels: stored,
                    size: other,
                }) if other == size => Ok(RecordShape::Planes {
                    channels: channels + stored,
                    size,
                }),
                other => Err(other_skip(other)),
            },
            _ => Err("the shapes do not match".to_owned()),
        }
    }
}

fn other_skip(stored: Option<RecordShape>) -> String {
    match stored {
        Some(shape) => format!("the stored value has the shape {shape}"),
        None => "there are no stored values".to_owned(),
    }
}

fn planes(
    channels: usize,
    size: Option<Option<(usize, usize)>>,
    reason: &str,
) -> Result<RecordShape, String> {
    match size {
        None => Ok(RecordShape::Planes {
            channels,
            size: None,
        }),
        Some(Some(size)) => Ok(RecordShape::Planes {
            channels,
            size: Some(size),
        }),
        Some(None) => Err(reason.to_owned()),
    }
}

impl ConvolutionSpec {
    fn shrink(&self, side: usize) -> Option<usize> {
        Some((side + 2 * self.padding).checked_sub(self.kernel)? / self.stride + 1)
    }

    fn grow(&self, side: usize) -> Option<usize> {
        (side.checked_sub(1)? * self.stride + self.kernel)
            .checked_sub(2 * self.padding)
            .filter(|&side| side > 0)
    }

    pub(super) fn describe(&self, f: &mut std::fmt::Formatter<'_>, name: &str) -> std::fmt::Result {
        write!(
            f,
            "{name} {}->{} {k}x{k}",
            self.inputs,
            self.outputs,
            k = self.kernel
        )?;
        if self.stride > 1 {
            write!(f, " stride {}", self.stride)
        } else {
            Ok(())
        }
    }
}

impl std::fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Affine { scale, offset } => write!(f, "scale {scale}, offset {offset}"),
            Self::Dense { inputs, outputs } => write!(f, "dense {inputs}->{outputs}"),
            Self::Conv(conv) => conv.describe(f, "conv"),
            Self::ConvTranspose(conv) => conv.describe(f, "transposed conv"),
            Self::Activate(activation) => f.write_str(activation.as_str()),
            Self::Flatten => f.write_str("flatten"),
            Self::Unflatten { .. } => f.write_str("unflatten"),
            Self::SpaceToDepth => f.write_str("space to depth"),
            Self::DepthToSpace => f.write_str("depth to space"),
            Self::SaveSkip => f.write_str("keep"),
            Self::AddSkip => f.write_str("add what was kept"),
            Self::ConcatSkip => f.write_str("append stored channels"),
            Self::Normalize { over, .. } => match over {
                Normalization::Batch => f.write_str("batch normalization"),
                Normalization::Layer => f.write_str("layer normalization"),
            },
            Self::Sample { code } => write!(f, "mean and log variance of {code}"),
        }
    }
}
