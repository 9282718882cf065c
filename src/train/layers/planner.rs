//! Plans the computation of the layers of a network.

use crate::train::layer_spec::{Activation, ConvolutionSpec, LayerSpec};
use crate::train::layers::convolution::ConvolutionLayer;
use crate::train::layers::rearrange::Rearrange;
use crate::train::layers::windows::KernelWindows;
use crate::train::layers::{Layer, LayerKind};
use crate::train::normalization::Normalization;
use crate::train::record_shape::RecordShape;

pub(super) struct LayerPlanner {
    pub(super) layers: Vec<Layer>,
    pub(super) code: Option<usize>,
    /// The shape of a record after the last layer.
    pub(super) shape: RecordShape,
    /// Whether images are stored as `[height, width, channels]` after the last layer, not as
    /// planes.
    pub(super) pixels: bool,
    /// For each stored value: the number of layers before it, whether it is stored as pixels, and
    /// its shape.
    pub(super) kept: Vec<(usize, bool, RecordShape)>,
    /// Numbers of parameters, of convolutions and of normalizations so far.
    pub(super) met: (usize, usize, usize),
}

impl LayerPlanner {
    pub(super) fn steps(&mut self, steps: &[LayerSpec]) -> Result<(), String> {
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
                let weight = self.parameters(2);
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
            LayerSpec::Normalize { over, channels } => {
                if let RecordShape::Planes { .. } = before {
                    self.as_pixels();
                }
                let count = if over == Normalization::Batch { 4 } else { 2 };
                let (weight, number) = (self.parameters(count), self.met.2);
                self.met.2 += 1;
                let kind = LayerKind::Normalize {
                    weight,
                    number,
                    over,
                    channels,
                };
                self.push(kind, after);
            }
            LayerSpec::Sample { code } => self.push(LayerKind::Sample { code }, after),
            LayerSpec::AddSkip => {
                if let Some((kept, _)) = self.stored_order() {
                    self.push(LayerKind::Add { kept }, after);
                }
            }
            LayerSpec::ConcatSkip => {
                if let Some((kept, stored)) = self.stored_order() {
                    // As pixels, a row is a pixel; as planes, a row is a record.
                    let row = |shape: RecordShape| match self.pixels {
                        true => dimensions(shape).0,
                        false => shape.len().unwrap_or_default(),
                    };
                    let rows = [before, stored].map(row);
                    self.push(LayerKind::Concat { kept, rows }, after);
                }
            }
        }
    }

    /// Rearranges the values as the value that was stored last. Returns the number of layers before
    /// that value, and its shape.
    fn stored_order(&mut self) -> Option<(usize, RecordShape)> {
        let (kept, pixels, shape) = self.kept.pop()?;
        self.set_pixel_order(pixels);
        Some((kept, shape))
    }

    fn convolution(
        &mut self,
        conv: ConvolutionSpec,
        [image, points]: [RecordShape; 2],
        transposed: bool,
    ) {
        self.as_pixels();
        let (channels, image) = dimensions(image);
        let (depth, count) = dimensions(points);
        let ConvolutionSpec {
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
        let (weight, number) = (self.parameters(2), self.met.1);
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

    /// Returns the index of the next parameter, the first of `count`.
    fn parameters(&mut self, count: usize) -> usize {
        self.met.0 += count;
        self.met.0 - count
    }

    fn as_pixels(&mut self) {
        self.set_pixel_order(true);
    }

    pub(super) fn planes(&mut self) {
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
