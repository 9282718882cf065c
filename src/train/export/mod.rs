//! The output of a training: writes ONNX files, the model card and the loss curve, and measures the
//! model with ONNX Runtime.

pub(crate) mod card;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::checkpoint::TrainingPosition;
use super::config::TrainingFile;
use super::epoch_sampler::EpochSampler;
use super::network_builder::{BuiltLayers, BuiltNetwork};
use super::sequential::Sequential;
use super::step_schedule::StepSchedule;
use super::{TrainError, loss_curve, onnx};
use crate::data::RecordFile;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::fs_durable::write_atomically;
use crate::metrics::Metrics;
use crate::model::attribution::ATTRIBUTION;
use crate::model::card::error_stats::ErrorStats;
use crate::model::card::{CARD, ModelCard};
use crate::model::feature_errors::{FeatureErrors, FeatureStats};
use crate::model::feature_groups::FeatureGroups;
use crate::model::files::ModelPath;
use crate::model::input::spec::InputSpec;
use crate::model::{Model, ModelSpec, RuntimeSpec, ort_library};
use crate::train::augmentation::{Augmentation, InputValues};
use crate::train::export::card::{card, round};
use crate::train::layer_spec::LayerSpec;

/// The outcome of a training.
pub(crate) struct TrainingOutcome<'a> {
    /// The training file.
    pub file: &'a TrainingFile,
    /// The network.
    pub declared: &'a BuiltNetwork,
    /// The input as written to the model card.
    pub input: InputSpec,
    /// The weights to write, of all chains one after the other.
    pub weights: &'a [Vec<f32>],
    /// The position of the training.
    pub position: &'a TrainingPosition,
    /// The batch size and the warm-up.
    pub schedule: StepSchedule,
    /// Number of learned values.
    pub parameters: usize,
    /// The data of the training.
    pub data: TrainingData,
}

/// The data that a model was trained and validated with.
pub(crate) struct TrainingData {
    /// SHA-256 over all records.
    pub digest: String,
    /// Number of records of the training part.
    pub training: usize,
    /// Number of records that could not be used, and the number of those with a null by column.
    pub left_out: (u64, BTreeMap<String, u64>),
    /// The records of the validation part.
    pub validation: Arc<RecordFile>,
    /// The conversion of records into tensors.
    pub augmentation: Arc<Augmentation>,
}

/// Records on which a model failed while it was measured.
#[derive(Debug, Default)]
pub struct FailedRecords {
    /// Number of failed records.
    pub records: usize,
    /// The reason of the first failure.
    pub reason: Option<String>,
}

/// Writes the folder. The card is written last, so that the remains of a crash are not mistaken for
/// a complete model.
///
/// # Errors
/// When a file cannot be written, ONNX Runtime fails, or the model fails on every record.
pub fn write(
    out: &Path,
    outcome: &TrainingOutcome<'_>,
) -> Result<(Model, FailedRecords), TrainError> {
    let mut files = BTreeMap::new();
    let mut weights = outcome.weights;
    for (name, value_names, chain) in parts(&outcome.declared.network) {
        let (own, rest) = weights.split_at(chain.parameters().len());
        weights = rest;
        let bytes = onnx::write(
            &outcome.file.head.name,
            value_names,
            chain,
            own,
            &properties(outcome),
        );
        write_atomically(&out.join(name), &bytes)?;
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        files.insert(name.to_owned(), format!("sha256:{digest}"));
    }
    loss_curve::write(&out.join(loss_curve::CURVE), &outcome.position.curve)?;
    let mut card = card(outcome, files);
    card.write(out)?;
    let model = open(out, &outcome.file.head.name)?;
    let (stats, failed) = measure(&model, outcome)?;
    if let Some(divergence) =
        loss_curve::best(&outcome.position.curve).and_then(|point| point.validation_kl)
    {
        card.metrics.insert("kl".to_owned(), round(divergence));
    }
    if let Some(stats) = stats {
        card.metrics
            .insert(outcome.declared.loss.as_str().to_owned(), round(stats.mean));
        card.reconstruction_error = Some(stats);
        card.write(out)?;
    }
    Ok((model, failed))
}

/// Adds metrics to the model card of a folder.
///
/// # Errors
/// When the card cannot be read or written.
pub(crate) fn add_metrics(out: &Path, metrics: Vec<(String, f64)>) -> Result<(), TrainError> {
    let path = out.join(CARD);
    let card = ModelCard::read(&path).map_err(|faults| invalid_model(&faults))?;
    let added = metrics
        .into_iter()
        .map(|(name, value)| (name, round(value)));
    let all = card.metrics.into_iter().chain(added).collect();
    let card = ModelCard {
        metrics: all,
        ..card
    };
    Ok(card.write(out)?)
}

/// Returns the files of a network with the names of their inputs and outputs and their chains.
fn parts(network: &BuiltLayers) -> Vec<(&'static str, [&'static str; 2], &Sequential)> {
    match network {
        BuiltLayers::Autoencoder { encoder, decoder } => {
            let is_distribution = matches!(encoder.layers().last(), Some(LayerSpec::Sample { .. }));
            let code = if is_distribution { "mu" } else { "latent" };
            vec![
                ("encoder.onnx", ["input", code], encoder),
                ("decoder.onnx", ["latent", "reconstruction"], decoder),
            ]
        }
        BuiltLayers::Whole(whole) => vec![("model.onnx", ["input", "output"], whole)],
    }
}

fn properties(outcome: &TrainingOutcome<'_>) -> Vec<(&'static str, String)> {
    let head = &outcome.file.head;
    vec![
        ("kind", head.kind.describe()),
        ("description", head.description.clone()),
        ("loss", outcome.declared.loss.as_str().to_owned()),
        ("training_data", outcome.file.data.description.clone()),
        ("license", outcome.file.data.license.clone()),
    ]
}

fn invalid_model(faults: &[ConfigError]) -> TrainError {
    let reasons: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    TrainError::Stage(StageError::Model(format!(
        "the written model is invalid: {}",
        reasons.join("; ")
    )))
}

/// Opens the model in the same way as pipelines do.
fn open(out: &Path, name: &str) -> Result<Model, TrainError> {
    let settings = RuntimeSpec::default();
    ort_library::init(&settings).map_err(|fault| invalid_model(&[fault]))?;
    let spec = ModelSpec {
        path: Some(out.to_path_buf()),
        ..ModelSpec::default()
    };
    Model::open(name, &spec, &settings, &Arc::new(Metrics::new()))
        .map_err(|faults| invalid_model(&faults))
}

/// Returns the distribution of the reconstruction error over the validation part, as ONNX Runtime
/// reconstructs it, without the records on which the model fails.
fn measure(
    model: &Model,
    outcome: &TrainingOutcome<'_>,
) -> Result<(Option<ErrorStats>, FailedRecords), TrainError> {
    let mut chain = model.chain(ModelPath::Reconstruct)?;
    let TrainingData {
        validation,
        augmentation,
        ..
    } = &outcome.data;
    let order = EpochSampler::validation(validation, augmentation, outcome.schedule.batch_size);
    let (mut errors, mut output, mut failed) = (Vec::new(), Vec::new(), FailedRecords::default());
    let columns = outcome.input.columns.as_ref();
    let groups = columns.map(|columns| match &augmentation.values {
        InputValues::Features(features) => features.groups(columns.len()),
        InputValues::Pixels(_) => FeatureGroups::single(columns.len()),
    });
    let mut features = groups.map(FeatureErrors::new);
    for number in 0..order.batches() {
        let batch = order.batch(number)?;
        output.clear();
        let input = if batch.input.is_empty() {
            &batch.target
        } else {
            &batch.input
        };
        let len = (batch.target.len() / batch.records.max(1)).max(1);
        let mut failures = chain
            .run_rows(input, &batch.shape, len, &mut output)
            .into_iter()
            .peekable();
        for (row, (target, reconstruction)) in
            batch.target.chunks(len).zip(output.chunks(len)).enumerate()
        {
            let error = outcome.declared.loss.error(target, reconstruction);
            let reason = match failures.next_if(|failure| failure.row == row) {
                Some(failure) => Some(failure.reason),
                None => (!error.is_finite())
                    .then(|| "the reconstruction error is not finite".to_owned()),
            };
            if let Some(reason) = reason {
                failed.records += 1;
                failed.reason.get_or_insert(reason);
                continue;
            }
            errors.push(error);
            features
                .iter_mut()
                .for_each(|features| features.push(target, reconstruction));
        }
    }
    if let (true, Some(reason)) = (errors.is_empty(), &failed.reason) {
        return Err(TrainError::Stage(StageError::Model(format!(
            "the model fails on every record: {reason}"
        ))));
    }
    let features = features.and_then(|features| features.stats());
    let features = features.map(|stats| FeatureStats {
        ranking: Some(ATTRIBUTION.to_owned()),
        ..stats
    });
    let stats = ErrorStats::from_errors(&mut errors).map(|stats| ErrorStats { features, ..stats });
    Ok((stats, failed))
}
