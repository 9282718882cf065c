//! The passes of a batch forward and back, on all threads.

use rayon::prelude::*;

use crate::train::aligned_values::AlignedValues;
use crate::train::backprop::Backprop;
use crate::train::backprop::penalties::{Penalties, share};
use crate::train::backprop::shard::backward::PenaltyGradients;
use crate::train::backprop::shard::{BatchShard, Pass};
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::layers::normalization::{ChannelStatistics, ChannelSums};
use crate::train::layers::{LayerKind, LayerPlan};
use crate::train::normalization::Normalization;

/// Number of multiplications from which another thread is worthwhile: some ten microseconds of
/// work, several times the cost of waking a thread.
pub(super) const MULTIPLICATIONS_PER_THREAD: usize = 1 << 20;

impl Backprop {
    /// Divides the batch among the threads, and orders the weights of the convolutions.
    fn start(&mut self, plan: &LayerPlan, weights: &[Vec<f32>], batch: &TrainingBatch) {
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
            let kernels = &mut self.shared.kernels;
            if kernels.len() <= met {
                kernels.push(AlignedValues::default());
            }
            convolution.prepare(&weights[weight], &mut kernels[met]);
            met += 1;
        }
    }

    /// Runs the layers. Returns the mean loss of a value. In training, threads wait for each other
    /// before each batch normalization, whose statistics are those of the entire batch.
    pub(super) fn forward(
        &mut self,
        plan: &LayerPlan,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
        is_training: bool,
    ) -> f32 {
        self.start(plan, weights, batch);
        self.use_running_averages(plan, weights);
        let mut waits = match is_training {
            true => plan.batch_normalizations(),
            false => Vec::new(),
        };
        waits.push(plan.layers.len());
        let (mut begin, loss) = (0, self.loss);
        for end in waits {
            let is_last = end == plan.layers.len();
            let pass = Pass {
                plan,
                weights,
                shared: &self.shared,
                batch,
                is_training,
            };
            self.shards.par_iter_mut().for_each(|shard| {
                shard.forward(&pass, begin..end);
                match is_last {
                    true => shard.compute_loss(loss, batch),
                    false => shard.sum_channels(&pass, end),
                }
            });
            if let Some(LayerKind::Normalize {
                number, channels, ..
            }) = plan.layers.get(end).map(|layer| layer.kind)
            {
                let rows = batch.records * plan.layers[end].width / channels;
                let sums = self.channel_sums(number);
                self.shared.statistics[number] = ChannelStatistics::of_batch(&sums, rows);
            }
            begin = end;
        }
        let sum: f64 = self.shards.iter().map(|shard| shard.loss).sum();
        (sum / batch.target.len().max(1) as f64) as f32
    }

    fn use_running_averages(&mut self, plan: &LayerPlan, weights: &[Vec<f32>]) {
        self.shared.statistics.clear();
        for layer in &plan.layers {
            if let LayerKind::Normalize { weight, over, .. } = layer.kind {
                self.shared.statistics.push(match over {
                    Normalization::Batch => {
                        ChannelStatistics::of_averages(&weights[weight + 2], &weights[weight + 3])
                    }
                    Normalization::Layer => ChannelStatistics::default(),
                });
            }
        }
    }

    /// Returns the sums of a normalization over all shards, in their order.
    pub(super) fn channel_sums(&self, number: usize) -> ChannelSums {
        let mut total = ChannelSums::default();
        for shard in &self.shards {
            total.merge(&shard.channel_sums[number]);
        }
        total
    }

    /// Propagates the gradients back to the first layer with parameters. Threads wait for each other
    /// at each batch normalization, as in the forward pass.
    pub(super) fn backward(
        &mut self,
        plan: &LayerPlan,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
        annealing: f32,
    ) {
        let pass = Pass {
            plan,
            weights,
            shared: &self.shared,
            batch,
            is_training: true,
        };
        let Penalties {
            sparsity,
            beta,
            contraction,
        } = self.penalties;
        let penalties = PenaltyGradients {
            code: sparsity.is_some(),
            divergence: share(beta.unwrap_or(0.0) * annealing, batch),
            contraction: contraction.is_some(),
        };
        let mut waits = plan.batch_normalizations();
        let mut end = plan.layers.len();
        loop {
            let wait = waits.pop();
            let begin = wait.map_or(plan.first, |layer| layer + 1);
            self.shards.par_iter_mut().for_each(|shard| {
                shard.backward(&pass, penalties, begin..end);
                if let Some(layer) = wait {
                    shard.begin_batch_normalization(&pass, penalties, layer);
                }
            });
            let Some(layer) = wait else { break };
            if let LayerKind::Normalize { number, .. } = plan.layers[layer].kind {
                let sums = self.channel_sums(number);
                self.shards
                    .par_iter_mut()
                    .for_each(|shard| shard.end_batch_normalization(&pass, layer, &sums));
            }
            end = layer;
        }
    }
}
