//! Backpropagation: the loss of a network over a batch and its gradients with respect to the
//! weights, with buffers that are reused for each batch.
//!
//! Each thread processes one shard of the batch through all layers and back, so that threads wait
//! for each other three times per step instead of at each layer. Sums over shards are computed in
//! the order of the shards.

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

/// Number of multiplications from which another thread is worthwhile: some ten microseconds of
/// work, several times the cost of waking a thread.
const MULTIPLICATIONS_PER_THREAD: usize = 1 << 20;

/// A network and its buffers for the current batch.
pub struct Backprop {
    encoder: Vec<LayerSpec>,
    decoder: Vec<LayerSpec>,
    loss: Loss,
    sparsity: Option<Sparsity>,
    /// The layers for records of the stored shape.
    plan: Option<(Vec<usize>, LayerPlan)>,
    /// The weights of the convolutions, in the order in which they are multiplied.
    kernels: Vec<Vec<f32>>,
    shards: Vec<BatchShard>,
    /// Number of multiplications from which another thread is worthwhile.
    pub(super) multiplications_per_thread: usize,
}

impl Backprop {
    /// Creates the network of two chains of steps, one after the other; the penalty applies to the
    /// output of the first chain.
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
            multiplications_per_thread: MULTIPLICATIONS_PER_THREAD,
        }
    }

    /// Returns the mean loss over a batch, without the penalty. `weights` are the parameters of
    /// both chains, in order.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub fn loss_of(&mut self, weights: &[Vec<f32>], batch: &TrainingBatch) -> Result<f32, String> {
        let plan = self.planned(&batch.shape)?;
        let loss = self.losses(&plan, weights, batch);
        self.plan = Some((batch.shape.clone(), plan));
        Ok(loss)
    }

    /// Returns the mean loss over a batch with the penalty; writes its gradients with respect to
    /// the weights to `gradients`.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
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
            .for_each(|shard| shard.backward(&plan, code, weights, kernels, batch));
        self.collect(&plan, batch, gradients);
        self.plan = Some((batch.shape.clone(), plan));
        Ok(loss + penalty)
    }

    /// Returns the output of the network for a batch, record after record.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
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
            .flat_map(|shard| shard.output(batch))
            .copied()
            .collect())
    }

    /// Releases the buffers; the next batch allocates them again.
    pub fn release_buffers(&mut self) {
        (self.kernels, self.shards) = (Vec::new(), Vec::new());
    }

    /// Returns the layers for records of a shape. The plan of the previous batch is reused if it
    /// has the same shape.
    fn planned(&mut self, shape: &[usize]) -> Result<LayerPlan, String> {
        match self.plan.take() {
            Some((known, plan)) if known == shape => Ok(plan),
            _ => LayerPlan::new(&self.encoder, &self.decoder, shape),
        }
    }

    fn losses(&mut self, plan: &LayerPlan, weights: &[Vec<f32>], batch: &TrainingBatch) -> f32 {
        let useful_threads = (batch.records * plan.multiplications
            / self.multiplications_per_thread)
            .min(batch.records);
        let threads = useful_threads.clamp(1, rayon::current_num_threads());
        let size = batch.records.div_ceil(threads);
        self.shards.resize_with(threads, BatchShard::default);
        for (shard, number) in self.shards.iter_mut().zip(0..) {
            shard
                .take((number * size).min(batch.records)..((number + 1) * size).min(batch.records));
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
        self.shards.par_iter_mut().for_each(|shard| {
            shard.forward(plan, weights, kernels, batch);
            shard.compute_loss(loss, batch);
        });
        let sum: f64 = self.shards.iter().map(|shard| shard.loss).sum();
        (sum / batch.target.len().max(1) as f64) as f32
    }

    /// Returns the penalty on the code. Stores its gradient next to the codes, where
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
            .map(|shard| shard.codes(code))
            .collect();
        sparsity_penalty::penalty(&sparsity, plan.layers[code].width, &mut codes)
    }

    /// Sums the gradients with respect to the weights. The rows of dense layers and the
    /// convolutions are distributed over the threads.
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
            for (layer_index, layer) in plan.layers.iter().enumerate() {
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
                        let shards_of_layer = self.shards.iter().map(|shard| &shard.sums[number]);
                        let sum = sum_lists(shards_of_layer.clone().map(|sums| &sums.weight));
                        convolution.order().inverse().apply(&sum, weight);
                        bias.copy_from_slice(&sum_lists(shards_of_layer.map(|sums| &sums.bias)));
                    });
                    continue;
                }
                let (inputs, outputs) = (weight.len() / bias.len().max(1), bias.len());
                let rows = share(inputs).max(1);
                for (number, block) in weight.chunks_mut(rows * outputs).enumerate() {
                    let columns = number * rows..number * rows + block.len() / outputs;
                    scope.spawn(move |_| {
                        for (shard, accumulate) in self.shards.iter().zip(accumulate_modes()) {
                            let input = Matrix::new(
                                shard.input(layer_index, batch),
                                shard.records(),
                                inputs,
                            );
                            let gradient = Matrix::new(
                                shard.output_gradient(layer_index),
                                shard.records(),
                                outputs,
                            );
                            multiply(
                                input.columns(columns.clone()).transposed(),
                                gradient,
                                block,
                                accumulate,
                            );
                        }
                    });
                }
                bias.fill(0.0);
                self.shards.iter().for_each(|shard| {
                    elementwise::add_rows(shard.output_gradient(layer_index), bias)
                });
            }
        });
    }
}

/// Returns the sum of lists of numbers, in their order.
fn sum_lists<'a>(mut lists: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    let mut sum = lists.next().cloned().unwrap_or_default();
    lists.for_each(|list| {
        sum.iter_mut()
            .zip(list)
            .for_each(|(sum, value)| *sum += value)
    });
    sum
}

/// The first product replaces the values in the buffer and the following products are added.
fn accumulate_modes() -> impl Iterator<Item = Accumulate> {
    std::iter::once(Accumulate::Replace).chain(std::iter::repeat(Accumulate::Add))
}
