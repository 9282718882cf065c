//! The parameters of a network: tensors that are learned, or that follow from the training.

use crate::train::layer_spec::LayerSpec;
use crate::train::normalization::Normalization;

/// The initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitialValues {
    /// Random values, whose size depends on the number of input values of each output.
    Random {
        /// The number of input values of each output.
        fan_in: usize,
    },
    /// Zeros: biases, and the last layer of a residual branch, so that a network of many branches
    /// starts as the identity.
    Zeros,
    /// Ones: the factors of normalizations, and their running variances.
    Ones,
}

/// The role of a parameter, which determines how a step changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterRole {
    /// A learned weight matrix.
    Matrix,
    /// Learned biases or factors.
    Vector,
    /// A running average of a statistic of batches.
    RunningAverage,
    /// The transpose of a weight matrix of the encoder.
    Tied,
}

impl ParameterRole {
    /// Whether gradients change the parameter.
    pub(crate) fn is_learned(self) -> bool {
        matches!(self, Self::Matrix | Self::Vector)
    }
}

/// A tensor of a network that is learned, or that follows from the training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// `3.weight` or `3.bias`: the index of the step in its chain, and the role of the tensor.
    pub name: String,
    /// The dimensions of the tensor.
    pub shape: Vec<usize>,
    /// The initial values.
    pub initial: InitialValues,
    /// How a step changes the tensor.
    pub role: ParameterRole,
}

impl Parameter {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl LayerSpec {
    /// Returns the parameters of step number `index`; `zero` is whether the step is the last of a
    /// residual branch.
    pub(super) fn parameters(&self, index: usize, zero: bool) -> Vec<Parameter> {
        let parameter = |role: &str, shape: Vec<usize>, initial, update| Parameter {
            name: format!("{index}.{role}"),
            shape,
            initial: if zero { InitialValues::Zeros } else { initial },
            role: update,
        };
        let vector = |role: &str, len: usize, initial| {
            parameter(role, vec![len], initial, ParameterRole::Vector)
        };
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
            Self::Normalize { over, channels } => {
                let running = |role: &str, initial| Parameter {
                    name: format!("{index}.{role}"),
                    shape: vec![channels],
                    initial,
                    role: ParameterRole::RunningAverage,
                };
                let mut all = vec![
                    vector("scale", channels, InitialValues::Ones),
                    vector("bias", channels, InitialValues::Zeros),
                ];
                if over == Normalization::Batch {
                    all.push(running("mean", InitialValues::Zeros));
                    all.push(running("variance", InitialValues::Ones));
                }
                return all;
            }
            _ => return Vec::new(),
        };
        vec![
            parameter(
                "weight",
                shape,
                InitialValues::Random { fan_in },
                ParameterRole::Matrix,
            ),
            vector("bias", outputs, InitialValues::Zeros),
        ]
    }
}
