//! The first reading of a network: its steps as tensors of burn, with gradients.

use burn_tensor::ops::ConvOptions;
use burn_tensor::ops::ConvTransposeOptions;
use burn_tensor::{Device, Tensor, TensorData, activation, module};
use rand::Rng;

use super::net::{Activation, Chain, Convolution, LEAK, Parameter, Step};

/// A batch on its way through a network.
#[derive(Debug, Clone)]
pub enum Value {
    /// `[records, values]`.
    Flat(Tensor<2>),
    /// `[records, channels, height, width]`.
    Planes(Tensor<4>),
}

impl Value {
    /// A batch from its values, record after record; each record has `shape`: one dimension, or channels, height, width.
    pub fn new(values: Vec<f32>, records: usize, shape: &[usize], device: &Device) -> Self {
        match *shape {
            [channels, height, width] => {
                let data = TensorData::new(values, [records, channels, height, width]);
                Self::Planes(Tensor::from_data(data, device))
            }
            _ => Self::Flat(Tensor::from_data(TensorData::new(values, [records, shape.iter().product()]), device)),
        }
    }

    /// `[records, values]`, whatever the shape.
    pub fn flat(self) -> Tensor<2> {
        match self {
            Self::Flat(tensor) => tensor,
            Self::Planes(tensor) => {
                let [records, channels, height, width] = tensor.dims();
                tensor.reshape([records, channels * height * width])
            }
        }
    }

    fn planes(self) -> Tensor<4> {
        match self {
            Self::Planes(tensor) => tensor,
            Self::Flat(tensor) => {
                let [records, values] = tensor.dims();
                tensor.reshape([records, values, 1, 1])
            }
        }
    }

    fn map(self, flat: impl Fn(Tensor<2>) -> Tensor<2>, planes: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        match self {
            Self::Flat(tensor) => Self::Flat(flat(tensor)),
            Self::Planes(tensor) => Self::Planes(planes(tensor)),
        }
    }
}

/// Runs a batch through steps, the first of which is the first of their chain. `weights` are the chain's parameters,
/// each flat, in order.
pub fn forward<'a>(steps: &[Step], weights: &mut impl Iterator<Item = &'a Tensor<1>>, input: Value) -> Value {
    let mut kept = Vec::new();
    let mut learned = || weights.next().expect("a chain has as many weights as parameters").clone();
    steps.iter().fold(input, |value, step| match *step {
        Step::Affine { scale, offset } => {
            value.map(|x| x.mul_scalar(scale).add_scalar(offset), |x| x.mul_scalar(scale).add_scalar(offset))
        }
        Step::Dense { inputs, outputs } => {
            let (weight, bias) = (learned().reshape([inputs, outputs]), learned().reshape([1, outputs]));
            Value::Flat(value.flat().matmul(weight) + bias)
        }
        Step::Conv(conv) => {
            let weight = learned().reshape([conv.outputs, conv.inputs, conv.kernel, conv.kernel]);
            Value::Planes(module::conv2d(value.planes(), weight, Some(learned()), options(&conv)))
        }
        Step::ConvTranspose(conv) => {
            let weight = learned().reshape([conv.inputs, conv.outputs, conv.kernel, conv.kernel]);
            let (stride, padding) = ([conv.stride; 2], [conv.padding; 2]);
            let options = ConvTransposeOptions::new(stride, padding, [0; 2], [1; 2], 1);
            Value::Planes(module::conv_transpose2d(value.planes(), weight, Some(learned()), options))
        }
        Step::Activate(kind) => value.map(|x| activate(kind, x), |x| activate(kind, x)),
        Step::Flatten => Value::Flat(value.flat()),
        Step::Unflatten { shape: [channels, height, width] } => {
            let flat = value.flat();
            let records = flat.dims()[0];
            Value::Planes(flat.reshape([records, channels, height, width]))
        }
        Step::SpaceToDepth => Value::Planes(space_to_depth(value.planes())),
        Step::DepthToSpace => Value::Planes(depth_to_space(value.planes())),
        Step::Keep => {
            kept.push(value.clone());
            value
        }
        Step::Add => match (value, kept.pop().expect("a chain keeps before it adds")) {
            (Value::Flat(x), other) => Value::Flat(x + other.flat()),
            (Value::Planes(x), other) => Value::Planes(x + other.planes()),
        },
    })
}

fn options(conv: &Convolution) -> ConvOptions<2> {
    ConvOptions::new([conv.stride; 2], [conv.padding; 2], [1; 2], 1)
}

fn activate<const D: usize>(kind: Activation, x: Tensor<D>) -> Tensor<D> {
    match kind {
        Activation::Linear => x,
        Activation::Relu => activation::relu(x),
        Activation::LeakyRelu => activation::leaky_relu(x, f64::from(LEAK)),
        // Not burn's, which takes the exponential of large values too: its gradient is infinity times 0.
        Activation::Elu => activation::relu(x.clone()) + x.clamp_max(0.0).exp().sub_scalar(1.0),
        Activation::Silu => activation::silu(x),
        Activation::Tanh => activation::tanh(x),
        Activation::Sigmoid => activation::sigmoid(x),
    }
}

/// Channels are ordered as ONNX does: the place in the square first, then the channel.
fn space_to_depth(x: Tensor<4>) -> Tensor<4> {
    let [records, channels, height, width] = x.dims();
    let squares = x.reshape([records, channels, height / 2, 2, width / 2, 2]).permute([0, 3, 5, 1, 2, 4]);
    squares.reshape([records, 4 * channels, height / 2, width / 2])
}

fn depth_to_space(x: Tensor<4>) -> Tensor<4> {
    let [records, channels, height, width] = x.dims();
    let squares = x.reshape([records, 2, 2, channels / 4, height, width]).permute([0, 3, 4, 1, 5, 2]);
    squares.reshape([records, channels / 4, 2 * height, 2 * width])
}

/// First weights of a chain: uniform within `+-0.7 sqrt(6 / fan_in)`, biases 0. It is 0.7 of He's bound (He, Zhang, Ren
/// and Sun, 2015), which is made for ReLUs alone: codes and outputs are linear. A layer that ends
/// a branch starts at 0.
pub fn initial(chain: &Chain, rng: &mut impl Rng) -> Vec<Vec<f32>> {
    let mut draw = |parameter: &Parameter| match parameter.fan_in.filter(|_| !parameter.zero) {
        None => vec![0.0; parameter.len()],
        Some(fan_in) => {
            let bound = 0.7 * (6.0 / fan_in as f32).sqrt();
            (0..parameter.len()).map(|_| rng.random_range(-bound..bound)).collect()
        }
    };
    chain.parameters().iter().map(&mut draw).collect()
}

/// A flat tensor on a device.
pub fn upload(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// The values of a tensor; waits for the device.
///
/// # Errors
/// When the device failed.
pub fn download<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|error| format!("the device failed: {error:?}"))?;
    data.try_into_vec::<f32>().map_err(|error| format!("the device gave no float32: {error:?}"))
}
