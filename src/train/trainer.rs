//! One network in training: its weights on the device, and what a step does to them.

use burn_tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::batches::Batch;
use super::declared::{Declared, Network};
use super::net::{Parameter, Step};
use super::objective::{loss, penalty};
use super::optimiser::Optimising;
use super::spec::{Sparsity, TrainingFile};
use super::tensors::{Value, download, forward, initial, upload};
use crate::model::Loss;

/// A network in training.
pub struct Trainer {
    /// To the code; of a network without one, all of it.
    encoder: Vec<Step>,
    /// From the code, without the sigmoid that the loss contains.
    decoder: Vec<Step>,
    /// Whether there is a code.
    coded: bool,
    loss: Loss,
    sparsity: Option<Sparsity>,
    clip: Option<f32>,
    average: Option<f32>,
    device: Device,
    weights: Vec<Tensor<1>>,
    averaged: Vec<Tensor<1>>,
    optimiser: Optimising,
}

impl Trainer {
    /// A network with its first weights.
    pub fn new(file: &TrainingFile, declared: &Declared, device: Device) -> Self {
        let chains = declared.network.chains();
        let parameters: Vec<Parameter> = chains.iter().flat_map(|chain| chain.parameters()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(file.head.seed);
        let first: Vec<Vec<f32>> = chains.iter().flat_map(|chain| initial(chain, &mut rng)).collect();
        let weights: Vec<Tensor<1>> = first.iter().map(|values| upload(values, &device)).collect();
        let mut steps: Vec<Vec<Step>> = chains.iter().map(|chain| chain.steps().to_vec()).collect();
        if declared.loss == Loss::Bce
            && let Some(last) = steps.last_mut()
        {
            last.pop();
        }
        let coded = matches!(declared.network, Network::Autoencoder { .. });
        let decoder = if coded { steps.pop().unwrap_or_default() } else { Vec::new() };
        let training = &file.training;
        Self {
            encoder: steps.pop().unwrap_or_default(),
            decoder,
            coded,
            loss: declared.loss,
            sparsity: file.sparsity,
            clip: training.clip,
            average: training.average,
            optimiser: Optimising::new(training.optimiser, training.weight_decay, &parameters, &device),
            averaged: if training.average.is_some() { weights.clone() } else { Vec::new() },
            weights,
            device,
        }
    }

    /// Learns from a batch, as step number `step`, counted from 1. Gives the objective before the step, on the device.
    pub fn step(&mut self, step: u64, rate: f64, batch: Batch) -> Tensor<1> {
        let leaves: Vec<Tensor<1>> =
            self.weights.iter().map(|weight| weight.clone().autodiff().require_grad()).collect();
        let (reconstruction, penalty) = self.objective(&leaves, batch, &self.device.clone().autodiff());
        let objective = penalty.map_or(reconstruction.clone(), |penalty| reconstruction + penalty);
        let mut found = objective.backward();
        let gradient = |(leaf, weight): (&Tensor<1>, &Tensor<1>)| {
            leaf.grad_remove(&mut found).unwrap_or_else(|| weight.zeros_like())
        };
        let gradients: Vec<Tensor<1>> = leaves.iter().zip(&self.weights).map(gradient).collect();
        let gradients = self.clipped(gradients);
        self.weights = self.optimiser.step(step, rate as f32, &self.weights, gradients);
        if let Some(share) = self.average {
            // The first steps would weigh as much as the beginning: the share grows to its height (as in TensorFlow).
            let share = f64::from(share).min((1.0 + step as f64) / (10.0 + step as f64)) as f32;
            let pairs = self.averaged.iter().zip(&self.weights);
            let mixed = pairs.map(|(mean, now)| mean.clone().mul_scalar(share) + now.clone().mul_scalar(1.0 - share));
            self.averaged = mixed.collect();
        }
        objective.inner()
    }

    /// The mean loss over a batch, without the penalty, by the weights that would be kept now.
    pub fn measure(&self, batch: Batch) -> Tensor<1> {
        self.objective(self.kept(), batch, &self.device).0
    }

    fn objective(&self, weights: &[Tensor<1>], batch: Batch, device: &Device) -> (Tensor<1>, Option<Tensor<1>>) {
        let Batch { records, shape, input, target } = batch;
        let clean = Value::new(target, records, &shape, device);
        let input = if input.is_empty() { clean.clone() } else { Value::new(input, records, &shape, device) };
        let mut weights = weights.iter();
        let code = forward(&self.encoder, &mut weights, input);
        let penalty = self.sparsity.filter(|_| self.coded).map(|sparsity| penalty(&sparsity, code.clone().flat()));
        let output = if self.coded { forward(&self.decoder, &mut weights, code) } else { code };
        (loss(self.loss, output.flat(), clean.flat()), penalty)
    }

    fn clipped(&self, gradients: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        let Some(clip) = self.clip else { return gradients };
        let squares = gradients.iter().map(|gradient| (gradient.clone() * gradient.clone()).sum());
        let Some(sum) = squares.reduce(|sum, square| sum + square) else { return gradients };
        let share = sum.sqrt().add_scalar(1e-12).recip().mul_scalar(clip).clamp_max(1.0);
        gradients.into_iter().map(|gradient| gradient * share.clone()).collect()
    }

    /// The weights that would be kept now: the running mean, where there is one.
    fn kept(&self) -> &[Tensor<1>] {
        if self.average.is_some() { &self.averaged } else { &self.weights }
    }

    /// The weights that would be kept now, of all chains one after the other.
    ///
    /// # Errors
    /// When the device failed.
    pub fn kept_weights(&self) -> Result<Vec<Vec<f32>>, String> {
        self.kept().iter().map(|weight| download(weight.clone())).collect()
    }

    /// Everything that the next step depends on: weights, running means, moments.
    ///
    /// # Errors
    /// When the device failed.
    pub fn state(&self) -> Result<Vec<Vec<f32>>, String> {
        let all = self.weights.iter().chain(&self.averaged).chain(self.optimiser.state());
        all.map(|tensor| download(tensor.clone())).collect()
    }

    /// Goes on from what [`Trainer::state`] gave.
    ///
    /// # Errors
    /// When it is of another network.
    pub fn restore(&mut self, state: &[Vec<f32>]) -> Result<(), String> {
        let device = self.device.clone();
        let own: Vec<&mut Tensor<1>> =
            self.weights.iter_mut().chain(&mut self.averaged).chain(self.optimiser.state_mut()).collect();
        let fits = own.len() == state.len() && own.iter().zip(state).all(|(own, other)| own.dims() == [other.len()]);
        if !fits {
            return Err("it is of another network".to_owned());
        }
        for (own, state) in own.into_iter().zip(state) {
            *own = upload(state, &device);
        }
        Ok(())
    }

    /// How many numbers are learned.
    pub fn size(&self) -> usize {
        self.weights.iter().map(|weight| weight.dims()[0]).sum()
    }

    /// A number 0 on the device, to add losses to.
    pub fn zero(&self) -> Tensor<1> {
        Tensor::zeros([1], &self.device)
    }
}
