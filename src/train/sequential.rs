//! A network as a shape-checked list of steps: the single definition from which both the layers and
//! the ONNX nodes are built.

use serde::{Deserialize, Serialize};

use schemars::JsonSchema;

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
pub const LEAK: f32 = 0.01;

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
pub struct ConvolutionSpec {
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

/// One step of a network. Shapes are per record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerSpec {
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
    /// Stores the value for the matching [`LayerSpec::AddSkip`]; pairs nest.
    SaveSkip,
    /// Adds the value that was stored last.
    AddSkip,
}

/// The shape of one record between two steps. Height and width are unknown if images have any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordShape {
    /// A number of values.
    Flat(usize),
    /// An image: its channels, and its height and width if they are fixed.
    Planes {
        /// Channels.
        channels: usize,
        /// Height and width.
        size: Option<(usize, usize)>,
    },
}

impl RecordShape {
    /// Returns the number of values of a record if it is fixed.
    pub fn len(self) -> Option<usize> {
        match self {
            Self::Flat(len) => Some(len),
            Self::Planes { channels, size } => {
                size.map(|(height, width)| channels * height * width)
            }
        }
    }
}

impl std::fmt::Display for RecordShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flat(len) => write!(f, "[{len}]"),
            Self::Planes {
                channels,
                size: Some((height, width)),
            } => write!(f, "[{channels}, {height}, {width}]"),
            Self::Planes {
                channels,
                size: None,
            } => write!(f, "[{channels}, height, width]"),
        }
    }
}

/// A list of steps whose shapes match, with its input and output shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequential {
    layers: Vec<LayerSpec>,
    input: RecordShape,
    output: RecordShape,
}

/// A learned tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// `3.weight` or `3.bias`: the index of the step in its chain, and the role of the tensor.
    pub name: String,
    /// The dimensions of the tensor.
    pub shape: Vec<usize>,
    /// The number of input values of each output of the layer; `None` for a bias, which starts at
    /// 0.
    pub fan_in: Option<usize>,
    /// Whether the tensor starts at 0 regardless of `fan_in`: its layer is the last of a residual
    /// branch, so that a network of many branches starts as the identity.
    pub zero: bool,
}

impl Parameter {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Sequential {
    /// Checks that the output shape of each step matches the input shape of the next.
    ///
    /// # Errors
    /// Describes the first step that does not match.
    pub fn new(input: RecordShape, layers: Vec<LayerSpec>) -> Result<Self, String> {
        let (mut shape, mut kept) = (input, Vec::new());
        for (index, step) in layers.iter().enumerate() {
            let next = step.after(shape, &mut kept);
            shape = next
                .map_err(|reason| format!("layer {index} ({step}) with input {shape}: {reason}"))?;
        }
        if !kept.is_empty() {
            return Err(format!(
                "number of stored values that are never added: {}",
                kept.len()
            ));
        }
        Ok(Self {
            layers,
            input,
            output: shape,
        })
    }

    /// Returns the steps.
    pub fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// Returns the input shape.
    pub fn input(&self) -> RecordShape {
        self.input
    }

    /// Returns the output shape.
    pub fn output(&self) -> RecordShape {
        self.output
    }

    /// Returns the parameters in the order of the steps: the weight of each layer, then its bias.
    pub fn parameters(&self) -> Vec<Parameter> {
        let of = |(index, step): (usize, &LayerSpec)| {
            step.parameters(
                index,
                self.layers.get(index + 1) == Some(&LayerSpec::AddSkip),
            )
        };
        self.layers.iter().enumerate().flat_map(of).collect()
    }

    /// Returns a readable line for each layer: a step together with the activation that follows it.
    pub fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for step in &self.layers {
            match (step, lines.last_mut()) {
                (LayerSpec::Activate(activation), Some(line)) => {
                    line.push_str(", ");
                    line.push_str(activation.as_str());
                }
                (LayerSpec::Flatten | LayerSpec::Unflatten { .. } | LayerSpec::SaveSkip, _) => {}
                (step, _) => lines.push(step.to_string()),
            }
        }
        lines
    }
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
            (Self::SaveSkip, shape) => {
                kept.push(shape);
                Ok(shape)
            }
            (Self::AddSkip, shape) => match kept.pop() {
                Some(other) if other == shape => Ok(shape),
                Some(other) => Err(format!("the stored value has the shape {other}")),
                None => Err("there are no stored values".to_owned()),
            },
            _ => Err("the shapes do not match".to_owned()),
        }
    }

    fn parameters(&self, index: usize, zero: bool) -> Vec<Parameter> {
        let (shape, fan_in, outputs) = match *self {
            Self::Dense { inputs, outputs } => (vec![inputs, outputs], inputs, outputs),
            Self::Conv(c) => (
                vec![c.outputs, c.inputs, c.kernel, c.kernel],
                c.inputs * c.kernel * c.kernel,
                c.outputs,
            ),
            // The stride reduces the number of kernel values that contribute to an output pixel.
            Self::ConvTranspose(c) => {
                let reached = (c.kernel * c.kernel).div_ceil(c.stride * c.stride);
                (
                    vec![c.inputs, c.outputs, c.kernel, c.kernel],
                    c.inputs * reached,
                    c.outputs,
                )
            }
            _ => return Vec::new(),
        };
        vec![
            Parameter {
                name: format!("{index}.weight"),
                shape,
                fan_in: Some(fan_in),
                zero,
            },
            Parameter {
                name: format!("{index}.bias"),
                shape: vec![outputs],
                fan_in: None,
                zero,
            },
        ]
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

    fn describe(&self, f: &mut std::fmt::Formatter<'_>, name: &str) -> std::fmt::Result {
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
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;

    const fn conv(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> ConvolutionSpec {
        ConvolutionSpec {
            inputs,
            outputs,
            kernel,
            stride,
            padding,
        }
    }

    fn image(channels: usize, side: usize) -> RecordShape {
        RecordShape::Planes {
            channels,
            size: Some((side, side)),
        }
    }

    #[test]
    fn shapes_follow_the_steps() {
        let steps = vec![
            LayerSpec::Conv(conv(1, 8, 3, 2, 1)),
            LayerSpec::Activate(Activation::Relu),
            LayerSpec::Flatten,
            LayerSpec::Dense {
                inputs: 8 * 14 * 14,
                outputs: 10,
            },
        ];
        let chain = Sequential::new(image(1, 28), steps).unwrap();
        assert_eq!(chain.output(), RecordShape::Flat(10));
        assert_eq!(
            chain.parameters().iter().map(Parameter::len).sum::<usize>(),
            72 + 8 + 15680 + 10
        );
        assert_eq!(
            chain.describe(),
            ["conv 1->8 3x3 stride 2, relu", "dense 1568->10"]
        );
    }

    #[test]
    fn transposed_convolution_restores_the_size_of_its_mirror() {
        for (from, kernel, to) in [(4, 3, 7), (7, 4, 14), (14, 4, 28)] {
            let chain = Sequential::new(
                image(2, from),
                vec![LayerSpec::ConvTranspose(conv(2, 3, kernel, 2, 1))],
            )
            .unwrap();
            assert_eq!(chain.output(), image(3, to));
        }
    }

    #[test]
    fn mismatched_steps_are_reported_with_their_place() {
        let check = |input, steps, expected: Expect| {
            expected.assert_eq(&Sequential::new(input, steps).unwrap_err())
        };
        let dense = LayerSpec::Dense {
            inputs: 5,
            outputs: 4,
        };
        check(
            RecordShape::Flat(4),
            vec![dense],
            expect!["layer 0 (dense 5->4) with input [4]: the shapes do not match"],
        );
        check(
            RecordShape::Flat(5),
            vec![LayerSpec::SaveSkip, dense, LayerSpec::AddSkip],
            expect![
                "layer 2 (add what was kept) with input [4]: the stored value has the shape [5]"
            ],
        );
        check(
            RecordShape::Flat(5),
            vec![LayerSpec::SaveSkip],
            expect!["number of stored values that are never added: 1"],
        );
        check(
            RecordShape::Planes {
                channels: 1,
                size: None,
            },
            vec![LayerSpec::Flatten],
            expect![
                "layer 0 (flatten) with input [1, height, width]: \
                 images of any size cannot be flattened"
            ],
        );
        check(
            image(1, 2),
            vec![LayerSpec::Conv(conv(1, 1, 5, 1, 0))],
            expect![
                "layer 0 (conv 1->1 5x5) with input [1, 2, 2]: the image is smaller than the kernel"
            ],
        );
    }
}
