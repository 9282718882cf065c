//! Optimisers: how gradients change weights. State is plain tensors, so that a checkpoint can hold it bit for bit.

use burn_tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::Parameter;

/// Kinds of optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimiser {
    /// Adam (Kingma and Ba, 2014); with `weight_decay`, decoupled, AdamW (Loshchilov and Hutter, 2017).
    #[default]
    Adam,
    /// Stochastic gradient descent with a momentum of 0.9.
    Sgd,
    /// Muon (Jordan and others, 2024): the momentum of each weight matrix, made orthogonal; Adam for biases and for the
    /// last layer. Its steps are as large as Adam's (Liu and others, 2025), so learning rates compare.
    Muon,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
const MOMENTUM: f32 = 0.9;
const MUON_MOMENTUM: f32 = 0.95;

/// An optimiser at work on some parameters.
pub struct Optimising {
    weight_decay: f32,
    rules: Vec<Rule>,
    /// Of each parameter its moments: two of Adam's, one of the others.
    state: Vec<Vec<Tensor<1>>>,
}

/// What is done with one parameter.
#[derive(Clone, Copy)]
enum Rule {
    Adam { decays: bool },
    Sgd { decays: bool },
    Muon { rows: usize, columns: usize },
}

impl Optimising {
    /// Begins with moments of 0.
    pub fn new(kind: Optimiser, weight_decay: f32, parameters: &[Parameter], device: &Device) -> Self {
        let matrices = parameters.iter().filter(|parameter| parameter.fan_in.is_some()).count();
        let mut met = 0;
        let mut rule = |parameter: &Parameter| {
            let matrix = parameter.fan_in.is_some();
            met += usize::from(matrix);
            let rows = parameter.shape[0];
            match kind {
                Optimiser::Muon if matrix && met < matrices => Rule::Muon { rows, columns: parameter.len() / rows },
                Optimiser::Sgd => Rule::Sgd { decays: matrix },
                Optimiser::Adam | Optimiser::Muon => Rule::Adam { decays: matrix },
            }
        };
        let rules: Vec<Rule> = parameters.iter().map(&mut rule).collect();
        let zeros = |(rule, parameter): (&Rule, &Parameter)| {
            let moments = if matches!(rule, Rule::Adam { .. }) { 2 } else { 1 };
            (0..moments).map(|_| Tensor::zeros([parameter.len()], device)).collect()
        };
        let state = rules.iter().zip(parameters).map(zeros).collect();
        Self { weight_decay, rules, state }
    }

    /// The new values of all parameters after step number `step`, counted from 1.
    pub fn step(&mut self, step: u64, rate: f32, weights: &[Tensor<1>], gradients: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        let decay = self.weight_decay;
        let all = self.rules.iter().zip(&mut self.state).zip(weights.iter().zip(gradients));
        all.map(|((rule, state), (weight, gradient))| {
            let (change, decays) = match *rule {
                Rule::Adam { decays } => (adam(state, gradient, step), decays),
                Rule::Sgd { decays } => (momentum(state, gradient, MOMENTUM), decays),
                Rule::Muon { rows, columns } => (muon(state, gradient, rows, columns), true),
            };
            let kept =
                if decays && decay > 0.0 { weight.clone().mul_scalar(1.0 - rate * decay) } else { weight.clone() };
            kept - change.mul_scalar(rate)
        })
        .collect()
    }

    /// The moments, of all parameters one after the other.
    pub fn state(&self) -> impl Iterator<Item = &Tensor<1>> {
        self.state.iter().flatten()
    }

    /// As [`Optimising::state`], to be put back from a checkpoint.
    pub fn state_mut(&mut self) -> impl Iterator<Item = &mut Tensor<1>> {
        self.state.iter_mut().flatten()
    }
}

fn adam(state: &mut [Tensor<1>], gradient: Tensor<1>, step: u64) -> Tensor<1> {
    let [first, second] = state else { return gradient };
    *first = first.clone().mul_scalar(BETA1) + gradient.clone().mul_scalar(1.0 - BETA1);
    *second = second.clone().mul_scalar(BETA2) + (gradient.clone() * gradient).mul_scalar(1.0 - BETA2);
    // The moments begin at 0: their expectations are this much too small.
    let power = i32::try_from(step).unwrap_or(i32::MAX);
    let (bias1, bias2) = (1.0 - f64::from(BETA1).powi(power), 1.0 - f64::from(BETA2).powi(power));
    let deviation = second.clone().div_scalar(bias2 as f32).sqrt().add_scalar(EPSILON);
    first.clone().div_scalar(bias1 as f32) / deviation
}

fn momentum(state: &mut [Tensor<1>], gradient: Tensor<1>, share: f32) -> Tensor<1> {
    let [moment] = state else { return gradient };
    *moment = moment.clone().mul_scalar(share) + gradient;
    moment.clone()
}

fn muon(state: &mut [Tensor<1>], gradient: Tensor<1>, rows: usize, columns: usize) -> Tensor<1> {
    let moment = momentum(state, gradient.clone(), MUON_MOMENTUM);
    let ahead = gradient + moment.mul_scalar(MUON_MOMENTUM);
    // An orthogonal matrix has an RMS of 1 / sqrt(longer side); Adam's steps have about 0.2.
    let scale = 0.2 * (rows.max(columns) as f32).sqrt();
    orthogonal(ahead.reshape([rows, columns])).reshape([rows * columns]).mul_scalar(scale)
}

/// The nearest matrix with orthonormal rows or columns, roughly: five steps of Newton and Schulz, whose coefficients
/// take singular values from 0..1 to about 0.7..1.2 fast.
fn orthogonal(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    let tall = rows > columns;
    let mut x = if tall { matrix.transpose() } else { matrix };
    let norm = (x.clone() * x.clone()).sum().sqrt().add_scalar(1e-7).reshape([1, 1]);
    x = x / norm;
    for _ in 0..5 {
        let square = x.clone().matmul(x.clone().transpose());
        let mixed = square.clone().mul_scalar(-4.775) + square.clone().matmul(square).mul_scalar(2.0315);
        x = x.clone().mul_scalar(3.4445) + mixed.matmul(x);
    }
    if tall { x.transpose() } else { x }
}
