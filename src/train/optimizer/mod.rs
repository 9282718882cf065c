//! Optimizers, which update weights from gradients. Each tensor is updated in one pass over plain
//! numbers, so that memory does not limit small networks, and a checkpoint can store the state bit
//! for bit.

mod moment;
mod muon;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::moment::{MIN_MOMENT, without_tiny};
use self::muon::{muon, muon_scale};
use super::elementwise::CHUNK;
use crate::system::simd_dispatch;
use crate::train::parameter::{Parameter, ParameterRole};

/// Kinds of optimizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam (Kingma and Ba, 2014); with `weight_decay`, decoupled, AdamW (Loshchilov and Hutter,
    /// 2017).
    #[default]
    Adam,
    /// Stochastic gradient descent with a momentum of 0.9.
    Sgd,
    /// Muon (Jordan and others, 2024): the orthogonalized momentum of each weight matrix; Adam for
    /// biases and for the last layer. Its steps are as large as Adam's (Liu and others, 2025), so
    /// learning rates are comparable.
    Muon,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
const MOMENTUM: f32 = 0.9;
/// The share of the statistic of a batch in its running average.
const AVERAGE_MOMENTUM: f32 = 0.1;

/// The state of an optimizer for the parameters of a network.
pub(crate) struct OptimizerState {
    weight_decay: f32,
    rules: Vec<UpdateRule>,
    /// The moments of each parameter: two for Adam, one for the other optimizers, none for
    /// parameters that are not learned.
    state: Vec<Vec<Vec<f32>>>,
}

/// The update rule of one parameter.
#[derive(Clone, Copy)]
enum UpdateRule {
    Adam {
        decays: bool,
    },
    Sgd {
        decays: bool,
    },
    Muon {
        rows: usize,
        columns: usize,
    },
    /// The gradient is the statistic of a batch, which the running average follows.
    Average,
    /// The parameter follows from another one.
    Fixed,
}

/// Returns the number of values of the state of an optimizer.
pub(crate) fn state_values(kind: Optimizer, parameters: &[Parameter]) -> usize {
    let rules = rules(kind, parameters);
    let pairs = rules.iter().zip(parameters);
    pairs
        .map(|(rule, parameter)| rule.moments() * parameter.len())
        .sum()
}

/// Returns the update rule of each parameter.
fn rules(kind: Optimizer, parameters: &[Parameter]) -> Vec<UpdateRule> {
    let matrices = parameters
        .iter()
        .filter(|parameter| parameter.role == ParameterRole::Matrix)
        .count();
    let mut met = 0;
    let mut choose_rule = |parameter: &Parameter| {
        match parameter.role {
            ParameterRole::RunningAverage => return UpdateRule::Average,
            ParameterRole::Tied => return UpdateRule::Fixed,
            ParameterRole::Matrix | ParameterRole::Vector => {}
        }
        let matrix = parameter.role == ParameterRole::Matrix;
        met += usize::from(matrix);
        let rows = parameter.shape[0];
        match kind {
            Optimizer::Muon if matrix && met < matrices => UpdateRule::Muon {
                rows,
                columns: parameter.len() / rows,
            },
            Optimizer::Sgd => UpdateRule::Sgd { decays: matrix },
            Optimizer::Adam | Optimizer::Muon => UpdateRule::Adam { decays: matrix },
        }
    };
    parameters.iter().map(&mut choose_rule).collect()
}

impl UpdateRule {
    /// Returns the number of moments of each value.
    fn moments(self) -> usize {
        match self {
            Self::Adam { .. } => 2,
            Self::Sgd { .. } | Self::Muon { .. } => 1,
            Self::Average | Self::Fixed => 0,
        }
    }
}

impl OptimizerState {
    /// Creates the state with moments of 0.
    pub fn new(kind: Optimizer, weight_decay: f32, parameters: &[Parameter]) -> Self {
        let rules = rules(kind, parameters);
        let zeros = |(rule, parameter): (&UpdateRule, &Parameter)| {
            vec![vec![0.0; parameter.len()]; rule.moments()]
        };
        let state = rules.iter().zip(parameters).map(zeros).collect();
        Self {
            weight_decay,
            rules,
            state,
        }
    }

    /// Updates all parameters in step number `step`, counted from 1.
    pub fn step(&mut self, step: u64, rate: f32, weights: &mut [Vec<f32>], gradients: &[Vec<f32>]) {
        let all = self
            .rules
            .iter()
            .zip(&mut self.state)
            .zip(weights.iter_mut().zip(gradients));
        for ((rule, state), (weight, gradient)) in all {
            let keep = |decays: bool| {
                if decays {
                    1.0 - rate * self.weight_decay
                } else {
                    1.0
                }
            };
            match (*rule, state.as_mut_slice()) {
                (UpdateRule::Adam { decays }, [first, second]) => {
                    adam(
                        AdamStep {
                            step,
                            rate,
                            keep: keep(decays),
                        },
                        weight,
                        gradient,
                        first,
                        second,
                    );
                }
                (UpdateRule::Sgd { decays }, [moment, ..]) => {
                    let keep = keep(decays);
                    for ((value, derivative), momentum) in
                        weight.iter_mut().zip(gradient).zip(moment)
                    {
                        *momentum = without_tiny(*momentum * MOMENTUM + derivative, MIN_MOMENT);
                        *value = *value * keep - rate * *momentum;
                    }
                }
                (UpdateRule::Muon { rows, columns }, [moment, ..]) => {
                    let change = muon(moment, gradient, [rows, columns]);
                    let (keep, rate) = (keep(true), rate * muon_scale(rows, columns));
                    weight
                        .iter_mut()
                        .zip(change)
                        .for_each(|(weight, change)| *weight = *weight * keep - rate * change);
                }
                (UpdateRule::Average, _) => {
                    let pairs = weight.iter_mut().zip(gradient);
                    pairs.for_each(|(mean, now)| *mean += (now - *mean) * AVERAGE_MOMENTUM);
                }
                (UpdateRule::Fixed, _) => {}
                // Unreachable: `new` creates the moments of each rule.
                (UpdateRule::Adam { .. } | UpdateRule::Sgd { .. } | UpdateRule::Muon { .. }, _) => {
                }
            }
        }
    }

    /// Returns the moments of all parameters, one after the other.
    pub fn state(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.state.iter().flatten()
    }

    /// As [`OptimizerState::state`], mutable, to restore them from a checkpoint.
    pub(crate) fn state_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.state.iter_mut().flatten()
    }
}

/// The parameters of one step of Adam.
struct AdamStep {
    step: u64,
    rate: f32,
    /// The factor of each weight after weight decay.
    keep: f32,
}

fn adam(by: AdamStep, weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    // The moments start at 0, so their expectations are too small by this factor.
    let power = i32::try_from(by.step).unwrap_or(i32::MAX);
    let unbiased = |beta: f32| ((1.0 - f64::from(beta).powi(power)).recip()) as f32;
    let (unbiased1, unbiased2) = (unbiased(BETA1), unbiased(BETA2));
    let moment_chunks = first
        .par_chunks_mut(CHUNK)
        .zip(second.par_chunks_mut(CHUNK));
    let all = weight
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(moment_chunks);
    all.for_each(|((weights, gradients), (means, mean_squares))| {
        simd_dispatch(|| {
            let moments = means.iter_mut().zip(mean_squares);
            for ((value, &derivative), (mean, mean_square)) in
                weights.iter_mut().zip(gradients).zip(moments)
            {
                *mean = without_tiny(*mean * BETA1 + derivative * (1.0 - BETA1), MIN_MOMENT);
                *mean_square = without_tiny(
                    *mean_square * BETA2 + derivative * derivative * (1.0 - BETA2),
                    f32::MIN_POSITIVE,
                );
                let change = *mean * unbiased1 / ((*mean_square * unbiased2).sqrt() + EPSILON);
                *value = *value * by.keep - by.rate * change;
            }
        });
    });
}

#[cfg(test)]
mod tests;
