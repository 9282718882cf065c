//! The maximum memory of a training, predicted from its network before the first step.

use super::TrainError;
use super::config::TrainingFile;
use super::layers::{LayerKind, LayerPlan};
use super::loader::MAX_BATCHES;
use super::network_builder::{BuiltLayers, BuiltNetwork};
use super::optimizer::{Optimizer, state_values};
use super::step_schedule::StepSchedule;
use crate::data::PreparedDataset;
use crate::error::config_error::ConfigError;
use crate::evaluate::max_pca_bytes;
use crate::system;
use crate::train::config::network::ModelKind;
use crate::train::record_shape::RecordShape;
use crate::units::ByteSize;

/// Bytes of the program and its libraries, including ONNX Runtime.
const PROGRAM_BYTES: u64 = 96 << 20;
/// Bytes of records, latents and scores while the finished model is measured.
const MEASURING_BYTES: u64 = 32 << 20;
/// Bytes of a value of a batch, a layer or a parameter.
const VALUE_BYTES: u64 = size_of::<f32>() as u64;
/// The maximum number of values of a call of ONNX Runtime, if a record does not have more.
const CALL_VALUES: u64 = 32 * 3 * 64 * 64;

/// The size of a training.
pub(crate) struct TrainingSize<'a> {
    /// The training file.
    pub file: &'a TrainingFile,
    /// The network.
    pub declared: &'a BuiltNetwork,
    /// Shape of a record of a batch: one dimension, or channels, height, width.
    pub shape: Vec<usize>,
    /// Number of records in an epoch, or of crops of them.
    pub records: u64,
    /// Maximum number of bytes of a prepared record.
    pub record_bytes: u64,
}

/// The predicted memory of a training, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrainingMemory {
    /// The outputs and gradients of all layers for one batch.
    activations: u64,
    /// The weights with their gradients, averages, optimizer state and checkpoint.
    weights: u64,
    /// The batches that are loaded ahead.
    batches: u64,
    /// The finished model in ONNX Runtime, and principal components.
    measuring: u64,
}

impl TrainingMemory {
    /// Predicts the memory with batches of `batch_size` records on `threads` threads.
    ///
    /// # Errors
    /// When the network cannot process records of the shape.
    pub(in crate::train) fn predict(
        size: &TrainingSize<'_>,
        batch_size: usize,
        threads: usize,
    ) -> Result<Self, String> {
        let (encoder, decoder) = match &size.declared.network {
            BuiltLayers::Autoencoder { encoder, decoder } => (encoder.layers(), decoder.layers()),
            BuiltLayers::Whole(whole) => (whole.layers(), [].as_slice()),
        };
        let plan = LayerPlan::new(encoder, decoder, &size.shape)?;
        let records = size.records.min(batch_size as u64).max(1);
        let shards = records.min(threads as u64);
        let outputs: u64 = plan.layers.iter().map(|layer| layer.width as u64).sum();
        let values = size.shape.iter().map(|&side| side as u64).product::<u64>();
        let own_input = if size.file.corruption.is_empty() {
            1
        } else {
            2
        };
        let bytes = |count: u64, each: u64| count.saturating_mul(each).saturating_mul(VALUE_BYTES);
        let loaded = bytes(values * own_input, records * MAX_BATCHES);
        let calls = (CALL_VALUES / values.max(1)).clamp(1, records);
        let code = size.file.head.code_size.unwrap_or(0);
        let own_pca = max_pca_bytes(usize::try_from(values).unwrap_or(usize::MAX), code);
        Ok(Self {
            activations: bytes(
                outputs + gradient_values(&plan) + own_values(size, &plan),
                records,
            )
            .saturating_add(bytes(shard_values(&plan), shards)),
            weights: weight_bytes(size),
            batches: loaded.saturating_add(size.record_bytes.saturating_mul(2)),
            measuring: bytes(outputs, calls)
                .saturating_add(4 * parameter_bytes(size) + own_pca + MEASURING_BYTES),
        })
    }

    /// Returns the maximum resident memory of the process.
    pub fn peak(&self) -> u64 {
        // The finished model is measured after the buffers of the training are released.
        let training = self.activations.saturating_add(self.batches);
        let larger = training.max(self.measuring);
        self.weights
            .saturating_add(larger)
            .saturating_add(PROGRAM_BYTES)
    }

    /// Describes the largest part and the options that reduce it.
    fn largest(&self, batch_size: usize) -> (String, &'static str) {
        let Self {
            activations,
            weights,
            batches,
            measuring,
        } = *self;
        let parts = [
            (
                activations,
                format!("outputs and gradients of all layers for {batch_size} records"),
                "training.batch_size, input.size, training.crop, or network.channels",
            ),
            (
                weights,
                "weights, their gradients, the optimizer's state and the checkpoint".to_owned(),
                "network.nodes or network.channels",
            ),
            (
                batches,
                format!("batches of {batch_size} records that are loaded ahead"),
                "training.batch_size, input.size, or training.crop",
            ),
            (
                measuring,
                "the finished model in ONNX Runtime".to_owned(),
                "input.size, network.nodes, or network.channels",
            ),
        ];
        let largest = parts.into_iter().max_by_key(|(bytes, ..)| *bytes);
        let (bytes, part, options) = largest.unwrap_or_default();
        (format!("{} for {part}", ByteSize(bytes)), options)
    }
}

/// Predicts the maximum memory of a training, in bytes.
///
/// # Errors
/// When it exceeds `data.limits.memory`, or else the memory that the process may use, or the network
/// cannot process the records.
pub(crate) fn check_memory(
    size: &TrainingSize<'_>,
    schedule: StepSchedule,
    threads: usize,
) -> Result<u64, TrainError> {
    let predict = |batch_size| TrainingMemory::predict(size, batch_size, threads);
    let predicted = predict(schedule.batch_size).map_err(TrainError::Shape)?;
    let written = size.file.data.limits.memory;
    let (limit, allows) = match written {
        Some(limit) => (limit.0, "`data.limits.memory` allows"),
        None => (system::memory_limit(), "this process may use"),
    };
    let peak = predicted.peak();
    if peak <= limit {
        return Ok(peak);
    }
    let batch = usize::try_from(size.records).map_or(schedule.batch_size, |records| {
        schedule.batch_size.min(records.max(1))
    });
    let halves = std::iter::successors(Some(batch / 2), |records| Some(records / 2));
    let mut fitting = halves
        .take_while(|&records| records > 0)
        .filter(|&records| predict(records).is_ok_and(|memory| memory.peak() <= limit));
    let (part, options) = predicted.largest(batch);
    let advice = match fitting.next() {
        Some(fits) => format!("set training.batch_size = {fits}, which fits, or lower {options}"),
        None => format!("lower {options}"),
    };
    let [peak, limit] = [peak, limit].map(ByteSize);
    let message = format!(
        "the training requires up to {peak} of memory, and {allows} {limit}; the largest part is \
         {part}; {advice}"
    );
    Err(TrainError::Faults(vec![ConfigError::new(
        "training.batch_size",
        message,
    )]))
}

/// Returns the shape of the records of a batch, which the network takes as `input`; `None` if their
/// sizes differ.
pub(crate) fn batch_shape(
    file: &TrainingFile,
    input: RecordShape,
    prepared: &PreparedDataset,
) -> Option<Vec<usize>> {
    if let RecordShape::Flat(values) = input {
        return Some(vec![values]);
    }
    let channels = prepared.training.channels();
    let training = &file.training;
    let side = training.crop.map(|crop| [crop, crop]);
    let zoomed = training.zoom.and(file.input.size);
    match (side.or(zoomed), prepared.training.shape()) {
        (Some([height, width]), _) => Some(vec![channels, height, width]),
        (None, Some([height, width, _])) => Some(vec![channels, height, width]),
        (None, None) => None,
    }
}

fn parameter_bytes(size: &TrainingSize<'_>) -> u64 {
    let parameters = size.declared.parameters();
    parameters
        .iter()
        .map(|parameter| parameter.len() as u64)
        .sum::<u64>()
        * VALUE_BYTES
}

/// Returns the bytes of weights, gradients, averages and the optimizer's state, and of the copies in
/// the checkpoint and in its file while it is written.
fn weight_bytes(size: &TrainingSize<'_>) -> u64 {
    let weights = parameter_bytes(size);
    let training = &size.file.training;
    let parameters = size.declared.parameters();
    let optimizer = state_values(training.optimizer, &parameters) as u64 * VALUE_BYTES;
    let average = if training.ema_decay.is_some() {
        weights
    } else {
        0
    };
    let state = weights + average + optimizer;
    let checkpoint = state + weights;
    let largest = parameters
        .iter()
        .map(|parameter| parameter.len() as u64)
        .max();
    // Muon multiplies matrices of the shape of a weight.
    let products = if training.optimizer == Optimizer::Muon {
        6
    } else {
        1
    };
    let scratch = largest.unwrap_or(0) * VALUE_BYTES * products;
    state + weights + 2 * checkpoint + scratch
}

/// Returns the number of values of the gradients of one record.
fn gradient_values(plan: &LayerPlan) -> u64 {
    let layers = &plan.layers;
    let widest = layers.iter().map(|layer| layer.width).max().unwrap_or(0);
    let is_dense = |kind: &LayerKind| matches!(kind, LayerKind::Dense { .. });
    let dense: usize = layers
        .iter()
        .filter(|layer| is_dense(&layer.kind))
        .map(|layer| layer.width)
        .sum();
    // The gradients of values that are added later exist until the layers in between are done.
    let (mut open, mut most, mut widest_open) = (Vec::new(), 0, 0);
    for (index, layer) in layers.iter().enumerate().rev() {
        open.retain(|&kept| kept != index + 1);
        if let LayerKind::Add { kept } | LayerKind::Concat { kept, .. } = layer.kind {
            open.push(kept);
            widest_open = widest_open.max(layer.width);
        }
        most = most.max(open.len());
    }
    (2 * widest + dense + most * widest_open) as u64
}

/// Returns the number of values of one record that kinds of autoencoder have in addition: the noise
/// of a drawn code, and the derivatives of the layers of a contractive encoder.
fn own_values(size: &TrainingSize<'_>, plan: &LayerPlan) -> u64 {
    let head = &size.file.head;
    let noise = if head.kind.has(ModelKind::Variational) {
        head.code_size.unwrap_or(0)
    } else {
        0
    };
    let derivatives: usize = match head.contraction {
        // Each layer has its input, its values before the activation, and their gradients.
        Some(_) => {
            let encoder = &plan.layers[..plan.code];
            size.shape.iter().product::<usize>()
                + encoder.iter().map(|layer| 4 * layer.width).sum::<usize>()
        }
        None => 0,
    };
    (noise + derivatives) as u64
}

/// Returns the number of values that each thread has for itself: the windows or tiles of
/// convolutions, and the gradients of their weights, whose kernels exist once more.
fn shard_values(plan: &LayerPlan) -> u64 {
    let (mut windows, mut sums) = (0, 0);
    for layer in &plan.layers {
        if let LayerKind::Convolution { convolution, .. } = layer.kind {
            windows = windows.max(convolution.buffer_values());
            let weights = convolution.depth * convolution.windows.values();
            sums += weights + convolution.kernel_values();
        }
    }
    (windows + sums) as u64
}
