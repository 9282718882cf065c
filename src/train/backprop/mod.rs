//! Backpropagation: the loss of a network over a batch and its gradients with respect to the
//! weights, with buffers that are reused for each batch.
//!
//! Each thread processes one shard of the batch through all layers and back, so that threads wait
//! for each other three times per step, and twice for each batch normalization, instead of at each
//! layer. Sums over shards are computed in the order of the shards.

mod parameter_gradients;
mod passes;
pub(crate) mod penalties;
mod shard;

use super::epoch_sampler::TrainingBatch;
use super::layers::LayerPlan;
use crate::model::Loss;
use crate::train::layer_spec::LayerSpec;

use self::passes::MULTIPLICATIONS_PER_THREAD;
use self::penalties::{Objective, Penalties};
use self::shard::{BatchShard, SharedValues};

/// A network and its buffers for the current batch.
pub(crate) struct Backprop {
    encoder: Vec<LayerSpec>,
    decoder: Vec<LayerSpec>,
    loss: Loss,
    penalties: Penalties,
    /// The layers for records of the stored shape.
    plan: Option<(Vec<usize>, LayerPlan)>,
    shared: SharedValues,
    shards: Vec<BatchShard>,
    /// Number of multiplications from which another thread is worthwhile.
    pub(super) multiplications_per_thread: usize,
}

impl Backprop {
    /// Creates the network of two chains of steps, one after the other; the penalties apply to the
    /// output of the first chain.
    pub fn new(
        encoder: Vec<LayerSpec>,
        decoder: Vec<LayerSpec>,
        loss: Loss,
        penalties: Penalties,
    ) -> Self {
        Self {
            encoder,
            decoder,
            loss,
            penalties,
            plan: None,
            shared: SharedValues::default(),
            shards: Vec::new(),
            multiplications_per_thread: MULTIPLICATIONS_PER_THREAD,
        }
    }

    /// Returns the objective of a batch in evaluation mode: codes are means, and batch
    /// normalizations use running averages. Of the penalties it has only the KL divergence.
    /// `weights` are the parameters of both chains, in order.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub(in crate::train) fn objective(
        &mut self,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
    ) -> Result<Objective, String> {
        let plan = self.planned(&batch.shape)?;
        let reconstruction = self.forward(&plan, weights, batch, false);
        self.plan = Some((batch.shape.clone(), plan));
        let (divergence, penalty) = self.divergence(batch, 1.0);
        Ok(Objective {
            reconstruction,
            penalty,
            divergence,
            contraction: 0.0,
        })
    }

    /// Returns the objective of a batch; writes its gradients with respect to the weights to
    /// `gradients`, and the statistics of the batch in place of gradients with respect to running
    /// averages. The weight of the KL divergence is multiplied by `annealing`.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub(in crate::train) fn objective_and_gradients(
        &mut self,
        weights: &[Vec<f32>],
        batch: &TrainingBatch,
        annealing: f32,
        gradients: &mut [Vec<f32>],
    ) -> Result<Objective, String> {
        let plan = self.planned(&batch.shape)?;
        let reconstruction = self.forward(&plan, weights, batch, true);
        let sparsity = self.penalize(&plan);
        let (divergence, weighted_divergence) = self.divergence(batch, annealing);
        let (contraction, weighted_contraction) = self.contract(&plan, weights, batch);
        self.backward(&plan, weights, batch, annealing);
        self.collect(&plan, batch, gradients);
        self.plan = Some((batch.shape.clone(), plan));
        Ok(Objective {
            reconstruction,
            penalty: sparsity + weighted_divergence + weighted_contraction,
            divergence,
            contraction,
        })
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
        self.objective(weights, batch)?;
        Ok(self
            .shards
            .iter()
            .flat_map(|shard| shard.output(batch))
            .copied()
            .collect())
    }

    /// Releases the buffers; the next batch allocates them again.
    pub(crate) fn release_buffers(&mut self) {
        (self.shared, self.shards) = (SharedValues::default(), Vec::new());
    }

    /// Returns the layers for records of a shape. The plan of the previous batch is reused if it
    /// has the same shape.
    fn planned(&mut self, shape: &[usize]) -> Result<LayerPlan, String> {
        match self.plan.take() {
            Some((known, plan)) if known == shape => Ok(plan),
            _ => LayerPlan::new(&self.encoder, &self.decoder, shape),
        }
    }
}
