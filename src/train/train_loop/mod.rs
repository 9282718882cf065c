//! The training loop: prepares the data, resumes a checkpoint, runs the epochs and writes the model
//! folder.

pub(crate) mod epochs;
pub(crate) mod validation;

use std::path::Path;
use std::sync::Arc;

use super::card_metrics::{self, CardMetrics};
use super::checkpoint::{TrainingCheckpoint, TrainingPosition};
use super::checks::{check_before_data, check_range, no_training_record};
use super::config::TrainingFile;
use super::epoch_sampler::EpochSampler;
use super::export::{self, TrainingOutcome};
use super::input::{NetworkInput, with_decode_mode};
use super::loss_curve;
use super::memory::{TrainingSize, batch_shape, check_memory};
use super::network_builder::build;
use super::step_schedule::StepSchedule;
use super::trainer::Trainer;
use super::work_folder::WorkFolder;
use super::{TrainError, TrainEvent, TrainOptions, TrainResult};
use crate::corruption::Corruption;
use crate::data::{self, PreparedDataset};
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::input::spec::{InputKind, InputSpec};
use crate::model::{self, RuntimeSpec};
use crate::train::augmentation::{Augmentation, InputValues, ZoomRange};
use crate::train::config::network::ModelKind;
use crate::train::config::training::TrainingSpec;
use crate::train::train_loop::epochs::TrainLoop;

/// Trains the model that `file` declares and writes it to `out`; `watch` receives the events.
/// Resumes an earlier run that was stopped or killed, with the same result as without the
/// interruption. A training that is stopped before the end of its first epoch writes no model, and
/// an earlier model in the folder stays as it is.
///
/// # Errors
/// Errors in the training file, I/O errors, and a loss that is not finite.
pub fn train(
    file: &TrainingFile,
    out: &Path,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<TrainResult, TrainError> {
    check_before_data(file, out, options)?;
    // ONNX Runtime measures the finished model.
    model::ort_library::init(&RuntimeSpec::default())
        .map_err(|fault| StageError::Model(fault.message))?;
    let work = WorkFolder::acquire(out, options.restart)?;
    let trained = train_in(&work, file, out, options, watch);
    match &trained {
        Ok(TrainResult { finished: true, .. }) => work.remove()?,
        // A refused training leaves no files.
        Err(TrainError::Faults(_)) => work.discard(false),
        _ => work.discard(true),
    }
    trained
}

fn train_in(
    work: &WorkFolder,
    file: &TrainingFile,
    out: &Path,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<TrainResult, TrainError> {
    let stopped = || TrainResult {
        finished: false,
        has_checkpoint: TrainingCheckpoint::path(work.path()).exists(),
        held_out: 0,
        curve: Vec::new(),
        seconds: 0.0,
        best_epoch: None,
    };
    let Some(prepared) = prepare(work, file, options, watch)? else {
        return Ok(stopped());
    };
    let Some(input) = NetworkInput::new(&with_decode_mode(&file.input), &prepared, &options.stop)?
    else {
        return Ok(stopped());
    };
    let declared = build(file, input.shape, input.moments).map_err(TrainError::Faults)?;
    check_range(&declared, &input, &prepared, &options.stop, watch)?;
    let shape = batch_shape(file, input.shape, &prepared);
    let identity = DataIdentity::new(&prepared);
    let augmentation = Arc::new(augmentation(file, input.preparing).map_err(TrainError::Faults)?);
    let held_out = prepared.validation.len() + prepared.test.len();
    let left_out = (prepared.rejects, prepared.nulls);
    let (training, validation) = (Arc::new(prepared.training), Arc::new(prepared.validation));
    let samples = EpochSampler::training(&training, &augmentation, 0, 1).len();
    let read = TrainingCheckpoint::read(&TrainingCheckpoint::path(work.path()))?;
    let schedule = match &read {
        Some(found) => StepSchedule::resumed(&file.training, found.position.schedule),
        None => StepSchedule::new(&file.training, samples),
    };
    let file = &TrainingFile {
        training: TrainingSpec {
            epochs: schedule.epochs(&file.training, samples),
            ..file.training.clone()
        },
        ..file.clone()
    };
    // Batches of images of different sizes have no known size, and are refused when they are loaded.
    let size = shape.map(|shape| TrainingSize {
        file,
        declared: &declared,
        shape,
        records: samples.max(validation.len() as u64),
        record_bytes: training.max_record_bytes(),
    });
    let memory = size.map(|size| check_memory(&size, schedule, rayon::current_num_threads()));
    let mut run = TrainLoop {
        file,
        options,
        memory: memory.transpose()?.unwrap_or(0),
        trainer: Trainer::new(file, &declared),
        checkpoint: TrainingCheckpoint::default(),
        schedule,
        training,
        validation,
        augmentation,
        work: work.path(),
    };
    run.resume(read, &identity, out)?;
    let finished = run.epochs(watch)?;
    run.trainer.release_buffers();
    if !run.checkpoint.position.curve.is_empty() {
        watch(TrainEvent::Finishing);
        let outcome = TrainingOutcome {
            file,
            declared: &declared,
            input: input.spec,
            weights: run.best(),
            position: &run.checkpoint.position,
            schedule: run.schedule,
            parameters: run.trainer.size(),
            data: export::TrainingData {
                digest: identity.digest,
                training: run.training.len(),
                left_out,
                validation: Arc::clone(&run.validation),
                augmentation: Arc::clone(&run.augmentation),
            },
        };
        write_model(work, &outcome, watch)?;
    }
    let TrainingPosition { curve, seconds, .. } = run.checkpoint.position;
    Ok(TrainResult {
        finished,
        has_checkpoint: !finished,
        held_out,
        best_epoch: loss_curve::best(&curve).map(|point| point.epoch),
        curve,
        seconds,
    })
}

/// Prepares the data. Returns `None` if the training was stopped before.
fn prepare(
    work: &WorkFolder,
    file: &TrainingFile,
    options: &TrainOptions,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<Option<PreparedDataset>, TrainError> {
    // Parts are cut from images in their original size.
    let size = if file.training.zoom.is_some() {
        None
    } else {
        file.input.size
    };
    let input = with_decode_mode(&file.input);
    let stored_input = InputSpec {
        size,
        decode: input.decode.filter(|_| size.is_some()),
        ..input
    };
    let mut on_read = |records| watch(TrainEvent::Reading(records));
    let prepared = data::prepare_unless_stopped(
        &file.data,
        &stored_input,
        &work.path().join("data"),
        &options.stop,
        &mut on_read,
    )?;
    if let Some(prepared) = &prepared {
        watch(TrainEvent::Prepared(prepared));
        if prepared.training.is_empty() {
            let fault = no_training_record(&file.data, prepared);
            return Err(TrainError::Faults(vec![fault]));
        }
    }
    Ok(prepared)
}

/// Writes and measures the model in the work folder, and moves it to its place when it is complete.
fn write_model(
    work: &WorkFolder,
    outcome: &TrainingOutcome<'_>,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<(), TrainError> {
    let file = outcome.file;
    let staging = work.staging()?;
    let (model, failed) = export::write(&staging, outcome)?;
    // If the model was trained on parts of images, the metrics are measured on entire images.
    let records = if file.training.zoom.is_some() {
        "measured"
    } else {
        "data"
    };
    let folder = work.path().join(records);
    let measured = data::prepare(
        &file.data,
        &with_decode_mode(&file.input),
        &folder,
        &mut |_| {},
    )?;
    let CardMetrics { named, pca } = card_metrics::measure(&model, &measured)?;
    export::add_metrics(&staging, named)?;
    work.publish(&staging)?;
    watch(TrainEvent::Measured(&failed));
    // A penalty or a corruption has another objective than the error of clean records.
    let kinds = &file.head.kind;
    let has_penalty = file.sparsity.is_some()
        || kinds.has(ModelKind::Variational)
        || kinds.has(ModelKind::Contractive);
    let has_other_objective = has_penalty || !file.corruption.is_empty();
    if let Some(pca) = pca.filter(|pca| pca.model_mse > pca.pca_mse && !has_other_objective) {
        watch(TrainEvent::WorseThanPca(&pca));
    }
    Ok(())
}

/// The records of a training, as a checkpoint identifies them.
struct DataIdentity {
    kind: InputKind,
    digest: String,
    /// The digest by earlier versions, if it differs.
    former_digest: Option<String>,
}

impl DataIdentity {
    fn new(prepared: &PreparedDataset) -> Self {
        Self {
            kind: prepared.kind,
            digest: prepared.digest.clone(),
            former_digest: prepared.former_digest.clone(),
        }
    }
}

fn augmentation(
    file: &TrainingFile,
    values: InputValues,
) -> Result<Augmentation, Vec<ConfigError>> {
    let training = &file.training;
    let corruption = corruption(file, &values)?;
    Ok(Augmentation {
        values,
        corruption,
        crop: training.crop,
        zoom: training
            .zoom
            .zip(file.input.size)
            .map(|(share, size)| ZoomRange { size, share }),
        crops: training.crops,
        flips: training.flips,
        seed: file.head.seed,
    })
}

fn corruption(
    file: &TrainingFile,
    values: &InputValues,
) -> Result<Vec<Corruption>, Vec<ConfigError>> {
    let format = match values {
        InputValues::Pixels(format) => Some(format),
        InputValues::Features(_) => None,
    };
    let mut faults = Vec::new();
    let mut planned = Vec::new();
    for (index, spec) in file.corruption.iter().enumerate() {
        let key = format!("corruption[{index}]");
        planned.extend(faults.record_all_within(&key, spec.plan(format)));
    }
    if faults.is_empty() {
        Ok(planned)
    } else {
        Err(faults)
    }
}
