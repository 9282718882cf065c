//! The layers of a network for records of one shape, in the order in which they run.

mod convolution;
mod rearrange;
mod windows;

pub use self::convolution::{BLOCK as WINDOW_BLOCK, ConvolutionGradients, ConvolutionLayer};
pub use self::rearrange::Rearrange;
use self::windows::KernelWindows;
use super::sequential::{self, Activation, LayerSpec, RecordShape};

/// A layer and the activation that is applied to its output in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// The operation of the layer.
    pub kind: LayerKind,
    /// The activation; [`Activation::Linear`] if there is none.
    pub activation: Activation,
    /// Number of output values of a record.
    pub width: usize,
}

/// The operation of a layer on `[records, values]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerKind {
    /// `x scale + offset`.
    Affine {
        /// Factor.
        scale: f32,
        /// Summand.
        offset: f32,
    },
    /// `x W + b`; W is weight number `weight` and b is the one after it.
    Dense {
        /// The index of W.
        weight: usize,
        /// Number of input values.
        inputs: usize,
        /// Number of output values.
        outputs: usize,
    },
    /// A convolution or a transposed convolution.
    Convolution {
        /// The index of its weight; its bias is the one after it.
        weight: usize,
        /// The index of the layer among the convolutions.
        number: usize,
        /// The sizes of the convolution.
        convolution: ConvolutionLayer,
    },
    /// An activation that keeps its input, which its gradient needs.
    Activate(Activation),
    /// A new order of the values.
    Rearrange(Rearrange),
    /// Adds the output before layer number `kept`.
    Add {
        /// Number of layers before the added value.
        kept: usize,
    },
}

/// The layers of a network for records of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// The layers. Images are planes before the first layer and after the last.
    pub layers: Vec<Layer>,
    /// Number of layers before the code.
    pub code: usize,
    /// Index of the first layer with parameters. The backward pass ends there.
    pub first: usize,
    /// Number of multiplications of the forward pass for one record.
    pub multiplications: usize,
}

impl LayerPlan {
    /// Plans the layers of two chains of steps, one after the other, for records of `shape`: one
    /// dimension, or channels, height, width.
    ///
    /// # Errors
    /// Describes the first step that does not accept the shape.
    pub fn new(
        encoder: &[LayerSpec],
        decoder: &[LayerSpec],
        shape: &[usize],
    ) -> Result<Self, String> {
        let shape = match *shape {
            [channels, height, width] => RecordShape::Planes {
                channels,
                size: Some((height, width)),
            },
            _ => RecordShape::Flat(shape.iter().product()),
        };
        let mut planner = LayerPlanner {
            layers: Vec::new(),
            code: None,
            shape,
            pixels: false,
            kept: Vec::new(),
            met: (0, 0),
        };
        planner.steps(encoder)?;
        let code = planner.layers.len();
        planner.code = Some(code);
        planner.steps(decoder)?;
        planner.planes();
        let layers = planner.layers;
        let multiplications = layers.iter().map(|layer| match layer.kind {
            LayerKind::Dense {
                inputs, outputs, ..
            } => inputs * outputs,
            LayerKind::Convolution { convolution, .. } => convolution.multiplications(),
            _ => 0,
        });
        let multiplications = multiplications.sum();
        let learns = |layer: &Layer| {
            matches!(
                layer.kind,
                LayerKind::Dense { .. } | LayerKind::Convolution { .. }
            )
        };
        let first = layers.iter().position(learns).unwrap_or(layers.len());
        Ok(Self {
            layers,
            code,
            first,
            multiplications,
        })
    }
}

struct LayerPlanner {
    layers: Vec<Layer>,
    code: Option<usize>,
    /// The shape of a record after the last layer.
    shape: RecordShape,
    /// Whether images are stored as `[height, width, channels]` after the last layer, not as
    /// planes.
    pixels: bool,
    /// For each stored value: the number of layers before it, whether it is stored as pixels, and
    /// its shape.
    kept: Vec<(usize, bool, RecordShape)>,
    /// Numbers of parameters and of convolutions so far.
    met: (usize, usize),
}

impl LayerPlanner {
    fn steps(&mut self, steps: &[LayerSpec]) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let mut shapes: Vec<RecordShape> =
                self.kept.iter().map(|&(_, _, shape)| shape).collect();
            let before = self.shape;
            let after = step.after(before, &mut shapes);
            let after = after.map_err(|reason| {
                format!("layer {index} ({step}) with input {before}: {reason}")
            })?;
            self.step(step, before, after);
            self.shape = after;
        }
        Ok(())
    }

    fn step(&mut self, step: &LayerSpec, before: RecordShape, after: RecordShape) {
        match *step {
            LayerSpec::Affine { scale, offset } => {
                self.push(LayerKind::Affine { scale, offset }, after)
            }
            LayerSpec::Dense { inputs, outputs } => {
                let weight = self.weight();
                self.push(
                    LayerKind::Dense {
                        weight,
                        inputs,
                        outputs,
                    },
                    after,
                );
            }
            LayerSpec::Conv(conv) => self.convolution(conv, [before, after], false),
            LayerSpec::ConvTranspose(conv) => self.convolution(conv, [after, before], true),
            LayerSpec::Activate(Activation::Linear) => {}
            LayerSpec::Activate(kind) => self.activate(kind),
            LayerSpec::Flatten => self.planes(),
            LayerSpec::Unflatten { .. } => self.pixels = false,
            LayerSpec::SpaceToDepth => {
                self.as_pixels();
                let (channels, [_, width]) = dimensions(before);
                self.push(
                    LayerKind::Rearrange(Rearrange::Fold {
                        line: width * channels,
                        channels,
                    }),
                    after,
                );
            }
            LayerSpec::DepthToSpace => {
                self.as_pixels();
                let (channels, [_, width]) = dimensions(after);
                self.push(
                    LayerKind::Rearrange(Rearrange::Unfold {
                        line: width * channels,
                        channels,
                    }),
                    after,
                );
            }
            LayerSpec::SaveSkip => self.kept.push((self.layers.len(), self.pixels, before)),
            LayerSpec::AddSkip => {
                let Some((kept, pixels, _)) = self.kept.pop() else {
                    return;
                };
                if pixels {
                    self.as_pixels();
                } else {
                    self.planes();
                }
                self.push(LayerKind::Add { kept }, after);
            }
        }
    }

    fn convolution(
        &mut self,
        conv: sequential::ConvolutionSpec,
        [image, points]: [RecordShape; 2],
        transposed: bool,
    ) {
        self.as_pixels();
        let (channels, image) = dimensions(image);
        let (depth, count) = dimensions(points);
        let sequential::ConvolutionSpec {
            kernel,
            stride,
            padding,
            ..
        } = conv;
        let windows = KernelWindows {
            image,
            channels,
            count,
            kernel,
            stride,
            padding,
        };
        let convolution = ConvolutionLayer {
            windows,
            depth,
            transposed,
        };
        let (weight, number) = (self.weight(), self.met.1);
        self.met.1 += 1;
        let width = convolution.outputs();
        self.layers.push(Layer {
            kind: LayerKind::Convolution {
                weight,
                number,
                convolution,
            },
            activation: Activation::Linear,
            width,
        });
    }

    /// Applies an activation to the last output in place, unless its unchanged values are needed
    /// elsewhere.
    fn activate(&mut self, kind: Activation) {
        let end = self.layers.len();
        let needed = self.code == Some(end) || self.kept.iter().any(|&(kept, ..)| kept == end);
        match self.layers.last_mut() {
            Some(layer)
                if !needed
                    && kind != Activation::Silu
                    && layer.activation == Activation::Linear
                    && !matches!(layer.kind, LayerKind::Activate(_)) =>
            {
                layer.activation = kind;
            }
            _ => self.push(LayerKind::Activate(kind), self.shape),
        }
    }

    fn push(&mut self, kind: LayerKind, shape: RecordShape) {
        let width = shape.len().unwrap_or_default();
        self.layers.push(Layer {
            kind,
            activation: Activation::Linear,
            width,
        });
    }

    /// Returns the index of the next weight, which is followed by its bias.
    fn weight(&mut self) -> usize {
        self.met.0 += 2;
        self.met.0 - 2
    }

    fn as_pixels(&mut self) {
        self.set_pixel_order(true);
    }

    fn planes(&mut self) {
        self.set_pixel_order(false);
    }

    fn set_pixel_order(&mut self, pixels: bool) {
        let (channels, [height, width]) = dimensions(self.shape);
        // With one channel or one pixel, both orders are the same.
        if pixels != self.pixels && channels > 1 && height * width > 1 {
            let to_pixels = Rearrange::ToPixels {
                channels,
                pixels: height * width,
            };
            self.push(
                LayerKind::Rearrange(if pixels {
                    to_pixels
                } else {
                    to_pixels.inverse()
                }),
                self.shape,
            );
        }
        self.pixels = pixels;
    }
}

/// Returns channels, height and width; a flat shape counts as channels of one pixel.
fn dimensions(shape: RecordShape) -> (usize, [usize; 2]) {
    match shape {
        RecordShape::Flat(len) => (len, [1, 1]),
        RecordShape::Planes { channels, size } => {
            let (height, width) = size.unwrap_or_default();
            (channels, [height, width])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CONV: sequential::ConvolutionSpec = sequential::ConvolutionSpec {
        inputs: 3,
        outputs: 3,
        kernel: 3,
        stride: 1,
        padding: 1,
    };

    fn kinds(plan: &LayerPlan) -> Vec<LayerKind> {
        plan.layers.iter().map(|layer| layer.kind).collect()
    }

    #[test]
    fn images_are_rearranged_only_if_a_layer_needs_it() {
        let relu = LayerSpec::Activate(Activation::Relu);
        let plan = LayerPlan::new(
            &[
                LayerSpec::Conv(CONV),
                relu,
                LayerSpec::Conv(CONV),
                LayerSpec::Flatten,
            ],
            &[],
            &[3, 4, 4],
        )
        .unwrap();
        let [there, first, second, back] = kinds(&plan)[..] else {
            panic!("{plan:?}")
        };
        assert_eq!(
            there,
            LayerKind::Rearrange(Rearrange::ToPixels {
                channels: 3,
                pixels: 16
            })
        );
        assert!(matches!(
            first,
            LayerKind::Convolution {
                weight: 0,
                number: 0,
                ..
            }
        ));
        assert!(matches!(
            second,
            LayerKind::Convolution {
                weight: 2,
                number: 1,
                ..
            }
        ));
        assert_eq!(
            back,
            LayerKind::Rearrange(Rearrange::ToPlanes {
                channels: 3,
                pixels: 16
            })
        );
        assert_eq!(
            (plan.layers[1].activation, plan.first, plan.code),
            (Activation::Relu, 1, 4)
        );
        assert_eq!(plan.multiplications, 2 * 16 * 9 * 9);
        // Dense layers and images of one channel do not need a rearrangement.
        let dense = LayerSpec::Dense {
            inputs: 48,
            outputs: 2,
        };
        assert_eq!(
            LayerPlan::new(&[LayerSpec::Flatten, dense], &[], &[3, 4, 4])
                .unwrap()
                .layers
                .len(),
            1
        );
        let conv = sequential::ConvolutionSpec {
            inputs: 1,
            outputs: 1,
            ..CONV
        };
        assert_eq!(
            LayerPlan::new(
                &[LayerSpec::Conv(conv), LayerSpec::Flatten],
                &[],
                &[1, 4, 4]
            )
            .unwrap()
            .layers
            .len(),
            1
        );
    }

    #[test]
    fn activation_in_place_preserves_needed_values() {
        let dense = LayerSpec::Dense {
            inputs: 2,
            outputs: 2,
        };
        let (relu, silu) = (
            LayerSpec::Activate(Activation::Relu),
            LayerSpec::Activate(Activation::Silu),
        );
        let layers = |encoder: &[LayerSpec], decoder: &[LayerSpec]| {
            LayerPlan::new(encoder, decoder, &[2]).unwrap().layers.len()
        };
        assert_eq!(layers(&[dense, relu, dense], &[]), 2);
        assert_eq!(layers(&[dense, silu, dense], &[]), 3);
        assert_eq!(layers(&[dense, relu, relu], &[]), 2);
        assert_eq!(
            layers(&[dense, LayerSpec::SaveSkip, relu, LayerSpec::AddSkip], &[]),
            3
        );
        assert_eq!(layers(&[dense], &[relu]), 2);
        assert_eq!(layers(&[relu], &[]), 1);
    }

    #[test]
    fn mismatched_shape_is_reported_with_its_step() {
        let found = LayerPlan::new(&[LayerSpec::SpaceToDepth], &[], &[3, 5, 4]).unwrap_err();
        assert_eq!(
            found,
            "layer 0 (space to depth) with input [3, 5, 4]: height and width must be even"
        );
    }
}
