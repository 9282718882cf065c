//! The steps of a network for records of one shape: layers in the order in which they run.

mod convolution;
mod rearrange;
mod windows;

pub use self::convolution::{ConvolutionGradients, ConvolutionLayer};
pub use self::rearrange::Rearrange;
use self::windows::KernelWindows;
use super::sequential::{self, Activation, LayerSpec, RecordShape};

/// One layer, and the activation that is applied to its output in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// What is computed.
    pub kind: LayerKind,
    /// [`Activation::Linear`] where none follows.
    pub activation: Activation,
    /// Values of a record that come out.
    pub width: usize,
}

/// What a layer computes from `[records, values]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerKind {
    /// `x scale + offset`.
    Affine {
        /// Factor.
        scale: f32,
        /// Summand.
        offset: f32,
    },
    /// `x W + b`; W is weight number `weight`, b the one after it.
    Dense {
        /// The number of W.
        weight: usize,
        /// Values that go in.
        inputs: usize,
        /// Values that come out.
        outputs: usize,
    },
    /// A convolution of either kind.
    Convolution {
        /// The number of its weight; its bias is the one after it.
        weight: usize,
        /// Its number among the convolutions.
        number: usize,
        /// Its sizes.
        convolution: ConvolutionLayer,
    },
    /// An activation whose input is needed for its gradient.
    Activate(Activation),
    /// Another order.
    Rearrange(Rearrange),
    /// Adds what had come out before layer number `kept`.
    Add {
        /// How many layers were before.
        kept: usize,
    },
}

/// The layers of a network for records of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// The layers; values of images lie as planes before the first and behind the last.
    pub layers: Vec<Layer>,
    /// Layers before the code.
    pub code: usize,
    /// The first layer that learns: no gradient is wanted before it.
    pub first: usize,
    /// Multiplications for a record in the forward pass.
    pub multiplications: usize,
}

impl LayerPlan {
    /// The layers of two chains of steps, one after the other, for records of `shape`: one
    /// dimension, or channels, height, width.
    ///
    /// # Errors
    /// The first step that the shape does not fit.
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
    /// Of a record behind the last layer.
    shape: RecordShape,
    /// Whether images lie as `[height, width, channels]` there, rather than as planes.
    pixels: bool,
    /// Of each value that is kept: layers before it, whether it lies as pixels, and its shape.
    kept: Vec<(usize, bool, RecordShape)>,
    /// Weights and convolutions that were met.
    met: (usize, usize),
}

impl LayerPlanner {
    fn steps(&mut self, steps: &[LayerSpec]) -> Result<(), String> {
        for (place, step) in steps.iter().enumerate() {
            let mut shapes: Vec<RecordShape> =
                self.kept.iter().map(|&(_, _, shape)| shape).collect();
            let before = self.shape;
            let after = step.after(before, &mut shapes);
            let after = after
                .map_err(|reason| format!("step {place} ({step}) after {before}: {reason}"))?;
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
                let (channels, [_, width]) = sides(before);
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
                let (channels, [_, width]) = sides(after);
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
        let (channels, image) = sides(image);
        let (depth, count) = sides(points);
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

    /// An activation changes the last output in place, unless something else needs that as it was.
    fn activate(&mut self, kind: Activation) {
        let place = self.layers.len();
        let needed = self.code == Some(place) || self.kept.iter().any(|&(kept, ..)| kept == place);
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

    /// The number of the next weight, which a bias follows.
    fn weight(&mut self) -> usize {
        self.met.0 += 2;
        self.met.0 - 2
    }

    fn as_pixels(&mut self) {
        self.lay(true);
    }

    fn planes(&mut self) {
        self.lay(false);
    }

    fn lay(&mut self, pixels: bool) {
        let (channels, [height, width]) = sides(self.shape);
        // One channel, or one pixel, lies the same both ways.
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

/// Channels, height and width; values without height and width are channels of one pixel.
fn sides(shape: RecordShape) -> (usize, [usize; 2]) {
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
    fn images_are_rearranged_only_where_a_layer_needs_it() {
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
        // Dense layers, and images of one channel, need none.
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
    fn an_activation_leaves_values_that_are_needed() {
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
    fn a_shape_that_does_not_fit_is_named_with_its_step() {
        let found = LayerPlan::new(&[LayerSpec::SpaceToDepth], &[], &[3, 5, 4]).unwrap_err();
        assert_eq!(
            found,
            "step 0 (space to depth) after [3, 5, 4]: height and width must be even"
        );
    }
}
