//! Training: a declared autoencoder and its data become a model folder.

mod backprop;
mod epoch_sampler;
mod checkpoint;
pub mod loss_curve;
mod network_builder;
mod export;
mod weight_init;
mod input;
mod layers;
mod loader;
mod gemm;
mod sequential;
mod sparsity_penalty;
mod onnx;
mod optimizer;
mod elementwise;
mod card_metrics;
mod train_loop;
mod schedule;
pub mod config;
mod trainer;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

pub use config::TrainingFile;
pub use export::FailedRecords;
pub use loss_curve::EpochRecord;
pub use train_loop::train;

use crate::data::{DataError, PreparedDataset};
use crate::error::{ConfigError, StageError};

/// What a training is run with, beside its file.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Forget what an earlier run of the same training has done.
    pub restart: bool,
    /// Once true: keep the best so far and end.
    pub stop: Arc<AtomicBool>,
}

/// What happens in a training, for whoever watches.
#[derive(Debug)]
pub enum TrainEvent<'a> {
    /// So many records were read from the sources.
    Reading(u64),
    /// The data is ready.
    Prepared(&'a PreparedDataset),
    /// The network stands; training begins, or goes on.
    Started(&'a TrainStarted),
    /// Learned from some batches.
    Stepped(TrainStep),
    /// An epoch is over; whether it was the best so far.
    Epoch(EpochRecord, bool),
    /// The model is written and measured.
    Finishing,
    /// The model is measured on the validation part, but for the records on which it failed.
    Measured(&'a FailedRecords),
}

/// What is trained, and from where on.
#[derive(Debug)]
pub struct TrainStarted {
    /// Numbers that are learned.
    pub parameters: usize,
    /// Records of the training part, or cuts of them, in an epoch.
    pub records: u64,
    /// Steps to an epoch.
    pub batches: u64,
    /// Epochs to come at most, those that are over included.
    pub epochs: u32,
    /// Steps that an earlier run has done.
    pub resumed: u64,
}

/// Where a training stands between two epochs.
#[derive(Debug, Clone, Copy)]
pub struct TrainStep {
    /// The present epoch, counted from 1.
    pub epoch: u32,
    /// Batches of it that were learned from.
    pub batch: u64,
    /// Mean over them of what is made small.
    pub loss: f64,
    /// The present learning rate.
    pub learning_rate: f64,
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainResult {
    /// Whether it came to its end; else it was told to stop, and a further run goes on.
    pub finished: bool,
    /// The epochs that are over.
    pub curve: Vec<EpochRecord>,
    /// Seconds of work, those of earlier runs included.
    pub seconds: f64,
    /// The epoch whose weights were kept.
    pub best_epoch: Option<u32>,
}

/// Why a training cannot go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// What is wrong with the file, every fault at once; keys from its top.
    #[error("{}", .0.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<ConfigError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The folder holds a model already.
    #[error("{0}: there is a model already; --restart trains it anew, --out names another folder")]
    Exists(String),
    /// A checkpoint is of another training.
    #[error(
        "{0}: the training file, or its data, has changed since this training began; --restart begins anew"
    )]
    Changed(String),
    /// The loss is no number any more.
    #[error(
        "the loss is no finite number at step {0}: lower training.learning_rate, or set training.clip_grad_norm (such as 1.0); \
         then run again with --restart"
    )]
    NotFinite(u64),
    /// Records do not fit the network.
    #[error("the network cannot take the records: {0}; set training.crop, or input.size")]
    Shape(String),
}

impl From<DataError> for TrainError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Faults(faults) => {
                let place = |fault: ConfigError| {
                    if fault.key.starts_with("input.") {
                        fault
                    } else {
                        fault.within("data")
                    }
                };
                Self::Faults(faults.into_iter().map(place).collect())
            }
            DataError::Stage(error) => Self::Stage(error),
        }
    }
}

/// The folder of work in a model's folder: checkpoint and prepared data. It goes when the training
/// is done.
fn work_folder(model: &Path) -> std::path::PathBuf {
    model.join(".training")
}
