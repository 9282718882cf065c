//! The layers of a network for records of one shape, in the order in which they run.

mod convolution;
pub(crate) mod normalization;
pub(crate) mod planner;
mod rearrange;
mod windows;

use crate::train::layer_spec::{Activation, LayerSpec};
use crate::train::layers::planner::LayerPlanner;
use crate::train::normalization::Normalization;
use crate::train::record_shape::RecordShape;

pub(crate) use self::convolution::{ConvolutionGradients, ConvolutionLayer};
pub(crate) use self::rearrange::{Rearrange, transposed};

/// A layer and the activation that is applied to its output in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Layer {
    /// The operation of the layer.
    pub kind: LayerKind,
    /// The activation; [`Activation::Linear`] if there is none.
    pub activation: Activation,
    /// Number of output values of a record.
    pub width: usize,
}

/// The operation of a layer on `[records, values]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LayerKind {
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
    /// A normalization of rows of `channels` values.
    Normalize {
        /// The index of its factor, which is followed by its bias; with [`Normalization::Batch`],
        /// the running mean and variance follow.
        weight: usize,
        /// The index of the layer among the normalizations.
        number: usize,
        /// The values that have one mean and one variance.
        over: Normalization,
        /// Number of values of a row.
        channels: usize,
    },
    /// Draws the code from the distribution in the input, or returns its mean.
    Sample {
        /// Number of values of the code.
        code: usize,
    },
    /// Appends rows of the output before layer number `kept` to the rows of the input.
    Concat {
        /// Number of layers before the appended value.
        kept: usize,
        /// Number of values of a row of the input and of a row of the appended value.
        rows: [usize; 2],
    },
    /// Adds the output before layer number `kept`.
    Add {
        /// Number of layers before the added value.
        kept: usize,
    },
}

/// The layers of a network for records of one shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerPlan {
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
    pub(in crate::train) fn new(
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
            met: (0, 0, 0),
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
                LayerKind::Dense { .. }
                    | LayerKind::Convolution { .. }
                    | LayerKind::Normalize { .. }
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

impl LayerPlan {
    /// Returns the indices of the layers that need statistics over a batch.
    pub(crate) fn batch_normalizations(&self) -> Vec<usize> {
        let is_batch = |layer: &Layer| {
            matches!(
                layer.kind,
                LayerKind::Normalize {
                    over: Normalization::Batch,
                    ..
                }
            )
        };
        let layers = self.layers.iter().enumerate();
        layers
            .filter(|(_, layer)| is_batch(layer))
            .map(|(index, _)| index)
            .collect()
    }
}

#[cfg(test)]
mod tests;
