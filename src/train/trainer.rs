//! The trainer of one network: its weights, and the steps that change them.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::backprop::Backprop;
use super::backprop::penalties::{Objective, Penalties};
use super::config::TrainingFile;
use super::elementwise;
use super::epoch_sampler::TrainingBatch;
use super::layers::transposed;
use super::network_builder::{BuiltLayers, BuiltNetwork, Tie};
use super::optimizer::OptimizerState;
use super::weight_init::initial;
use crate::model::Loss;
use crate::train::config::network::ModelKind;
use crate::train::layer_spec::LayerSpec;
use crate::train::parameter::Parameter;

/// A network in training, with its optimizer.
pub(crate) struct Trainer {
    backprop: Backprop,
    clip_grad_norm: Option<f32>,
    average: Option<f32>,
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    /// Whether each parameter is learned.
    learned: Vec<bool>,
    ties: Vec<Tie>,
    ema: Vec<Vec<f32>>,
    optimizer: OptimizerState,
}

impl Trainer {
    /// Creates a network with its initial weights.
    pub fn new(file: &TrainingFile, declared: &BuiltNetwork) -> Self {
        let chains = declared.network.chains();
        let parameters: Vec<Parameter> = declared.parameters();
        let ties = declared.ties();
        let mut rng = ChaCha8Rng::seed_from_u64(file.head.seed);
        let mut weights: Vec<Vec<f32>> = chains
            .iter()
            .flat_map(|chain| initial(chain, &mut rng))
            .collect();
        copy_tied(&ties, &mut weights);
        let mut steps: Vec<Vec<LayerSpec>> =
            chains.iter().map(|chain| chain.layers().to_vec()).collect();
        // The loss includes the last sigmoid.
        if declared.loss == Loss::Bce
            && let Some(index) = declared.last_sigmoid()
            && let Some(last) = steps.last_mut()
        {
            last.remove(index);
        }
        let coded = matches!(declared.network, BuiltLayers::Autoencoder { .. });
        let decoder = if coded {
            steps.pop().unwrap_or_default()
        } else {
            Vec::new()
        };
        let encoder = steps.pop().unwrap_or_default();
        let is_variational = file.head.kind.has(ModelKind::Variational);
        let penalties = Penalties {
            sparsity: file.sparsity.filter(|_| coded),
            beta: is_variational.then_some(file.head.beta.unwrap_or(1.0)),
            contraction: file.head.contraction,
        };
        let training = &file.training;
        Self {
            backprop: Backprop::new(encoder, decoder, declared.loss, penalties),
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
            learned: parameters
                .iter()
                .map(|parameter| parameter.role.is_learned())
                .collect(),
            ties,
            weights,
        }
    }

    /// Trains on a batch as step number `step`, counted from 1. The weight of the KL divergence is
    /// multiplied by `annealing`. Returns the objective before the step.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub(in crate::train) fn step(
        &mut self,
        step: u64,
        rate: f64,
        annealing: f32,
        batch: &TrainingBatch,
    ) -> Result<Objective, String> {
        // Runs inside the thread pool, so that the parallel loops do not have to enter it each
        // time.
        rayon::scope(|_| {
            let objective = self.backprop.objective_and_gradients(
                &self.weights,
                batch,
                annealing,
                &mut self.gradients,
            )?;
            self.update(step, rate);
            Ok(objective)
        })
    }

    /// Updates the weights from their gradients.
    fn update(&mut self, step: u64, rate: f64) {
        self.add_tied_gradients();
        self.clip_grad_norm();
        self.optimizer
            .step(step, rate as f32, &mut self.weights, &self.gradients);
        copy_tied(&self.ties, &mut self.weights);
        if let Some(share) = self.average {
            // The decay increases to its configured value (as in TensorFlow), since the initial
            // weights would otherwise dominate the average.
            let share = f64::from(share).min((1.0 + step as f64) / (10.0 + step as f64)) as f32;
            let pairs = self.ema.iter_mut().zip(&self.weights);
            pairs.for_each(|(mean, now)| elementwise::blend(mean, now, share));
        }
    }

    /// Adds the gradients of the decoder to those of the encoder with the same weights.
    fn add_tied_gradients(&mut self) {
        for tie in &self.ties {
            let [rows, columns] = tie.shape;
            let added = transposed(&self.gradients[tie.decoder], columns, rows);
            let own = self.gradients[tie.encoder].iter_mut();
            own.zip(added).for_each(|(sum, value)| *sum += value);
        }
    }

    /// Returns the objective of a batch in evaluation mode for the weights that would be saved now.
    /// Of the penalties it has only the KL divergence.
    ///
    /// # Errors
    /// When the network cannot process records of this shape.
    pub(in crate::train) fn validation_objective(
        &mut self,
        batch: &TrainingBatch,
    ) -> Result<Objective, String> {
        let kept = if self.average.is_some() {
            &self.ema
        } else {
            &self.weights
        };
        rayon::scope(|_| self.backprop.objective(kept, batch))
    }

    /// Scales the gradients of all weights down if their common norm exceeds the maximum.
    fn clip_grad_norm(&mut self) {
        let Some(clip) = self.clip_grad_norm else {
            return;
        };
        let learned = self.gradients.iter().zip(&self.learned);
        let squares: f64 = learned
            .filter(|(_, is_learned)| **is_learned)
            .map(|(gradient, _)| elementwise::squares(gradient))
            .sum();
        let share = (f64::from(clip) / squares.sqrt()) as f32;
        if share < 1.0 {
            let gradients = self.gradients.iter_mut().zip(&self.learned);
            gradients
                .filter(|(_, is_learned)| **is_learned)
                .flat_map(|(gradient, _)| gradient)
                .for_each(|gradient| *gradient *= share);
        }
    }

    /// Returns the weights that would be saved now: the moving average if there is one; those of
    /// all chains, one after the other.
    pub(crate) fn ema_weights(&self) -> &[Vec<f32>] {
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
    pub(in crate::train) fn restore(&mut self, state: &[Vec<f32>]) -> Result<(), String> {
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
    pub(crate) fn release_buffers(&mut self) {
        self.backprop.release_buffers();
    }

    /// Returns the number of learned values.
    pub fn size(&self) -> usize {
        let all = self.weights.iter().zip(&self.learned);
        all.filter(|(_, is_learned)| **is_learned)
            .map(|(weights, _)| weights.len())
            .sum()
    }
}

/// Writes the transposes of the weights of the encoder to those of the decoder.
fn copy_tied(ties: &[Tie], weights: &mut [Vec<f32>]) {
    for tie in ties {
        let [rows, columns] = tie.shape;
        weights[tie.decoder] = transposed(&weights[tie.encoder], rows, columns);
    }
}
