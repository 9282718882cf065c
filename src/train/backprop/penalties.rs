//! The objective of a batch: the loss and the penalties that are added to it.

use rayon::prelude::*;

use crate::train::backprop::Backprop;
use crate::train::backprop::shard::Pass;
use crate::train::config::network::Sparsity;
use crate::train::epoch_sampler::TrainingBatch;
use crate::train::layers::LayerPlan;
use crate::train::sparsity_penalty::{self, CodeGradients};

/// The penalties that are added to the loss of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Penalties {
    /// The penalty on the activations of the code.
    pub sparsity: Option<Sparsity>,
    /// The weight of the KL divergence of the codes of a variational autoencoder.
    pub beta: Option<f32>,
    /// The weight of the squared norm of the Jacobian of the encoder.
    pub contraction: Option<f32>,
}

/// The objective of a batch and its terms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Objective {
    /// The mean loss of a value, without penalties.
    pub reconstruction: f32,
    /// The weighted penalties, as they are added to the loss.
    pub penalty: f32,
    /// The mean KL divergence of a record, in nats; 0 if the code is not a distribution.
    pub divergence: f32,
    /// The mean squared norm of the Jacobian of the encoder, estimated; 0 if it has no penalty.
    pub contraction: f32,
}

impl Objective {
    /// Returns the loss with the penalties.
    pub(crate) fn total(&self) -> f32 {
        self.reconstruction + self.penalty
    }
}

impl Backprop {
    /// Returns the penalty on the code. Stores its gradient next to the codes, where
    /// [`BatchShard::backward`] adds it.
    pub(super) fn penalize(&mut self, plan: &LayerPlan) -> f32 {
        let Some(sparsity) = self.penalties.sparsity else {
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

    /// Returns the mean KL divergence of a record, and its weighted part of the objective.
    pub(super) fn divergence(&self, batch: &TrainingBatch, annealing: f32) -> (f32, f32) {
        let Some(beta) = self.penalties.beta else {
            return (0.0, 0.0);
        };
        let sum: f64 = self.shards.iter().map(|shard| shard.divergence).sum();
        let weighted = sum * f64::from(beta * annealing) / batch.target.len().max(1) as f64;
        ((sum / batch.records.max(1) as f64) as f32, weighted as f32)
    }

    /// Computes the contractive penalty and its gradients. Returns the mean squared norm of the
    /// Jacobian of a record, and its weighted part of the objective.
    pub(super) fn contract(
        &mut self,
        plan: &LayerPlan,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
    ) -> (f32, f32) {
        let Some(contraction) = self.penalties.contraction else {
            return (0.0, 0.0);
        };
        let pass = Pass {
            plan,
            weights,
            shared: &self.shared,
            batch,
            is_training: true,
        };
        let weight = share(contraction, batch);
        self.shards
            .par_iter_mut()
            .for_each(|shard| shard.contract(&pass, weight));
        let sum: f64 = self.shards.iter().map(|shard| shard.tangents.sum).sum();
        let weighted = sum * f64::from(contraction) / batch.target.len().max(1) as f64;
        ((sum / batch.records.max(1) as f64) as f32, weighted as f32)
    }
}

/// Returns the weight of a penalty per record in the mean over the values of a batch.
pub(super) fn share(weight: f32, batch: &TrainingBatch) -> f32 {
    weight / batch.target.len().max(1) as f32
}
