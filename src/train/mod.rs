//! Training of autoencoders: from a training file and its data to a model folder.

mod aligned_values;
pub(crate) mod augmentation;
mod backprop;
mod card_metrics;
mod checkpoint;
mod checks;
pub mod config;
mod config_digests;
mod elementwise;
mod epoch_sampler;
mod export;
mod gemm;
mod input;
pub mod layer_spec;
mod layers;
mod loader;
#[cfg(test)]
mod loop_tests;
pub(crate) mod loss_curve;
mod memory;
mod network_builder;
mod normalization;
mod onnx;
mod optimizer;
mod parameter;
pub(crate) mod record_shape;
mod schedule;
mod sequential;
mod sparsity_penalty;
mod step_schedule;
mod train_loop;
mod trainer;
mod variational;
mod weight_init;
mod work_folder;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use crate::data::{DataError, PreparedDataset, ReadProgress, Subset};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;

pub(crate) use crate::train::input::value_range::ValueRange;
pub(crate) use card_metrics::PcaComparison;
pub use config::TrainingFile;
pub(crate) use export::FailedRecords;
pub(crate) use loss_curve::EpochRecord;
pub use train_loop::train;

/// Options of a training run that are not part of the training file.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Whether to delete the checkpoint and the prepared data of an earlier run and start from
    /// scratch.
    pub restart: bool,
    /// When it becomes true, the training writes the best model so far and ends. Before the end of
    /// the first epoch, it ends without a model.
    pub stop: Arc<AtomicBool>,
}

/// The events of a training, which are reported to the caller.
#[derive(Debug)]
pub enum TrainEvent<'a> {
    /// The sources are being read.
    Reading(ReadProgress),
    /// The data is ready.
    Prepared(&'a PreparedDataset),
    /// Values of a part leave 0..1, which the loss or the output of the network cannot represent.
    OutOfRange(&'a OutOfRange),
    /// The network is built; the training starts or resumes.
    Started(&'a TrainStarted),
    /// Some training steps are done.
    Stepped(TrainStep),
    /// An epoch has ended; true if it is the best so far.
    Epoch(EpochRecord, bool),
    /// Writing and measuring the model has started.
    Finishing,
    /// The model has been measured on the validation part, except for the records on which it
    /// failed.
    Measured(&'a FailedRecords),
    /// The model reconstructs the validation part worse than principal components.
    WorseThanPca(&'a PcaComparison),
}

/// The size of a training and the step from which it resumes.
#[derive(Debug)]
pub struct TrainStarted {
    /// Number of learned values.
    pub parameters: usize,
    /// Number of records of the training part, or of crops of them, in an epoch.
    pub records: u64,
    /// Number of steps in an epoch.
    pub batches: u64,
    /// Maximum number of epochs, including completed ones.
    pub epochs: u32,
    /// Number of steps that earlier runs have done.
    pub resumed: u64,
    /// Number of records per step.
    pub batch_size: usize,
    /// Number of steps in which the learning rate rises.
    pub warmup: u64,
    /// Maximum memory of the process during the training, in bytes.
    pub memory: u64,
}

/// The progress of a training within an epoch.
#[derive(Debug, Clone, Copy)]
pub struct TrainStep {
    /// The current epoch, counted from 1.
    pub epoch: u32,
    /// Number of batches of the epoch that are done.
    pub batch: u64,
    /// Mean of the objective over these batches.
    pub loss: f64,
    /// The current learning rate.
    pub learning_rate: f64,
}

/// Values of the input that the loss or the output of the network cannot represent.
#[derive(Debug)]
pub struct OutOfRange {
    /// The part of the records.
    pub part: Subset,
    /// The first feature or channel with such values.
    pub range: ValueRange,
    /// The effect on these values.
    pub effect: &'static str,
}

/// The result of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainResult {
    /// Whether the training is complete. If not, it was stopped, and another run resumes it.
    pub finished: bool,
    /// Whether there is a checkpoint from which another run resumes.
    pub has_checkpoint: bool,
    /// Number of records of the validation part and the test part.
    pub held_out: usize,
    /// The completed epochs.
    pub curve: Vec<EpochRecord>,
    /// Seconds of training, including earlier runs.
    pub seconds: f64,
    /// The epoch whose weights the model has; `None` if no epoch has finished, and no model was
    /// written.
    pub best_epoch: Option<u32>,
}

/// The errors that end a training.
#[derive(Debug, Error)]
pub enum TrainError {
    /// All errors in the training file, with keys from its top.
    #[error("{}", one_per_line(.0))]
    Faults(Vec<ConfigError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The output folder already contains a model.
    #[error(
        "{0}: the folder already contains a model; pass --restart to train it from scratch, \
         or --out to write to another folder"
    )]
    Exists(String),
    /// Another training is writing to the output folder.
    #[error(
        "{0}: another training is writing to this folder; wait until it ends, or pass --out to \
         write to another folder"
    )]
    Locked(String),
    /// The checkpoint belongs to a different training file or data.
    #[error(
        "{0}: the training file or its data has changed since this training began; \
         pass --restart to start from scratch"
    )]
    Changed(String),
    /// The loss is NaN or infinite.
    #[error(
        "the loss is not finite at step {0}; lower training.learning_rate, or set \
         training.clip_grad_norm (such as 1.0), then run again with --restart"
    )]
    NotFinite(u64),
    /// The network cannot process the shape of the records.
    #[error(
        "the network cannot process the shape of the records: {0}; \
         set training.crop or input.size"
    )]
    Shape(String),
}

impl TrainError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Faults(_) => ErrorCode::PipelineInvalid,
            Self::Stage(error) => error.code(),
            Self::Exists(_) => ErrorCode::ModelExists,
            Self::Locked(_) => ErrorCode::OutputLocked,
            Self::Changed(_) => ErrorCode::TrainingChanged,
            Self::NotFinite(_) | Self::Shape(_) => ErrorCode::Training,
        }
    }
}

fn one_per_line(faults: &[ConfigError]) -> String {
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message))
        .collect();
    lines.join("\n")
}

impl From<DataError> for TrainError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Faults(faults) => {
                let within_data = |fault: ConfigError| {
                    if fault.key.starts_with("input.") {
                        fault
                    } else {
                        fault.within("data")
                    }
                };
                Self::Faults(faults.into_iter().map(within_data).collect())
            }
            DataError::Stage(error) => Self::Stage(error),
        }
    }
}

#[cfg(test)]
mod tests;
