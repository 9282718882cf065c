//! The gradients of a batch with respect to the parameters, summed over the shards in their order.

use std::ops::Range;

use crate::train::backprop::Backprop;
use crate::train::elementwise;
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::gemm::{Accumulate, Matrix, multiply};
use crate::train::layers::{LayerKind, LayerPlan};
use crate::train::normalization::Normalization;

impl Backprop {
    /// Sums the gradients with respect to the weights. The rows of dense layers and the
    /// convolutions are distributed over the threads.
    pub(super) fn collect(
        &self,
        plan: &LayerPlan,
        batch: &TrainingBatch,
        gradients: &mut [Vec<f32>],
    ) {
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
                let count = match layer.kind {
                    LayerKind::Normalize {
                        over: Normalization::Batch,
                        ..
                    } => 4,
                    LayerKind::Dense { .. }
                    | LayerKind::Convolution { .. }
                    | LayerKind::Normalize { .. } => 2,
                    _ => continue,
                };
                let Some((of_layer, behind)) =
                    std::mem::take(&mut rest).split_at_mut_checked(count)
                else {
                    break;
                };
                rest = behind;
                let [weight, bias, averages @ ..] = of_layer else {
                    break;
                };
                match layer.kind {
                    LayerKind::Convolution {
                        number,
                        convolution,
                        ..
                    } => scope.spawn(move |_| {
                        let shards_of_layer = self.shards.iter().map(|shard| &shard.sums[number]);
                        let sum = sum_lists(shards_of_layer.clone().map(|sums| &sums.weight));
                        convolution.order().inverse().apply(&sum, weight);
                        bias.copy_from_slice(&sum_lists(shards_of_layer.map(|sums| &sums.bias)));
                    }),
                    LayerKind::Normalize { number, .. } => {
                        self.collect_normalization(number, [weight, bias], averages);
                    }
                    _ => {
                        let (inputs, outputs) = (weight.len() / bias.len().max(1), bias.len());
                        let rows = share(inputs).max(1);
                        for (number, block) in weight.chunks_mut(rows * outputs).enumerate() {
                            let columns = number * rows..number * rows + block.len() / outputs;
                            scope.spawn(move |_| {
                                self.collect_rows(
                                    layer_index,
                                    batch,
                                    columns,
                                    [inputs, outputs],
                                    block,
                                );
                            });
                        }
                        bias.fill(0.0);
                        self.shards.iter().for_each(|shard| {
                            elementwise::add_rows(shard.output_gradient(layer_index), bias)
                        });
                    }
                }
            }
        });
    }

    /// Sums the gradients with respect to the factors and the biases of a normalization, and copies
    /// the statistics of the batch.
    fn collect_normalization(
        &self,
        number: usize,
        [factor, bias]: [&mut Vec<f32>; 2],
        averages: &mut [Vec<f32>],
    ) {
        let sums = self.channel_sums(number);
        for (gradient, sum) in [(bias, &sums.first), (factor, &sums.second)] {
            gradient
                .iter_mut()
                .zip(sum)
                .for_each(|(gradient, sum)| *gradient = *sum as f32);
        }
        if let [mean, variance] = averages {
            let statistics = &self.shared.statistics[number];
            mean.copy_from_slice(&statistics.mean);
            variance.copy_from_slice(&statistics.variance);
        }
    }

    /// Writes the gradients with respect to some rows of a dense layer to `block`: the products of
    /// inputs and gradients, and of their derivatives if the encoder has a contractive penalty.
    fn collect_rows(
        &self,
        layer: usize,
        batch: &TrainingBatch,
        columns: Range<usize>,
        [inputs, outputs]: [usize; 2],
        block: &mut [f32],
    ) {
        let is_contracted = self.penalties.contraction.is_some();
        for (shard, accumulate) in self.shards.iter().zip(accumulate_modes()) {
            let mut add = |input: &[f32], gradient: &[f32], mode: Accumulate| {
                let input = Matrix::new(input, shard.records(), inputs);
                let gradient = Matrix::new(gradient, shard.records(), outputs);
                multiply(
                    input.columns(columns.clone()).transposed(),
                    gradient,
                    block,
                    mode,
                );
            };
            add(
                shard.input(layer, batch),
                shard.output_gradient(layer),
                accumulate,
            );
            let tangents = &shard.tangents;
            if let (true, Some(input), Some(gradient)) = (
                is_contracted,
                tangents.inputs.get(layer),
                tangents.gradients.get(layer),
            ) {
                add(input, gradient, Accumulate::Add);
            }
        }
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
