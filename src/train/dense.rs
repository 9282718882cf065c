//! The third reading of a network, for those of dense layers alone: gradients by hand, over buffers that stay.
//!
//! A dense layer on a processor is so little work per number that what stands around the products costs as much as they
//! do: graphs of operations, copies, fresh memory. Here nothing stands around them. Each thread takes a part of the
//! batch all the way, so that threads wait for each other three times a step rather than at each layer. Tests hold that
//! it gives what the reading as tensors gives.

use std::ops::Range;

use rayon::prelude::*;

use super::batches::Batch;
use super::matrix::{Before, Matrix, multiply};
use super::net::{Activation, Step};
use super::objective::EPSILON;
use super::pointwise;
use super::spec::{Penalty, Sparsity};
use crate::model::Loss;

/// Multiplications that are worth another thread: some ten microseconds of work, several times what it takes to wake one.
const WORTH_A_THREAD: usize = 1 << 20;

/// A network of dense layers, and what it remembers of the present batch.
pub struct Dense {
    layers: Vec<Layer>,
    /// The first layer that learns: no gradient is wanted before it.
    first: usize,
    /// Layers before the code, and the penalty on it.
    penalty: Option<(usize, Sparsity)>,
    loss: Loss,
    parts: Vec<Part>,
    /// Multiplications that are worth another thread.
    pub(super) worth_a_thread: usize,
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

/// Some records of a batch on their way; their numbers are `[records, values]`.
#[derive(Default)]
struct Part {
    records: Range<usize>,
    /// What each layer gave.
    outputs: Vec<Vec<f32>>,
    /// The gradient by what each dense layer gave; of the others, room for it on its way.
    slopes: Vec<Vec<f32>>,
    /// The sum of the losses of all values.
    loss: f64,
    /// The gradient of the penalty by the codes.
    penalty: Vec<f32>,
}

impl Dense {
    /// The network of two chains of steps, one after the other; the penalty is on what the first gives. `None` where a
    /// step is none of a dense network, or nothing is learned.
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
        let penalty = sparsity.map(|sparsity| (all.len(), sparsity));
        all.extend(layers(decoder)?);
        let first = all.iter().position(|layer| matches!(layer, Layer::Dense { .. }))?;
        Some(Self { layers: all, first, penalty, loss, parts: Vec::new(), worth_a_thread: WORTH_A_THREAD })
    }

    /// The mean loss over a batch, without the penalty.
    pub fn measure(&mut self, weights: &[Vec<f32>], batch: &Batch) -> f32 {
        let multiplications = batch.records * weights.iter().map(Vec::len).sum::<usize>();
        let worth = (multiplications / self.worth_a_thread).min(batch.records);
        let threads = worth.clamp(1, rayon::current_num_threads());
        let size = batch.records.div_ceil(threads);
        self.parts.resize_with(threads, Part::default);
        for (part, place) in self.parts.iter_mut().zip(0..) {
            part.records = (place * size).min(batch.records)..((place + 1) * size).min(batch.records);
        }
        let (layers, loss) = (&self.layers, self.loss);
        self.parts.par_iter_mut().for_each(|part| {
            part.forward(layers, weights, batch);
            part.lose(loss, batch);
        });
        let sum: f64 = self.parts.iter().map(|part| part.loss).sum();
        (sum / batch.target.len().max(1) as f64) as f32
    }

    /// What is made small, for a batch, and its gradients by the weights.
    pub fn learn(&mut self, weights: &[Vec<f32>], batch: &Batch, gradients: &mut [Vec<f32>]) -> f32 {
        let loss = self.measure(weights, batch);
        let penalty = self.penalise(batch.records);
        let (layers, first, code) = (&self.layers, self.first, self.penalty.map(|(code, _)| code));
        self.parts.par_iter_mut().for_each(|part| part.backward(layers, first, code, weights, batch));
        self.collect(batch, gradients);
        loss + penalty
    }

    /// Adds up the gradients by the weights: each is the product of what went into a layer and the gradient by what came
    /// out. Threads share out the rows.
    fn collect(&self, batch: &Batch, gradients: &mut [Vec<f32>]) {
        let threads = self.parts.len();
        let share = |rows: usize| if threads > 1 { rows.div_ceil(2 * threads) } else { rows };
        let mut rest = gradients;
        rayon::scope(|scope| {
            for (place, layer) in self.layers.iter().enumerate() {
                let Layer::Dense { inputs, outputs, .. } = *layer else { continue };
                let Some((of_layer, behind)) = std::mem::take(&mut rest).split_at_mut_checked(2) else { break };
                rest = behind;
                let [weight, bias] = of_layer else { break };
                let rows = share(inputs);
                for (number, block) in weight.chunks_mut(rows * outputs).enumerate() {
                    let columns = number * rows..number * rows + block.len() / outputs;
                    scope.spawn(move |_| {
                        for (part, before) in self.parts.iter().zip(before()) {
                            let input = Matrix::new(part.input(place, batch), part.records.len(), inputs);
                            let slope = Matrix::new(&part.slopes[place], part.records.len(), outputs);
                            multiply(input.columns(columns.clone()).transposed(), slope, block, before);
                        }
                    });
                }
                bias.fill(0.0);
                self.parts.iter().for_each(|part| pointwise::add_rows(&part.slopes[place], bias));
            }
        });
    }

    /// The penalty on the code, as [`super::objective::penalty`] has it; its gradient is kept beside the codes, where
    /// [`Part::backward`] adds it.
    fn penalise(&mut self, records: usize) -> f32 {
        let Some((code, Sparsity { penalty, weight, target })) = self.penalty else { return 0.0 };
        let place = code.saturating_sub(1);
        let values: usize = self.parts.iter().map(|part| part.outputs[place].len()).sum();
        let share = weight / values.max(1) as f32;
        match penalty {
            Penalty::L1 => {
                let sign = |value: f32| if value == 0.0 { 0.0 } else { value.signum() };
                let mut sum = 0.0;
                for part in &mut self.parts {
                    sum += part.outputs[place].iter().map(|value| value.abs()).sum::<f32>();
                    part.penalty.clear();
                    part.penalty.extend(part.outputs[place].iter().map(|&value| share * sign(value)));
                }
                share * sum
            }
            Penalty::Kl => {
                let units = values / records.max(1);
                let mut means = vec![0.0; units];
                self.parts.iter().for_each(|part| pointwise::add_rows(&part.outputs[place], &mut means));
                means.iter_mut().for_each(|mean| *mean /= records as f32);
                let divergence = |mean: &f32| {
                    let mean = mean.clamp(EPSILON, 1.0 - EPSILON);
                    target * (target / mean).ln() + (1.0 - target) * ((1.0 - target) / (1.0 - mean)).ln()
                };
                let slope = |&mean: &f32| {
                    let inside = (EPSILON..=1.0 - EPSILON).contains(&mean);
                    if inside { share * ((1.0 - target) / (1.0 - mean) - target / mean) } else { 0.0 }
                };
                let slopes: Vec<f32> = means.iter().map(slope).collect();
                for part in &mut self.parts {
                    part.penalty.clear();
                    part.records.clone().for_each(|_| part.penalty.extend_from_slice(&slopes));
                }
                weight * means.iter().map(divergence).sum::<f32>() / units as f32
            }
        }
    }
}

/// The first product takes the place of what was there, the others are added.
fn before() -> impl Iterator<Item = Before> {
    std::iter::once(Before::Replaced).chain(std::iter::repeat(Before::Added))
}

impl Part {
    /// What layer number `place` was given.
    fn input<'a>(&'a self, place: usize, batch: &'a Batch) -> &'a [f32] {
        match place.checked_sub(1) {
            Some(before) => &self.outputs[before],
            None => self.of(batch.input(), batch),
        }
    }

    /// The part of a batch's values.
    fn of<'a>(&self, values: &'a [f32], batch: &Batch) -> &'a [f32] {
        let width = values.len() / batch.records.max(1);
        &values[self.records.start * width..self.records.end * width]
    }

    fn forward(&mut self, layers: &[Layer], weights: &[Vec<f32>], batch: &Batch) {
        let records = self.records.len();
        self.outputs.resize_with(layers.len(), Vec::new);
        for (place, layer) in layers.iter().enumerate() {
            let mut output = std::mem::take(&mut self.outputs[place]);
            let input = self.input(place, batch);
            match *layer {
                Layer::Affine { scale, offset } => {
                    output.resize(input.len(), 0.0);
                    pointwise::affine(input, &mut output, scale, offset);
                }
                Layer::Activate(kind) => {
                    output.resize(input.len(), 0.0);
                    pointwise::activate(kind, input, &mut output);
                }
                Layer::Dense { weight, inputs, outputs } => {
                    output.clear();
                    (0..records).for_each(|_| output.extend_from_slice(&weights[weight + 1]));
                    let matrix = Matrix::new(&weights[weight], inputs, outputs);
                    multiply(Matrix::new(input, records, inputs), matrix, &mut output, Before::Added);
                }
            }
            self.outputs[place] = output;
        }
    }

    /// The loss of what came out, and the gradient of the batch's mean by it.
    fn lose(&mut self, loss: Loss, batch: &Batch) {
        let last = self.outputs.len() - 1;
        self.slopes.resize_with(self.outputs.len(), Vec::new);
        let mut slope = std::mem::take(&mut self.slopes[last]);
        let (output, target) = (&self.outputs[last], self.of(&batch.target, batch));
        slope.resize(output.len(), 0.0);
        let share = 1.0 / batch.target.len().max(1) as f32;
        self.loss = match loss {
            Loss::Mse => pointwise::squared_error(output, target, share, &mut slope),
            Loss::Bce => pointwise::cross_entropy(output, target, share, &mut slope),
        };
        self.slopes[last] = slope;
    }

    /// Carries the gradient back through the layers to the first that learns; `code` layers are before the code, if that
    /// is penalised.
    fn backward(&mut self, layers: &[Layer], first: usize, code: Option<usize>, weights: &[Vec<f32>], batch: &Batch) {
        let records = self.records.len();
        for place in (first..layers.len()).rev() {
            if code == Some(place + 1) {
                self.slopes[place].iter_mut().zip(&self.penalty).for_each(|(slope, penalty)| *slope += penalty);
            }
            if place == first {
                return;
            }
            match layers[place] {
                Layer::Affine { scale, .. } => {
                    self.slopes.swap(place, place - 1);
                    self.slopes[place - 1].iter_mut().for_each(|slope| *slope *= scale);
                }
                Layer::Activate(kind) => {
                    self.slopes.swap(place, place - 1);
                    let mut slope = std::mem::take(&mut self.slopes[place - 1]);
                    pointwise::activate_back(kind, self.input(place, batch), &self.outputs[place], &mut slope);
                    self.slopes[place - 1] = slope;
                }
                Layer::Dense { weight, inputs, outputs } => {
                    let (before, behind) = self.slopes.split_at_mut(place);
                    let slope = &mut before[place - 1];
                    slope.resize(records * inputs, 0.0);
                    let matrix = Matrix::new(&weights[weight], inputs, outputs).transposed();
                    multiply(Matrix::new(&behind[0], records, outputs), matrix, slope, Before::Replaced);
                }
            }
        }
    }
}
