//! One network in training: its weights, and what a step does to them.

use burn_tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::DeviceKind;
use super::batches::Batch;
use super::declared::{Declared, Network};
use super::dense::Dense;
use super::net::{Parameter, Step};
use super::objective::{loss, penalty};
use super::optimiser::Optimising;
use super::pointwise;
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
    /// The network read by hand, where it can be, on a processor.
    dense: Option<Dense>,
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    averaged: Vec<Vec<f32>>,
    optimiser: Optimising,
}

impl Trainer {
    /// A network with its first weights.
    pub fn new(file: &TrainingFile, declared: &Declared, device: DeviceKind) -> Self {
        let chains = declared.network.chains();
        let parameters: Vec<Parameter> = chains.iter().flat_map(|chain| chain.parameters()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(file.head.seed);
        let weights: Vec<Vec<f32>> = chains.iter().flat_map(|chain| initial(chain, &mut rng)).collect();
        let mut steps: Vec<Vec<Step>> = chains.iter().map(|chain| chain.steps().to_vec()).collect();
        if declared.loss == Loss::Bce
            && let Some(last) = steps.last_mut()
        {
            last.pop();
        }
        let coded = matches!(declared.network, Network::Autoencoder { .. });
        let decoder = if coded { steps.pop().unwrap_or_default() } else { Vec::new() };
        let encoder = steps.pop().unwrap_or_default();
        let sparsity = file.sparsity.filter(|_| coded);
        let dense = device.is_processor().then(|| Dense::new(&encoder, &decoder, declared.loss, sparsity)).flatten();
        let (training, device) = (&file.training, device.device());
        Self {
            encoder,
            decoder,
            coded,
            loss: declared.loss,
            sparsity,
            clip: training.clip,
            average: training.average,
            optimiser: Optimising::new(training.optimiser, training.weight_decay, &parameters, device.clone()),
            averaged: if training.average.is_some() { weights.clone() } else { Vec::new() },
            gradients: weights.iter().map(|weight| vec![0.0; weight.len()]).collect(),
            weights,
            dense,
            device,
        }
    }

    /// Learns from a batch, as step number `step`, counted from 1. Gives the objective before the step, on the device.
    ///
    /// # Errors
    /// When the device failed.
    pub fn step(&mut self, step: u64, rate: f64, batch: Batch) -> Result<Tensor<1>, String> {
        let objective = match &mut self.dense {
            // Within the pool of threads, where loops over numbers are shared out without a detour.
            Some(dense) => {
                let objective = rayon::scope(|_| dense.learn(&self.weights, &batch, &mut self.gradients));
                upload(&[objective], &self.device)
            }
            None => self.differentiate(batch)?,
        };
        rayon::scope(|_| self.update(step, rate))?;
        Ok(objective)
    }

    /// Finds gradients by the reading as tensors.
    fn differentiate(&mut self, batch: Batch) -> Result<Tensor<1>, String> {
        let device = self.device.clone().autodiff();
        let leaves: Vec<Tensor<1>> = self.weights.iter().map(|weight| upload(weight, &device).require_grad()).collect();
        let (reconstruction, penalty) = self.objective(&leaves, batch, &device);
        let objective = penalty.map_or(reconstruction.clone(), |penalty| reconstruction + penalty);
        let mut found = objective.backward();
        for (leaf, gradient) in leaves.iter().zip(&mut self.gradients) {
            match leaf.grad_remove(&mut found) {
                Some(found) => *gradient = download(found)?,
                None => gradient.fill(0.0),
            }
        }
        Ok(objective.inner())
    }

    /// Changes the weights by their gradients.
    fn update(&mut self, step: u64, rate: f64) -> Result<(), String> {
        self.clip();
        self.optimiser.step(step, rate as f32, &mut self.weights, &self.gradients)?;
        if let Some(share) = self.average {
            // The first steps would weigh as much as the beginning: the share grows to its height (as in TensorFlow).
            let share = f64::from(share).min((1.0 + step as f64) / (10.0 + step as f64)) as f32;
            let pairs = self.averaged.iter_mut().zip(&self.weights);
            pairs.for_each(|(mean, now)| pointwise::blend(mean, now, share));
        }
        Ok(())
    }

    /// The mean loss over a batch, without the penalty, by the weights that would be kept now.
    pub fn measure(&mut self, batch: Batch) -> Tensor<1> {
        let kept = if self.average.is_some() { &self.averaged } else { &self.weights };
        if let Some(dense) = &mut self.dense {
            return upload(&[rayon::scope(|_| dense.measure(kept, &batch))], &self.device);
        }
        let weights: Vec<Tensor<1>> = kept.iter().map(|weight| upload(weight, &self.device)).collect();
        self.objective(&weights, batch, &self.device).0
    }

    fn objective(&self, weights: &[Tensor<1>], batch: Batch, device: &Device) -> (Tensor<1>, Option<Tensor<1>>) {
        let Batch { records, shape, input, target } = batch;
        let clean = Value::new(target, records, &shape, device);
        let input = if input.is_empty() { clean.clone() } else { Value::new(input, records, &shape, device) };
        let mut weights = weights.iter();
        let code = forward(&self.encoder, &mut weights, input);
        let penalty = self.sparsity.map(|sparsity| penalty(&sparsity, code.clone().flat()));
        let output = if self.coded { forward(&self.decoder, &mut weights, code) } else { code };
        (loss(self.loss, output.flat(), clean.flat()), penalty)
    }

    /// Shortens a gradient that is too long, all weights together.
    fn clip(&mut self) {
        let Some(clip) = self.clip else { return };
        let squares: f64 = self.gradients.iter().map(|gradient| pointwise::squares(gradient)).sum();
        let share = (f64::from(clip) / squares.sqrt()) as f32;
        if share < 1.0 {
            self.gradients.iter_mut().flatten().for_each(|gradient| *gradient *= share);
        }
    }

    /// The weights that would be kept now: the running mean, where there is one; of all chains one after the other.
    pub fn kept(&self) -> &[Vec<f32>] {
        if self.average.is_some() { &self.averaged } else { &self.weights }
    }

    /// Everything that the next step depends on: weights, running means, moments.
    pub fn state(&self) -> Vec<Vec<f32>> {
        self.weights.iter().chain(&self.averaged).chain(self.optimiser.state()).cloned().collect()
    }

    /// Goes on from what [`Trainer::state`] gave.
    ///
    /// # Errors
    /// When it is of another network.
    pub fn restore(&mut self, state: &[Vec<f32>]) -> Result<(), String> {
        let own: Vec<&mut Vec<f32>> =
            self.weights.iter_mut().chain(&mut self.averaged).chain(self.optimiser.state_mut()).collect();
        let fits = own.len() == state.len() && own.iter().zip(state).all(|(own, other)| own.len() == other.len());
        if !fits {
            return Err("it is of another network".to_owned());
        }
        own.into_iter().zip(state).for_each(|(own, state)| own.clone_from(state));
        Ok(())
    }

    /// How many numbers are learned.
    pub fn size(&self) -> usize {
        self.weights.iter().map(Vec::len).sum()
    }

    /// A number 0 on the device, to add losses to.
    pub fn zero(&self) -> Tensor<1> {
        Tensor::zeros([1], &self.device)
    }
}
