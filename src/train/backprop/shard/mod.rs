//! A shard of a batch: its forward and backward pass through a network, on one thread.

pub(crate) mod backward;
pub(crate) mod contraction;

use std::ops::Range;

use crate::model::Loss;
use crate::train::aligned_values::AlignedValues;
use crate::train::elementwise;
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layers::normalization::{ChannelStatistics, ChannelSums, normalize_records};
use crate::train::layers::{ConvolutionGradients, Layer, LayerKind, LayerPlan};
use crate::train::normalization::Normalization;
use crate::train::sparsity_penalty::CodeGradients;
use crate::train::variational;

use self::contraction::Tangents;

/// Values that are computed once for all shards.
#[derive(Default)]
pub(crate) struct SharedValues {
    /// The weights of the convolutions, in the order in which they are multiplied.
    pub kernels: Vec<AlignedValues>,
    /// The statistics of the normalizations: running averages, or those of the batch as far as
    /// layers have run. Normalizations of records have none.
    pub statistics: Vec<ChannelStatistics>,
}

/// The values that all shards read in a pass over a batch.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// The layers.
    pub plan: &'a LayerPlan,
    /// The parameters of the network.
    pub weights: &'a [Vec<f32>],
    /// The values that follow from the parameters and from the batch.
    pub shared: &'a SharedValues,
    /// The records.
    pub batch: &'a TrainingBatch,
    /// Whether codes are drawn from their distributions.
    pub is_training: bool,
}

/// A shard of a batch. Values are `[records, values]`.
#[derive(Default)]
pub(crate) struct BatchShard {
    records: Range<usize>,
    /// The output of each layer.
    outputs: Vec<AlignedValues>,
    /// The gradient with respect to the output of each dense layer.
    output_gradients: Vec<AlignedValues>,
    /// The gradient with respect to the output of the current layer in the backward pass.
    gradient: AlignedValues,
    /// Buffer for the gradient with respect to the input of the current layer.
    next: AlignedValues,
    /// Gradients with respect to stored values, until the layers in between are done: the number of
    /// layers before the value, and the gradient.
    pending_gradients: Vec<(usize, AlignedValues)>,
    /// Unused buffers of such gradients.
    spare: Vec<AlignedValues>,
    /// The gradients with respect to the parameters of each convolution.
    pub sums: Vec<ConvolutionGradients>,
    /// Sums over the channels of each normalization: in the forward pass of its values and their
    /// squares, in the backward pass the gradients with respect to bias and factor.
    pub channel_sums: Vec<ChannelSums>,
    /// The moments of the records before each normalization of records.
    moments: Vec<Vec<[f32; 2]>>,
    /// Buffer for windows.
    windows: AlignedValues,
    /// The sum of the losses of all values.
    pub loss: f64,
    /// The sum of the KL divergences of the codes of all records.
    pub divergence: f64,
    /// The noise of the codes that were drawn.
    noise: Vec<f32>,
    /// The derivatives of the codes in a random direction.
    pub tangents: Tangents,
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
    pub(crate) fn output_gradient(&self, layer: usize) -> &[f32] {
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

    /// Runs some of the layers.
    pub fn forward(&mut self, pass: &Pass<'_>, layers: Range<usize>) {
        self.outputs
            .resize_with(pass.plan.layers.len(), AlignedValues::default);
        for index in layers {
            let layer = &pass.plan.layers[index];
            let mut output = std::mem::take(&mut self.outputs[index]);
            output.reset(self.records() * layer.width);
            self.layer(index, layer, pass, &mut output);
            elementwise::activate(layer.activation, &mut output);
            self.outputs[index] = output;
        }
    }

    fn layer(&mut self, index: usize, layer: &Layer, pass: &Pass<'_>, output: &mut [f32]) {
        let (weights, records) = (pass.weights, self.records());
        let mut buffer = std::mem::take(&mut self.windows);
        match layer.kind {
            LayerKind::Normalize { .. } => self.normalize(index, layer, pass, output),
            LayerKind::Sample { code } => self.sample(index, code, pass, output),
            LayerKind::Affine { scale, offset } => {
                elementwise::affine(self.input(index, pass.batch), output, scale, offset)
            }
            LayerKind::Activate(kind) => {
                output.copy_from_slice(self.input(index, pass.batch));
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
                    Matrix::new(self.input(index, pass.batch), records, inputs),
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
                    &pass.shared.kernels[number],
                    &weights[weight + 1],
                    self.input(index, pass.batch),
                    output,
                    &mut buffer,
                );
            }
            LayerKind::Rearrange(rearrange) => {
                rearrange.apply(self.input(index, pass.batch), output)
            }
            LayerKind::Add { kept } => {
                let added = self.input(kept, pass.batch);
                let sums = output
                    .iter_mut()
                    .zip(self.input(index, pass.batch).iter().zip(added));
                sums.for_each(|(sum, (a, b))| *sum = a + b);
            }
            LayerKind::Concat { kept, rows } => {
                let inputs = [index, kept].map(|number| self.input(number, pass.batch));
                let parts = inputs[0].chunks_exact(rows[0]);
                let pairs = parts.zip(inputs[1].chunks_exact(rows[1]));
                for (row, (own, appended)) in output.chunks_exact_mut(rows[0] + rows[1]).zip(pairs)
                {
                    row[..rows[0]].copy_from_slice(own);
                    row[rows[0]..].copy_from_slice(appended);
                }
            }
        }
        self.windows = buffer;
    }

    fn normalize(&mut self, index: usize, layer: &Layer, pass: &Pass<'_>, output: &mut [f32]) {
        let LayerKind::Normalize {
            weight,
            number,
            over,
            ..
        } = layer.kind
        else {
            return;
        };
        let by = [&pass.weights[weight], &pass.weights[weight + 1]].map(Vec::as_slice);
        if over == Normalization::Batch {
            let input = self.input(index, pass.batch);
            return pass.shared.statistics[number].normalize(by, input, output);
        }
        if self.moments.len() <= number {
            self.moments.resize_with(number + 1, Vec::new);
        }
        let mut moments = std::mem::take(&mut self.moments[number]);
        let input = self.input(index, pass.batch);
        normalize_records(by, layer.width, input, output, &mut moments);
        self.moments[number] = moments;
    }

    fn sample(&mut self, index: usize, code: usize, pass: &Pass<'_>, output: &mut [f32]) {
        let mut noise = std::mem::take(&mut self.noise);
        if pass.is_training {
            let seeds = &pass.batch.seeds[self.records.clone()];
            variational::draw_noise(seeds, code, &mut noise);
        }
        let input = self.input(index, pass.batch);
        let drawn = pass.is_training.then_some(noise.as_slice());
        variational::sample(input, drawn, code, output);
        let divergence = variational::divergence(input, code);
        (self.noise, self.divergence) = (noise, divergence);
    }

    /// Computes the sums of the values of each channel before batch normalization `layer`.
    pub(crate) fn sum_channels(&mut self, pass: &Pass<'_>, layer: usize) {
        let LayerKind::Normalize {
            number, channels, ..
        } = pass.plan.layers[layer].kind
        else {
            return;
        };
        let mut sums = self.take_channel_sums(number);
        sums.of_values(channels, self.input(layer, pass.batch));
        self.channel_sums[number] = sums;
    }

    fn take_channel_sums(&mut self, number: usize) -> ChannelSums {
        if self.channel_sums.len() <= number {
            self.channel_sums
                .resize_with(number + 1, ChannelSums::default);
        }
        std::mem::take(&mut self.channel_sums[number])
    }

    /// Computes the loss of the output, and the gradient of the batch's mean loss with respect to
    /// the output.
    pub(crate) fn compute_loss(&mut self, loss: Loss, batch: &TrainingBatch) {
        let mut gradient = std::mem::take(&mut self.gradient);
        let (output, target) = (self.output(batch), self.shard_values(&batch.target, batch));
        gradient.reset(output.len());
        let share = 1.0 / batch.target.len().max(1) as f32;
        self.loss = match loss {
            Loss::Mse => elementwise::squared_error(output, target, share, &mut gradient),
            Loss::Bce => elementwise::cross_entropy(output, target, share, &mut gradient),
            Loss::L1 => elementwise::absolute_error(output, target, share, &mut gradient),
            Loss::Charbonnier => elementwise::charbonnier(output, target, share, &mut gradient),
        };
        self.gradient = gradient;
    }
}
