//! The trainer of one network: its weights, and the steps that change them.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::backprop::Backprop;
use super::config::TrainingFile;
use super::elementwise;
use super::epoch_sampler::TrainingBatch;
use super::network_builder::{BuiltLayers, BuiltNetwork};
use super::optimizer::OptimizerState;
use super::sequential::{LayerSpec, Parameter};
use super::weight_init::initial;
use crate::model::Loss;

/// A network in training, with its optimizer.
pub struct Trainer {
    backprop: Backprop,
    clip_grad_norm: Option<f32>,
    average: Option<f32>,
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    ema: Vec<Vec<f32>>,
    optimizer: OptimizerState,
}

impl Trainer {
    /// Creates a network with its initial weights.
    pub fn new(file: &TrainingFile, declared: &BuiltNetwork) -> Self {
        let chains = declared.network.chains();
        let parameters: Vec<Parameter> =
            chains.iter().flat_map(|chain| chain.parameters()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(file.head.seed);
        let weights: Vec<Vec<f32>> = chains
            .iter()
            .flat_map(|chain| initial(chain, &mut rng))
            .collect();
        let mut steps: Vec<Vec<LayerSpec>> =
            chains.iter().map(|chain| chain.layers().to_vec()).collect();
        // The loss includes the last sigmoid.
        if declared.loss == Loss::Bce
            && let Some(last) = steps.last_mut()
        {
            last.pop();
        }
        let coded = matches!(declared.network, BuiltLayers::Autoencoder { .. });
        let decoder = if coded {
            steps.pop().unwrap_or_default()
        } else {
            Vec::new()
        };
        let encoder = steps.pop().unwrap_or_default();
        let sparsity = file.sparsity.filter(|_| coded);
        let training = &file.training;
        Self {
            backprop: Backprop::new(encoder, decoder, declared.loss, sparsity),
            clip_grad_norm: training.clip_grad_norm,
            average: training.ema_decay,
            optimizer: OptimizerState::new(training.optimizer, training.weight_decay, &parameters),
            ema: if training.ema_decay.is_some() {
                weights.clone()
            } else {
                Vec::new()
            },
            gradients: weights
                .iter()
                .map(|weight| vec![0.0; weight.len()])
                .collect(),
            weights,
        }
    }

    /// Trains on a batch as step number `step`, counted from 1. Returns the objective before the
    /// step.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub fn step(&mut self, step: u64, rate: f64, batch: &TrainingBatch) -> Result<f32, String> {
        // Runs inside the thread pool, so that the parallel loops do not have to enter it each
        // time.
        rayon::scope(|_| {
            let objective =
                self.backprop
                    .loss_and_gradients(&self.weights, batch, &mut self.gradients)?;
            self.update(step, rate);
            Ok(objective)
        })
    }

    /// Updates the weights from their gradients.
    fn update(&mut self, step: u64, rate: f64) {
        self.clip_grad_norm();
        self.optimizer
            .step(step, rate as f32, &mut self.weights, &self.gradients);
        if let Some(share) = self.average {
            // The decay increases to its configured value (as in TensorFlow), since the initial
            // weights would otherwise dominate the average.
            let share = f64::from(share).min((1.0 + step as f64) / (10.0 + step as f64)) as f32;
            let pairs = self.ema.iter_mut().zip(&self.weights);
            pairs.for_each(|(mean, now)| elementwise::blend(mean, now, share));
        }
    }

    /// Returns the mean loss over a batch, without the penalty, for the weights that would be saved
    /// now.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub fn validation_loss(&mut self, batch: &TrainingBatch) -> Result<f32, String> {
        let kept = if self.average.is_some() {
            &self.ema
        } else {
            &self.weights
        };
        rayon::scope(|_| self.backprop.loss_of(kept, batch))
    }

    /// Scales the gradients of all weights down if their common norm exceeds the maximum.
    fn clip_grad_norm(&mut self) {
        let Some(clip) = self.clip_grad_norm else {
            return;
        };
        let squares: f64 = self
            .gradients
            .iter()
            .map(|gradient| elementwise::squares(gradient))
            .sum();
        let share = (f64::from(clip) / squares.sqrt()) as f32;
        if share < 1.0 {
            self.gradients
                .iter_mut()
                .flatten()
                .for_each(|gradient| *gradient *= share);
        }
    }

    /// Returns the weights that would be saved now: the moving average if there is one; those of
    /// all chains, one after the other.
    pub fn ema_weights(&self) -> &[Vec<f32>] {
        if self.average.is_some() {
            &self.ema
        } else {
            &self.weights
        }
    }

    /// Returns the complete state that the next step depends on: weights, averages, moments.
    pub fn state(&self) -> Vec<Vec<f32>> {
        self.weights
            .iter()
            .chain(&self.ema)
            .chain(self.optimizer.state())
            .cloned()
            .collect()
    }

    /// Restores the state that [`Trainer::state`] has returned.
    ///
    /// # Errors
    /// When the state belongs to a different network.
    pub fn restore(&mut self, state: &[Vec<f32>]) -> Result<(), String> {
        let own: Vec<&mut Vec<f32>> = self
            .weights
            .iter_mut()
            .chain(&mut self.ema)
            .chain(self.optimizer.state_mut())
            .collect();
        let fits = own.len() == state.len()
            && own
                .iter()
                .zip(state)
                .all(|(own, other)| own.len() == other.len());
        if !fits {
            return Err("the checkpoint belongs to a different network".to_owned());
        }
        own.into_iter()
            .zip(state)
            .for_each(|(own, state)| own.clone_from(state));
        Ok(())
    }

    /// Releases the buffers of batches.
    pub fn release_buffers(&mut self) {
        self.backprop.release_buffers();
    }

    /// Returns the number of learned values.
    pub fn size(&self) -> usize {
        self.weights.iter().map(Vec::len).sum()
    }
}
