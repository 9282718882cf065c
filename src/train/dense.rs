//! The third reading of a network, for those of dense layers alone: gradients by hand, over buffers that stay.
//!
//! A dense layer on a processor is so little work per number that what stands around the products costs as much as they
//! do: graphs of operations, copies, fresh memory. Here nothing stands around them. Tests hold that it gives what the
//! reading as tensors gives.

use super::batches::Batch;
use super::matrix::{Before, Matrix, multiply};
use super::net::{Activation, Step};
use super::objective::EPSILON;
use super::pointwise;
use super::spec::{Penalty, Sparsity};
use crate::model::Loss;

/// A network of dense layers, and what it remembers of the present batch.
pub struct Dense {
    layers: Vec<Layer>,
    /// Layers before the code, and the penalty on it.
    penalty: Option<(usize, Sparsity)>,
    loss: Loss,
    /// What each layer gave, `[records, values]`.
    outputs: Vec<Vec<f32>>,
    /// The gradient on its way back, and room for the next.
    gradient: Vec<f32>,
    next: Vec<f32>,
}

/// What is done to `[records, values]`.
#[derive(Debug, Clone, Copy)]
enum Layer {
    Affine {
        scale: f32,
        offset: f32,
    },
    /// `x W + b`; W is weight number `weight`, b the one after it.
    Dense {
        weight: usize,
        inputs: usize,
        outputs: usize,
    },
    Activate(Activation),
}

impl Dense {
    /// The network of two chains of steps, one after the other; the penalty is on what the first gives. `None` where a
    /// step is none of a dense network.
    pub fn new(encoder: &[Step], decoder: &[Step], loss: Loss, sparsity: Option<Sparsity>) -> Option<Self> {
        let mut weights = 0;
        let mut layers = |steps: &[Step]| {
            let layer = |step: &Step| match *step {
                Step::Affine { scale, offset } => Some(Some(Layer::Affine { scale, offset })),
                Step::Dense { inputs, outputs } => {
                    weights += 2;
                    Some(Some(Layer::Dense { weight: weights - 2, inputs, outputs }))
                }
                Step::Activate(kind) => Some(Some(Layer::Activate(kind))),
                // Records are flat all the way.
                Step::Flatten | Step::Unflatten { .. } => Some(None),
                Step::Conv(_) | Step::ConvTranspose(_) | Step::SpaceToDepth | Step::DepthToSpace => None,
                Step::Keep | Step::Add => None,
            };
            let layers: Option<Vec<Option<Layer>>> = steps.iter().map(layer).collect();
            layers.map(|layers| layers.into_iter().flatten().collect::<Vec<_>>())
        };
        let mut all = layers(encoder)?;
        let code = all.len();
        all.extend(layers(decoder)?);
        let outputs = vec![Vec::new(); all.len()];
        let penalty = sparsity.map(|sparsity| (code, sparsity));
        Some(Self { layers: all, penalty, loss, outputs, gradient: Vec::new(), next: Vec::new() })
    }

    /// The mean loss over a batch, without the penalty.
    pub fn measure(&mut self, weights: &[Vec<f32>], batch: &Batch) -> f32 {
        self.forward(weights, batch);
        self.lose(batch)
    }

    /// What is made small, for a batch, and its gradients by the weights.
    pub fn learn(&mut self, weights: &[Vec<f32>], batch: &Batch, gradients: &mut [Vec<f32>]) -> f32 {
        self.forward(weights, batch);
        let loss = self.lose(batch);
        loss + self.backward(weights, batch, gradients)
    }

    fn forward(&mut self, weights: &[Vec<f32>], batch: &Batch) {
        for (place, layer) in self.layers.iter().enumerate() {
            let (before, behind) = self.outputs.split_at_mut(place);
            let (input, output) = (before.last().map_or(batch.input(), Vec::as_slice), &mut behind[0]);
            match *layer {
                Layer::Affine { scale, offset } => {
                    output.resize(input.len(), 0.0);
                    pointwise::affine(input, output, scale, offset);
                }
                Layer::Activate(kind) => {
                    output.resize(input.len(), 0.0);
                    pointwise::activate(kind, input, output);
                }
                Layer::Dense { weight, inputs, outputs } => {
                    output.clear();
                    (0..batch.records).for_each(|_| output.extend_from_slice(&weights[weight + 1]));
                    let input = Matrix::new(input, batch.records, inputs);
                    multiply(input, Matrix::new(&weights[weight], inputs, outputs), output, Before::Added);
                }
            }
        }
    }

    /// The loss of what came out, whose gradient begins its way.
    fn lose(&mut self, batch: &Batch) -> f32 {
        let output = self.outputs.last().map_or(batch.input(), Vec::as_slice);
        self.gradient.resize(output.len(), 0.0);
        match self.loss {
            Loss::Mse => pointwise::squared_error(output, &batch.target, &mut self.gradient),
            Loss::Bce => pointwise::cross_entropy(output, &batch.target, &mut self.gradient),
        }
    }

    /// Carries the gradient back through the layers; gives the penalty.
    fn backward(&mut self, weights: &[Vec<f32>], batch: &Batch, gradients: &mut [Vec<f32>]) -> f32 {
        let mut penalty = 0.0;
        for (place, layer) in self.layers.iter().enumerate().rev() {
            let output = &self.outputs[place];
            if let Some((_, sparsity)) = self.penalty.filter(|&(code, _)| code == place + 1) {
                penalty = penalise(&sparsity, output, batch.records, &mut self.gradient);
            }
            let input = place.checked_sub(1).map_or(batch.input(), |before| self.outputs[before].as_slice());
            match *layer {
                Layer::Affine { scale, .. } => self.gradient.iter_mut().for_each(|gradient| *gradient *= scale),
                Layer::Activate(kind) => pointwise::activate_back(kind, input, output, &mut self.gradient),
                Layer::Dense { weight, inputs, outputs } => {
                    let gradient = Matrix::new(&self.gradient, batch.records, outputs);
                    let input = Matrix::new(input, batch.records, inputs);
                    multiply(input.transposed(), gradient, &mut gradients[weight], Before::Replaced);
                    pointwise::sum_rows(&self.gradient, &mut gradients[weight + 1]);
                    // Nothing is learned before the first layer.
                    if weight == 0 {
                        break;
                    }
                    self.next.resize(batch.records * inputs, 0.0);
                    let matrix = Matrix::new(&weights[weight], inputs, outputs);
                    multiply(gradient, matrix.transposed(), &mut self.next, Before::Replaced);
                    std::mem::swap(&mut self.gradient, &mut self.next);
                }
            }
        }
        penalty
    }
}

/// The penalty on codes, as [`super::objective::penalty`] has it; its gradient is added.
fn penalise(sparsity: &Sparsity, code: &[f32], records: usize, gradient: &mut [f32]) -> f32 {
    let Sparsity { penalty, weight, target } = *sparsity;
    match penalty {
        Penalty::L1 => {
            let share = weight / code.len().max(1) as f32;
            let sign = |value: f32| if value == 0.0 { 0.0 } else { value.signum() };
            gradient.iter_mut().zip(code).for_each(|(gradient, &value)| *gradient += share * sign(value));
            share * code.iter().map(|value| value.abs()).sum::<f32>()
        }
        Penalty::Kl => {
            let units = code.len() / records.max(1);
            let mut means = vec![0.0; units];
            pointwise::sum_rows(code, &mut means);
            means.iter_mut().for_each(|mean| *mean /= records as f32);
            let divergence = |mean: &f32| {
                let mean = mean.clamp(EPSILON, 1.0 - EPSILON);
                target * (target / mean).ln() + (1.0 - target) * ((1.0 - target) / (1.0 - mean)).ln()
            };
            let penalty = weight * means.iter().map(divergence).sum::<f32>() / units as f32;
            let share = weight / code.len().max(1) as f32;
            let slope = |mean: &mut f32| {
                let inside = (EPSILON..=1.0 - EPSILON).contains(mean);
                *mean = if inside { share * ((1.0 - target) / (1.0 - *mean) - target / *mean) } else { 0.0 };
            };
            means.iter_mut().for_each(slope);
            for row in gradient.chunks_exact_mut(units.max(1)) {
                row.iter_mut().zip(&means).for_each(|(gradient, slope)| *gradient += slope);
            }
            penalty
        }
    }
}
