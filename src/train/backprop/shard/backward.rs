//! The gradients of a shard.

use std::ops::Range;

use crate::train::aligned_values::AlignedValues;
use crate::train::backprop::shard::{BatchShard, Pass};
use crate::train::elementwise;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layer_spec::Activation;
use crate::train::layers::normalization::{ChannelSums, records_back};
use crate::train::layers::{ConvolutionGradients, Layer, LayerKind};
use crate::train::normalization::Normalization;
use crate::train::variational;

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum += value);
}

/// The penalties whose gradients join those of the loss.
#[derive(Clone, Copy, Default)]
pub(crate) struct PenaltyGradients {
    /// Whether the code has a penalty on its activations.
    pub code: bool,
    /// The weight of the KL divergence of a record.
    pub divergence: f32,
    /// Whether the derivatives of the code have a penalty.
    pub contraction: bool,
}

impl BatchShard {
    /// Propagates the gradient back through some of the layers, in reverse order. None of them is a
    /// batch normalization, whose gradient needs sums over all shards.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_>,
        penalties: PenaltyGradients,
        layers: Range<usize>,
    ) {
        self.output_gradients
            .resize_with(pass.plan.layers.len(), AlignedValues::default);
        for index in layers.rev() {
            self.output_back(index, pass, penalties);
            self.layer_back(index, pass, penalties);
            let is_activation = matches!(pass.plan.layers[index].kind, LayerKind::Activate(_));
            if is_activation && penalties.contraction {
                self.add_contraction(index);
            }
        }
    }

    /// Adds the gradients that join after a layer, and propagates the sum back through the
    /// activation in place.
    fn output_back(&mut self, index: usize, pass: &Pass<'_>, penalties: PenaltyGradients) {
        if penalties.code && pass.plan.code == index + 1 {
            add(&mut self.gradient, &self.penalty);
        }
        while let Some((_, pending)) = self
            .pending_gradients
            .pop_if(|(kept, _)| *kept == index + 1)
        {
            add(&mut self.gradient, &pending);
            self.spare.push(pending);
        }
        let activation = pass.plan.layers[index].activation;
        if activation != Activation::Linear {
            let output = &self.outputs[index];
            elementwise::activate_back(activation, output, output, &mut self.gradient);
            if penalties.contraction {
                self.add_contraction(index);
            }
        }
    }

    fn add_contraction(&mut self, index: usize) {
        let mut gradient = std::mem::take(&mut self.gradient);
        if let Some(added) = self.contraction_gradient(index) {
            add(&mut gradient, added);
        }
        self.gradient = gradient;
    }

    /// Propagates the gradient back to the output of batch normalization `layer`, and computes the
    /// sums of the shard for [`BatchShard::end_batch_normalization`].
    pub(crate) fn begin_batch_normalization(
        &mut self,
        pass: &Pass<'_>,
        penalties: PenaltyGradients,
        layer: usize,
    ) {
        self.output_back(layer, pass, penalties);
        if let LayerKind::Normalize { number, .. } = pass.plan.layers[layer].kind {
            let mut sums = self.take_channel_sums(number);
            let input = self.input(layer, pass.batch);
            pass.shared.statistics[number].gradient_sums(input, &self.gradient, &mut sums);
            self.channel_sums[number] = sums;
        }
    }

    /// Propagates the gradient back through batch normalization `layer`; `sums` are those of all
    /// shards.
    pub(crate) fn end_batch_normalization(
        &mut self,
        pass: &Pass<'_>,
        layer: usize,
        sums: &ChannelSums,
    ) {
        if let LayerKind::Normalize { number, weight, .. } = pass.plan.layers[layer].kind {
            let mut gradient = std::mem::take(&mut self.gradient);
            let input = self.input(layer, pass.batch);
            pass.shared.statistics[number].back(&pass.weights[weight], sums, input, &mut gradient);
            self.gradient = gradient;
        }
    }

    /// Converts the gradient with respect to the output of a layer into the gradient with respect
    /// to its input.
    fn layer_back(&mut self, index: usize, pass: &Pass<'_>, penalties: PenaltyGradients) {
        let (layer, first, records) = (&pass.plan.layers[index], pass.plan.first, self.records());
        let needs_input_gradient = index > first;
        let mut gradient = std::mem::take(&mut self.gradient);
        let mut next = std::mem::take(&mut self.next);
        let values = self.input(index, pass.batch).len();
        match layer.kind {
            LayerKind::Affine { scale, .. } => {
                gradient.iter_mut().for_each(|value| *value *= scale)
            }
            LayerKind::Activate(kind) => {
                let (input, output) = (self.input(index, pass.batch), &self.outputs[index]);
                elementwise::activate_back(kind, input, output, &mut gradient);
            }
            LayerKind::Dense {
                weight,
                inputs,
                outputs,
            } => {
                if needs_input_gradient {
                    next.reset(values);
                    let matrix = Matrix::new(&pass.weights[weight], inputs, outputs).transposed();
                    multiply(
                        Matrix::new(&gradient, records, outputs),
                        matrix,
                        &mut next,
                        Accumulate::Replace,
                    );
                }
                // A copy is small next to the products. If the buffers were exchanged, each of them
                // would grow to the size of the largest layer.
                self.output_gradients[index].copy_from(&gradient);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Convolution { .. } => {
                next.reset(if needs_input_gradient { values } else { 0 });
                self.convolution_back(index, pass, &gradient, &mut next);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Normalize { .. } => self.normalize_back(index, layer, pass, &mut gradient),
            LayerKind::Sample { code } => {
                next.reset(values);
                let inputs = [
                    self.input(index, pass.batch),
                    self.noise.as_slice(),
                    &*gradient,
                ];
                variational::sample_back(inputs, code, penalties.divergence, &mut next);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Rearrange(rearrange) => {
                next.reset(values);
                rearrange.inverse().apply(&gradient, &mut next);
                std::mem::swap(&mut gradient, &mut next);
            }
            LayerKind::Concat { kept, rows } => {
                let mut pending = self.spare.pop().unwrap_or_default();
                let count = gradient.len() / (rows[0] + rows[1]);
                next.reset(count * rows[0]);
                pending.reset(count * rows[1]);
                let parts = next
                    .chunks_exact_mut(rows[0])
                    .zip(pending.chunks_exact_mut(rows[1]));
                for (row, (own, appended)) in gradient.chunks_exact(rows[0] + rows[1]).zip(parts) {
                    own.copy_from_slice(&row[..rows[0]]);
                    appended.copy_from_slice(&row[rows[0]..]);
                }
                std::mem::swap(&mut gradient, &mut next);
                if kept > first {
                    self.pending_gradients.push((kept, pending));
                } else {
                    self.spare.push(pending);
                }
            }
            LayerKind::Add { kept } if kept > first => {
                let mut pending = self.spare.pop().unwrap_or_default();
                pending.copy_from(&gradient);
                self.pending_gradients.push((kept, pending));
            }
            LayerKind::Add { .. } => {}
        }
        (self.gradient, self.next) = (gradient, next);
    }

    fn convolution_back(
        &mut self,
        index: usize,
        pass: &Pass<'_>,
        gradient: &[f32],
        input_gradient: &mut [f32],
    ) {
        let LayerKind::Convolution {
            number,
            convolution,
            ..
        } = pass.plan.layers[index].kind
        else {
            return;
        };
        if self.sums.len() <= number {
            self.sums
                .resize_with(number + 1, ConvolutionGradients::default);
        }
        let mut sums = std::mem::take(&mut self.sums[number]);
        let mut buffer = std::mem::take(&mut self.windows);
        convolution.clear(&mut sums);
        convolution.backward(
            &pass.shared.kernels[number],
            self.input(index, pass.batch),
            gradient,
            (index > pass.plan.first).then_some(input_gradient),
            &mut sums,
            &mut buffer,
        );
        (self.sums[number], self.windows) = (sums, buffer);
    }

    /// Propagates the gradient back through a normalization of records.
    fn normalize_back(
        &mut self,
        index: usize,
        layer: &Layer,
        pass: &Pass<'_>,
        gradient: &mut [f32],
    ) {
        if let LayerKind::Normalize {
            weight,
            number,
            over: Normalization::Layer,
            ..
        } = layer.kind
        {
            let mut sums = self.take_channel_sums(number);
            let (input, moments) = (self.input(index, pass.batch), &self.moments[number]);
            records_back(&pass.weights[weight], moments, input, gradient, &mut sums);
            self.channel_sums[number] = sums;
        }
    }
}
