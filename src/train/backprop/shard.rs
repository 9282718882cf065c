//! A shard of a batch: its forward and backward pass through a network, on one thread.

use std::ops::Range;

use crate::model::Loss;
use crate::train::elementwise;
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layers::{ConvolutionGradients, Layer, LayerKind, LayerPlan};
use crate::train::sequential::Activation;
use crate::train::sparsity_penalty::CodeGradients;

/// A shard of a batch. Values are `[records, values]`.
#[derive(Default)]
pub struct BatchShard {
    records: Range<usize>,
    /// The output of each layer.
    outputs: Vec<Vec<f32>>,
    /// The gradient with respect to the output of each dense layer.
    output_gradients: Vec<Vec<f32>>,
    /// The gradient with respect to the output of the current layer in the backward pass.
    gradient: Vec<f32>,
    /// Buffer for the gradient with respect to the input of the current layer.
    next: Vec<f32>,
    /// Gradients with respect to stored values, until the layers in between are done: the number of
    /// layers before the value, and the gradient.
    pending_gradients: Vec<(usize, Vec<f32>)>,
    /// Unused buffers of such gradients.
    spare: Vec<Vec<f32>>,
    /// The gradients with respect to the parameters of each convolution.
    pub sums: Vec<ConvolutionGradients>,
    /// Buffer for windows.
    windows: Vec<f32>,
    /// The sum of the losses of all values.
    pub loss: f64,
    /// The gradient of the penalty with respect to the codes.
    penalty: Vec<f32>,
}

impl BatchShard {
    /// Assigns other records to this shard.
    pub fn take(&mut self, records: Range<usize>) {
        self.records = records;
    }

    /// Returns the number of records.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Returns the input of layer number `layer`.
    pub fn input<'a>(&'a self, layer: usize, batch: &'a TrainingBatch) -> &'a [f32] {
        match layer.checked_sub(1) {
            Some(before) => &self.outputs[before],
            None => self.shard_values(batch.input(), batch),
        }
    }

    /// Returns the output of the network.
    pub fn output<'a>(&'a self, batch: &'a TrainingBatch) -> &'a [f32] {
        self.input(self.outputs.len(), batch)
    }

    /// Returns the gradient with respect to the output of dense layer number `layer`.
    pub fn output_gradient(&self, layer: usize) -> &[f32] {
        &self.output_gradients[layer]
    }

    /// Returns the output of layer number `layer` and the buffer for the gradient of the penalty
    /// with respect to it.
    pub fn codes(&mut self, layer: usize) -> CodeGradients<'_> {
        CodeGradients {
            values: &self.outputs[layer],
            gradient: &mut self.penalty,
        }
    }

    /// Returns the values of this shard among the values of a batch.
    fn shard_values<'a>(&self, values: &'a [f32], batch: &TrainingBatch) -> &'a [f32] {
        let width = values.len() / batch.records.max(1);
        &values[self.records.start * width..self.records.end * width]
    }

    /// Runs all layers. `weights` are the weights of the network, `kernels` those of its
    /// convolutions in the order of multiplication.
    pub fn forward(
        &mut self,
        plan: &LayerPlan,
        weights: &[Vec<f32>],
        kernels: &[Vec<f32>],
        batch: &TrainingBatch,
    ) {
        self.outputs.resize_with(plan.layers.len(), Vec::new);
        for (index, layer) in plan.layers.iter().enumerate() {
            let mut output = std::mem::take(&mut self.outputs[index]);
            output.resize(self.records() * layer.width, 0.0);
            self.layer(index, layer, [weights, kernels], batch, &mut output);
            elementwise::activate(layer.activation, &mut output);
            self.outputs[index] = output;
        }
    }

    fn layer(
        &mut self,
        index: usize,
        layer: &Layer,
        by: [&[Vec<f32>]; 2],
        batch: &TrainingBatch,
        output: &mut [f32],
    ) {
        let ([weights, kernels], records) = (by, self.records());
        let mut buffer = std::mem::take(&mut self.windows);
        let input = self.input(index, batch);
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
                    &mut buffer,
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
        self.windows = buffer;
    }

    /// Computes the loss of the output, and the gradient of the batch's mean loss with respect to
    /// the output.
    pub fn compute_loss(&mut self, loss: Loss, batch: &TrainingBatch) {
        let mut gradient = std::mem::take(&mut self.gradient);
        let (output, target) = (self.output(batch), self.shard_values(&batch.target, batch));
        gradient.resize(output.len(), 0.0);
        let share = 1.0 / batch.target.len().max(1) as f32;
        self.loss = match loss {
            Loss::Mse => elementwise::squared_error(output, target, share, &mut gradient),
            Loss::Bce => elementwise::cross_entropy(output, target, share, &mut gradient),
        };
        self.gradient = gradient;
    }

    /// Propagates the gradient back through the layers to the first that has parameters; `code` is
    /// the number of layers before the code if the code is penalized.
    pub fn backward(
        &mut self,
        plan: &LayerPlan,
        code: Option<usize>,
        weights: &[Vec<f32>],
        kernels: &[Vec<f32>],
        batch: &TrainingBatch,
    ) {
        self.output_gradients
            .resize_with(plan.layers.len(), Vec::new);
        for (index, layer) in plan.layers.iter().enumerate().skip(plan.first).rev() {
            if code == Some(index + 1) {
                add(&mut self.gradient, &self.penalty);
            }
            while let Some((_, pending)) = self
                .pending_gradients
                .pop_if(|(kept, _)| *kept == index + 1)
            {
                add(&mut self.gradient, &pending);
                self.spare.push(pending);
            }
            if layer.activation != Activation::Linear {
                let output = &self.outputs[index];
                elementwise::activate_back(layer.activation, output, output, &mut self.gradient);
            }
            self.layer_back(index, layer, plan.first, [weights, kernels], batch);
        }
    }

    /// Converts the gradient with respect to the output of a layer into the gradient with respect
    /// to its input.
    fn layer_back(
        &mut self,
        index: usize,
        layer: &Layer,
        first: usize,
        by: [&[Vec<f32>]; 2],
        batch: &TrainingBatch,
    ) {
        let ([weights, kernels], records, needs_input_gradient) =
            (by, self.records(), index > first);
        let mut gradient = std::mem::take(&mut self.gradient);
        let mut next = std::mem::take(&mut self.next);
        let values = self.input(index, batch).len();
        match layer.kind {
            LayerKind::Affine { scale, .. } => {
                gradient.iter_mut().for_each(|value| *value *= scale)
            }
            LayerKind::Activate(kind) => {
                elementwise::activate_back(
                    kind,
                    self.input(index, batch),
                    &self.outputs[index],
                    &mut gradient,
                );
            }
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                if needs_input_gradient {
                    next.resize(values, 0.0);
                    let matrix = Matrix::new(&weights[weight], inputs, outputs).transposed();
                    multiply(
                        Matrix::new(&gradient, records, outputs),
                        matrix,
                        &mut next,
                        Accumulate::Replace,
                    );
                }
                // A copy is small next to the products. If the buffers were exchanged, each of them
                // would grow to the size of the largest layer.
                self.output_gradients[index].clone_from(&gradient);
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
                let (mut sums, mut buffer) = (
                    std::mem::take(&mut self.sums[number]),
                    std::mem::take(&mut self.windows),
                );
                convolution.clear(&mut sums);
                next.resize(if needs_input_gradient { values } else { 0 }, 0.0);
                let (input, input_gradient) = (
                    self.input(index, batch),
                    needs_input_gradient.then_some(next.as_mut_slice()),
                );
                convolution.backward(
                    &kernels[number],
                    input,
                    &gradient,
                    input_gradient,
                    &mut sums,
                    &mut buffer,
                );
                (self.sums[number], self.windows) = (sums, buffer);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Rearrange(rearrange) => {
                next.resize(values, 0.0);
                rearrange.inverse().apply(&gradient, &mut next);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Add { kept } if kept > first => {
                let mut pending = self.spare.pop().unwrap_or_default();
                pending.clone_from(&gradient);
                self.pending_gradients.push((kept, pending));
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
