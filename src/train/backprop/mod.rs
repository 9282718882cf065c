//! The loss of a network over a batch and its gradients by the weights, over buffers that stay from
//! batch to batch.
//!
//! Each thread takes a part of the batch through all layers and back, so that threads wait for each
//! other three times a step rather than at each layer. Sums over parts are taken in the order of
//! the parts.

mod shard;

use rayon::prelude::*;

use self::shard::BatchShard;
use super::config::Sparsity;
use super::elementwise;
use super::epoch_sampler::TrainingBatch;
use super::gemm::{Accumulate, Matrix, multiply};
use super::layers::{LayerKind, LayerPlan};
use super::sequential::LayerSpec;
use super::sparsity_penalty::{self, CodeGradients};
use crate::model::Loss;

/// Multiplications that are worth another thread: some ten microseconds of work, several times what
/// it takes to wake one.
const WORTH_A_THREAD: usize = 1 << 20;

/// A network, and what it remembers of the present batch.
pub struct Backprop {
    encoder: Vec<LayerSpec>,
    decoder: Vec<LayerSpec>,
    loss: Loss,
    sparsity: Option<Sparsity>,
    /// The layers for records of the shape beside them.
    plan: Option<(Vec<usize>, LayerPlan)>,
    /// The weights of the convolutions, in the order in which they are multiplied.
    kernels: Vec<Vec<f32>>,
    shards: Vec<BatchShard>,
    /// Multiplications that are worth another thread.
    pub(super) worth_a_thread: usize,
}

impl Backprop {
    /// The network of two chains of steps, one after the other; the penalty is on what the first
    /// gives.
    pub fn new(
        encoder: Vec<LayerSpec>,
        decoder: Vec<LayerSpec>,
        loss: Loss,
        sparsity: Option<Sparsity>,
    ) -> Self {
        let (kernels, shards) = (Vec::new(), Vec::new());
        Self {
            encoder,
            decoder,
            loss,
            sparsity,
            plan: None,
            kernels,
            shards,
            worth_a_thread: WORTH_A_THREAD,
        }
    }

    /// The mean loss over a batch, without the penalty. `weights` are the parameters of both
    /// chains, in order.
    ///
    /// # Errors
    /// When the network cannot take records of this shape.
    pub fn loss_of(&mut self, weights: &[Vec<f32>], batch: &TrainingBatch) -> Result<f32, String> {
        let plan = self.planned(&batch.shape)?;
        let loss = self.losses(&plan, weights, batch);
        self.plan = Some((batch.shape.clone(), plan));
        Ok(loss)
    }

    /// The mean loss over a batch with the penalty, and its gradients by the weights.
    ///
    /// # Errors
    /// When the network cannot take records of this shape.
    pub fn loss_and_gradients(
        &mut self,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
        gradients: &mut [Vec<f32>],
    ) -> Result<f32, String> {
        let plan = self.planned(&batch.shape)?;
        let loss = self.losses(&plan, weights, batch);
        let penalty = self.penalize(&plan);
        let code = self.sparsity.map(|_| plan.code);
        let kernels = &self.kernels;
        self.shards
            .par_iter_mut()
            .for_each(|part| part.backward(&plan, code, weights, kernels, batch));
        self.collect(&plan, batch, gradients);
        self.plan = Some((batch.shape.clone(), plan));
        Ok(loss + penalty)
    }

    /// What the network gives for a batch, record after record.
    ///
    /// # Errors
    /// When the network cannot take records of this shape.
    #[cfg(test)]
    pub fn output(
        &mut self,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
    ) -> Result<Vec<f32>, String> {
        self.loss_of(weights, batch)?;
        Ok(self
            .shards
            .iter()
            .flat_map(|part| part.output(batch))
            .copied()
            .collect())
    }

    /// The layers for records of a shape; those of the batch before, where it had the same shape.
    fn planned(&mut self, shape: &[usize]) -> Result<LayerPlan, String> {
        match self.plan.take() {
            Some((known, plan)) if known == shape => Ok(plan),
            _ => LayerPlan::new(&self.encoder, &self.decoder, shape),
        }
    }

    fn losses(&mut self, plan: &LayerPlan, weights: &[Vec<f32>], batch: &TrainingBatch) -> f32 {
        let worth = (batch.records * plan.multiplications / self.worth_a_thread).min(batch.records);
        let threads = worth.clamp(1, rayon::current_num_threads());
        let size = batch.records.div_ceil(threads);
        self.shards.resize_with(threads, BatchShard::default);
        for (part, place) in self.shards.iter_mut().zip(0..) {
            part.take((place * size).min(batch.records)..((place + 1) * size).min(batch.records));
        }
        let mut met = 0;
        for layer in &plan.layers {
            let LayerKind::Convolution {
                weight,
                convolution,
                ..
            } = layer.kind
            else {
                continue;
            };
            if self.kernels.len() <= met {
                self.kernels.push(Vec::new());
            }
            let kernel = &mut self.kernels[met];
            kernel.resize(weights[weight].len(), 0.0);
            convolution.order().apply(&weights[weight], kernel);
            met += 1;
        }
        let (kernels, loss) = (&self.kernels, self.loss);
        self.shards.par_iter_mut().for_each(|part| {
            part.forward(plan, weights, kernels, batch);
            part.lose(loss, batch);
        });
        let sum: f64 = self.shards.iter().map(|part| part.loss).sum();
        (sum / batch.target.len().max(1) as f64) as f32
    }

    /// The penalty on the code; its gradient is kept beside the codes, where
    /// [`BatchShard::backward`] adds it.
    fn penalize(&mut self, plan: &LayerPlan) -> f32 {
        let Some(sparsity) = self.sparsity else {
            return 0.0;
        };
        let Some(code) = plan.code.checked_sub(1) else {
            return 0.0;
        };
        let mut codes: Vec<CodeGradients<'_>> = self
            .shards
            .iter_mut()
            .map(|part| part.codes(code))
            .collect();
        sparsity_penalty::penalty(&sparsity, plan.layers[code].width, &mut codes)
    }

    /// Adds up the gradients by the weights. Threads share out the rows of dense layers, and the
    /// convolutions.
    fn collect(&self, plan: &LayerPlan, batch: &TrainingBatch, gradients: &mut [Vec<f32>]) {
        let threads = self.shards.len();
        let share = |rows: usize| {
            if threads > 1 {
                rows.div_ceil(2 * threads)
            } else {
                rows
            }
        };
        let mut rest = gradients;
        rayon::scope(|scope| {
            for (place, layer) in plan.layers.iter().enumerate() {
                let convolution = match layer.kind {
                    LayerKind::Dense { .. } => None,
                    LayerKind::Convolution {
                        number,
                        convolution,
                        ..
                    } => Some((number, convolution)),
                    _ => continue,
                };
                let Some((of_layer, behind)) = std::mem::take(&mut rest).split_at_mut_checked(2)
                else {
                    break;
                };
                rest = behind;
                let [weight, bias] = of_layer else { break };
                if let Some((number, convolution)) = convolution {
                    scope.spawn(move |_| {
                        let parts = self.shards.iter().map(|part| &part.sums[number]);
                        let sum = added(parts.clone().map(|sums| &sums.weight));
                        convolution.order().inverse().apply(&sum, weight);
                        bias.copy_from_slice(&added(parts.map(|sums| &sums.bias)));
                    });
                    continue;
                }
                let (inputs, outputs) = (weight.len() / bias.len().max(1), bias.len());
                let rows = share(inputs).max(1);
                for (number, block) in weight.chunks_mut(rows * outputs).enumerate() {
                    let columns = number * rows..number * rows + block.len() / outputs;
                    scope.spawn(move |_| {
                        for (part, before) in self.shards.iter().zip(before()) {
                            let input =
                                Matrix::new(part.input(place, batch), part.records(), inputs);
                            let slope = Matrix::new(part.slope(place), part.records(), outputs);
                            multiply(
                                input.columns(columns.clone()).transposed(),
                                slope,
                                block,
                                before,
                            );
                        }
                    });
                }
                bias.fill(0.0);
                self.shards
                    .iter()
                    .for_each(|part| elementwise::add_rows(part.slope(place), bias));
            }
        });
    }
}

/// The sum of lists of numbers, in their order.
fn added<'a>(mut lists: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    let mut sum = lists.next().cloned().unwrap_or_default();
    lists.for_each(|list| {
        sum.iter_mut()
            .zip(list)
            .for_each(|(sum, value)| *sum += value)
    });
    sum
}

/// The first product takes the place of what was there, the others are added.
fn before() -> impl Iterator<Item = Accumulate> {
    std::iter::once(Accumulate::Replace).chain(std::iter::repeat(Accumulate::Add))
}
