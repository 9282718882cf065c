//! Some records of a batch on their way through a network and back, on one thread.

use std::ops::Range;

use crate::model::Loss;
use crate::train::elementwise;
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layers::{ConvolutionGradients, Layer, LayerKind, LayerPlan};
use crate::train::sequential::Activation;
use crate::train::sparsity_penalty::CodeGradients;

/// Some records of a batch; numbers are `[records, values]`.
#[derive(Default)]
pub struct BatchShard {
    records: Range<usize>,
    /// What each layer gave.
    outputs: Vec<Vec<f32>>,
    /// The gradient by what each dense layer gave.
    slopes: Vec<Vec<f32>>,
    /// The gradient by what the present layer gave, on its way back.
    gradient: Vec<f32>,
    /// Room for the gradient by what it was given.
    next: Vec<f32>,
    /// Gradients by values that were kept, which wait for the layers between: the number of layers
    /// before, the values.
    waiting: Vec<(usize, Vec<f32>)>,
    /// Buffers of gradients that waited.
    spare: Vec<Vec<f32>>,
    /// Of each convolution the gradients by its parameters.
    pub sums: Vec<ConvolutionGradients>,
    /// Room for windows.
    windows: Vec<f32>,
    /// The sum of the losses of all values.
    pub loss: f64,
    /// The gradient of the penalty by the codes.
    penalty: Vec<f32>,
}

impl BatchShard {
    /// Takes other records.
    pub fn take(&mut self, records: Range<usize>) {
        self.records = records;
    }

    /// How many records.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// What layer number `place` was given.
    pub fn input<'a>(&'a self, place: usize, batch: &'a TrainingBatch) -> &'a [f32] {
        match place.checked_sub(1) {
            Some(before) => &self.outputs[before],
            None => self.of(batch.input(), batch),
        }
    }

    /// What the network gave.
    pub fn output<'a>(&'a self, batch: &'a TrainingBatch) -> &'a [f32] {
        self.input(self.outputs.len(), batch)
    }

    /// The gradient by what dense layer number `place` gave.
    pub fn slope(&self, place: usize) -> &[f32] {
        &self.slopes[place]
    }

    /// What layer number `place` gave, with room for the gradient of the penalty by it.
    pub fn codes(&mut self, place: usize) -> CodeGradients<'_> {
        CodeGradients {
            values: &self.outputs[place],
            slopes: &mut self.penalty,
        }
    }

    /// The part of a batch's values.
    fn of<'a>(&self, values: &'a [f32], batch: &TrainingBatch) -> &'a [f32] {
        let width = values.len() / batch.records.max(1);
        &values[self.records.start * width..self.records.end * width]
    }

    /// Runs all layers. `weights` are the network's, `kernels` those of its convolutions as they
    /// are multiplied.
    pub fn forward(
        &mut self,
        plan: &LayerPlan,
        weights: &[Vec<f32>],
        kernels: &[Vec<f32>],
        batch: &TrainingBatch,
    ) {
        self.outputs.resize_with(plan.layers.len(), Vec::new);
        for (place, layer) in plan.layers.iter().enumerate() {
            let mut output = std::mem::take(&mut self.outputs[place]);
            output.resize(self.records() * layer.width, 0.0);
            self.layer(place, layer, [weights, kernels], batch, &mut output);
            elementwise::activate(layer.activation, &mut output);
            self.outputs[place] = output;
        }
    }

    fn layer(
        &mut self,
        place: usize,
        layer: &Layer,
        by: [&[Vec<f32>]; 2],
        batch: &TrainingBatch,
        output: &mut [f32],
    ) {
        let ([weights, kernels], records) = (by, self.records());
        let mut room = std::mem::take(&mut self.windows);
        let input = self.input(place, batch);
        match layer.kind {
            LayerKind::Affine { scale, offset } => {
                elementwise::affine(input, output, scale, offset)
            }
            LayerKind::Activate(kind) => {
                output.copy_from_slice(input);
                elementwise::activate(kind, output);
            }
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                output
                    .chunks_exact_mut(outputs)
                    .for_each(|row| row.copy_from_slice(&weights[weight + 1]));
                let matrix = Matrix::new(&weights[weight], inputs, outputs);
                multiply(
                    Matrix::new(input, records, inputs),
                    matrix,
                    output,
                    Accumulate::Add,
                );
            }
            LayerKind::Convolution {
                weight,
                number,
                convolution,
            } => {
                convolution.forward(
                    &kernels[number],
                    &weights[weight + 1],
                    input,
                    output,
                    &mut room,
                );
            }
            LayerKind::Rearrange(rearrange) => rearrange.apply(input, output),
            LayerKind::Add { kept } => {
                let sums = output
                    .iter_mut()
                    .zip(input.iter().zip(self.input(kept, batch)));
                sums.for_each(|(sum, (a, b))| *sum = a + b);
            }
        }
        self.windows = room;
    }

    /// The loss of what came out, and the gradient of the batch's mean by it.
    pub fn lose(&mut self, loss: Loss, batch: &TrainingBatch) {
        let mut gradient = std::mem::take(&mut self.gradient);
        let (output, target) = (self.output(batch), self.of(&batch.target, batch));
        gradient.resize(output.len(), 0.0);
        let share = 1.0 / batch.target.len().max(1) as f32;
        self.loss = match loss {
            Loss::Mse => elementwise::squared_error(output, target, share, &mut gradient),
            Loss::Bce => elementwise::cross_entropy(output, target, share, &mut gradient),
        };
        self.gradient = gradient;
    }

    /// Carries the gradient back through the layers to the first that learns; `code` layers are
    /// before the code, if that is penalized.
    pub fn backward(
        &mut self,
        plan: &LayerPlan,
        code: Option<usize>,
        weights: &[Vec<f32>],
        kernels: &[Vec<f32>],
        batch: &TrainingBatch,
    ) {
        self.slopes.resize_with(plan.layers.len(), Vec::new);
        for (place, layer) in plan.layers.iter().enumerate().skip(plan.first).rev() {
            if code == Some(place + 1) {
                add(&mut self.gradient, &self.penalty);
            }
            while let Some((_, waited)) = self.waiting.pop_if(|(kept, _)| *kept == place + 1) {
                add(&mut self.gradient, &waited);
                self.spare.push(waited);
            }
            if layer.activation != Activation::Linear {
                let output = &self.outputs[place];
                elementwise::activate_back(layer.activation, output, output, &mut self.gradient);
            }
            self.layer_back(place, layer, plan.first, [weights, kernels], batch);
        }
    }

    /// Turns the gradient by what a layer gave into that by what it was given.
    fn layer_back(
        &mut self,
        place: usize,
        layer: &Layer,
        first: usize,
        by: [&[Vec<f32>]; 2],
        batch: &TrainingBatch,
    ) {
        let ([weights, kernels], records, wanted) = (by, self.records(), place > first);
        let mut gradient = std::mem::take(&mut self.gradient);
        let mut next = std::mem::take(&mut self.next);
        let values = self.input(place, batch).len();
        match layer.kind {
            LayerKind::Affine { scale, .. } => {
                gradient.iter_mut().for_each(|slope| *slope *= scale)
            }
            LayerKind::Activate(kind) => {
                elementwise::activate_back(
                    kind,
                    self.input(place, batch),
                    &self.outputs[place],
                    &mut gradient,
                );
            }
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                if wanted {
                    next.resize(values, 0.0);
                    let matrix = Matrix::new(&weights[weight], inputs, outputs).transposed();
                    multiply(
                        Matrix::new(&gradient, records, outputs),
                        matrix,
                        &mut next,
                        Accumulate::Replace,
                    );
                }
                std::mem::swap(&mut self.slopes[place], &mut gradient);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Convolution {
                number,
                convolution,
                ..
            } => {
                if self.sums.len() <= number {
                    self.sums
                        .resize_with(number + 1, ConvolutionGradients::default);
                }
                let (mut sums, mut room) = (
                    std::mem::take(&mut self.sums[number]),
                    std::mem::take(&mut self.windows),
                );
                convolution.clear(&mut sums);
                next.resize(if wanted { values } else { 0 }, 0.0);
                let (input, by_input) = (
                    self.input(place, batch),
                    wanted.then_some(next.as_mut_slice()),
                );
                convolution.backward(
                    &kernels[number],
                    input,
                    &gradient,
                    by_input,
                    &mut sums,
                    &mut room,
                );
                (self.sums[number], self.windows) = (sums, room);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Rearrange(rearrange) => {
                next.resize(values, 0.0);
                rearrange.inverse().apply(&gradient, &mut next);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Add { kept } if kept > first => {
                let mut waits = self.spare.pop().unwrap_or_default();
                waits.clone_from(&gradient);
                self.waiting.push((kept, waits));
            }
            LayerKind::Add { .. } => {}
        }
        (self.gradient, self.next) = (gradient, next);
    }
}

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum += value);
}
