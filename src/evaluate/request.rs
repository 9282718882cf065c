//! The evaluation of a model folder on the data of its training, or on other data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{
    EvaluateError, EvaluateEvent, EvaluateOptions, Evaluation, corruption_argument,
    decode_distance, evaluate, fault_lines, source_argument,
};
use crate::config::{is_at_or_below, overlay};
use crate::data::{self, DataError, DataSpec, PreparedDataset, Subset};
use crate::error::{ConfigError, StageError};
use crate::image::DecodeMode;
use crate::metrics::Metrics;
use crate::model::input::InputSpec;
use crate::model::{self, Model, ModelPath, ModelSpec, RuntimeSpec};
use crate::registry;

/// The data of an evaluation, and its options, as a user gives them.
#[derive(Debug, Clone, Default)]
pub struct EvaluationRequest {
    /// The folder of the training data, if it has moved since the training.
    pub data: Option<PathBuf>,
    /// Other data than that of the training: paths, or source tables.
    pub sources: Vec<String>,
    /// Overrides of keys of the `[data]` table, such as `label=species`.
    pub set: Vec<String>,
    /// The parts whose records are scored. If empty, those that [`EvaluateOptions`] describes, or
    /// all records of other data if the model has no code.
    pub parts: Vec<Subset>,
    /// Corruptions to measure denoising with, such as `gaussian:25`.
    pub corruptions: Vec<String>,
    /// Whether to measure the distance between full and scaled decoding of JPEGs.
    pub compare_decode: bool,
    /// Whether to accept a model whose output depends on random numbers or on other records.
    pub allow_nondeterministic: bool,
    /// The folder of the prepared records, which later evaluations use again. Default: a temporary
    /// one.
    pub prepared: Option<PathBuf>,
}

/// The result of an evaluation, with the prepared data.
pub struct EvaluationRun {
    /// The measurements.
    pub evaluation: Evaluation,
    /// The data.
    pub prepared: PreparedDataset,
    /// The options with which the model was evaluated.
    pub options: EvaluateOptions,
}

impl EvaluationRequest {
    /// Opens the model in a folder.
    ///
    /// # Errors
    /// If the model cannot be opened, or returns neither reconstructions nor latents.
    pub fn open(&self, folder: &Path) -> Result<Model, EvaluateError> {
        let model = open_folder(folder, self.allow_nondeterministic)?;
        if model.files(ModelPath::Reconstruct).is_none() && model.code_size().is_none() {
            return Err(EvaluateError::Argument(format!(
                "{}: cannot evaluate a model that returns neither reconstructions nor latents of a \
                 fixed size",
                model.name()
            )));
        }
        Ok(model)
    }

    /// Whether the request or the model card names data.
    pub fn has_data(&self, model: &Model) -> bool {
        !self.sources.is_empty() || training_data(model).is_some()
    }

    /// Prepares the data and evaluates the model in `folder` on it. The records are prepared in
    /// `temporary`, unless the request names a folder. An error of `watch` ends the evaluation.
    ///
    /// # Errors
    /// If an option is invalid, the data cannot be read, or the model fails.
    pub fn run(
        &self,
        model: &Model,
        folder: &Path,
        temporary: &Path,
        watch: &mut dyn FnMut(EvaluateEvent<'_>) -> Result<(), StageError>,
    ) -> Result<EvaluationRun, EvaluateError> {
        let corruptions = self.corruptions.iter();
        let corruptions = corruptions
            .map(|text| corruption_argument::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        if self.compare_decode && !decode_distance::applies(model) {
            return Err(EvaluateError::Argument(format!(
                "{}: cannot compare the decoding of JPEGs, because the model does not take images \
                 of a fixed size",
                model.name()
            )));
        }
        let spec = self.data_spec(model, folder)?;
        // Without a latent, no records have to be reserved to fit PCA and classifiers.
        let evaluates_all = !self.sources.is_empty() && model.code_size().is_none();
        let parts = match self.parts.as_slice() {
            [] if evaluates_all => Subset::ALL.to_vec(),
            parts => parts.to_vec(),
        };
        let records = self.prepared.as_deref().unwrap_or(temporary);
        let input = model_input(model);
        let prepared = self.prepare(&input, &spec, records, watch)?;
        watch(EvaluateEvent::Prepared(&prepared))?;
        let options = EvaluateOptions { parts, corruptions };
        let mut evaluation = evaluate(model, &prepared, &options, &mut |name, done, total| {
            watch(EvaluateEvent::Step { name, done, total })
        })?;
        evaluation.notes.extend(self.changed_data(model, &prepared));
        if self.compare_decode {
            let is_full = input.decode.unwrap_or_default() == DecodeMode::Full;
            let decode = match is_full {
                true => DecodeMode::Scaled,
                false => DecodeMode::Full,
            };
            let other_input = InputSpec {
                decode: Some(decode),
                ..input
            };
            let records = records.join("other-decoding");
            let other = self.prepare(&other_input, &spec, &records, watch)?;
            let both = match is_full {
                true => [&prepared, &other],
                false => [&other, &prepared],
            };
            let distance =
                decode_distance::measure(model, both, &options, &mut |name, done, total| {
                    watch(EvaluateEvent::Step { name, done, total })
                })?;
            evaluation.decode_distance = Some(distance);
        }
        Ok(EvaluationRun {
            evaluation,
            prepared,
            options,
        })
    }

    /// Returns a note if the training data differs from that of the training, whose digest the card
    /// holds.
    fn changed_data(&self, model: &Model, prepared: &PreparedDataset) -> Option<String> {
        let training = model.card()?.training.as_ref()?;
        let file = &training.file;
        // Other data has another digest, and so have images that were cut into parts.
        let has_other_digest = !self.sources.is_empty()
            || !self.set.is_empty()
            || file
                .get("training")
                .and_then(|table| table.get("zoom"))
                .is_some();
        let stored = training.data_digest.trim_start_matches("sha256:");
        if has_other_digest || stored.is_empty() || prepared.has_digest(stored) {
            return None;
        }
        Some(format!(
            "the records differ from those of the training: their digest is {:.12}, that of the \
             model card is {stored:.12}; the data has changed, or is decoded in another way, and \
             scored records may be among those that the model was trained on",
            prepared.digest
        ))
    }

    /// Returns the `[data]` table of the training, or one with the sources of the request.
    fn data_spec(&self, model: &Model, folder: &Path) -> Result<DataSpec, EvaluateError> {
        let base = if self.sources.is_empty() {
            self.training_data(model, folder)?
        } else {
            self.other_data()?
        };
        let written = overlay(&base, &self.set, "label=species")
            .map_err(|faults| EvaluateError::Argument(fault_lines(&faults, "")))?;
        registry::parse_options(written)
            .map_err(|faults| EvaluateError::Argument(self.data_faults(&faults)))
    }

    /// Formats faults of the `[data]` table, one per line; a fault of an overridden key begins with
    /// its `--set`.
    fn data_faults(&self, faults: &[ConfigError]) -> String {
        let line = |fault: &ConfigError| {
            let text = fault_lines(std::slice::from_ref(fault), "data");
            let is_cause = |set: &&String| {
                set.split_once('=')
                    .is_some_and(|(key, _)| is_at_or_below(&fault.key, key.trim()))
            };
            match self.set.iter().rfind(is_cause) {
                Some(set) => format!("--set {set}: {text}"),
                None => text,
            }
        };
        faults.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn training_data(&self, model: &Model, folder: &Path) -> Result<Value, EvaluateError> {
        let Some(mut data) = training_data(model).cloned() else {
            return Err(EvaluateError::Argument(format!(
                "the model card of {} does not name the training data; name data with --source, \
                 such as a folder of images or a file of records",
                folder.display()
            )));
        };
        if let Value::Object(table) = &mut data {
            // The card lists the columns of the training, so the columns of `without` are already
            // excluded.
            table.remove("without");
            table.extend(
                self.data
                    .iter()
                    .map(|root| ("root".to_owned(), json!(root))),
            );
        }
        Ok(data)
    }

    fn other_data(&self) -> Result<Value, EvaluateError> {
        let sources = self.sources.iter();
        let sources = sources
            .map(|text| source_argument::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "sources": sources, "validation": 0.0, "test": 0.5 }))
    }

    fn prepare(
        &self,
        input: &InputSpec,
        spec: &DataSpec,
        folder: &Path,
        watch: &mut dyn FnMut(EvaluateEvent<'_>) -> Result<(), StageError>,
    ) -> Result<PreparedDataset, EvaluateError> {
        let (stop, mut stopped) = (AtomicBool::new(false), Ok(()));
        let prepared = data::prepare_unless_stopped(spec, input, folder, &stop, &mut |read| {
            if stopped.is_ok() {
                stopped = watch(EvaluateEvent::Reading(read));
                stop.store(stopped.is_err(), Ordering::Relaxed);
            }
        });
        stopped?;
        let prepared = prepared.map_err(|error| match error {
            DataError::Faults(faults) if self.sources.is_empty() => {
                let hint = "these keys describe the training data of the model; if the data has \
                            moved, pass --data FOLDER, or name other data with --source";
                EvaluateError::Argument(format!("{}\n{hint}", self.data_faults(&faults)))
            }
            DataError::Faults(faults) => EvaluateError::Argument(self.data_faults(&faults)),
            DataError::Stage(error) => EvaluateError::Argument(format!("data: {error}")),
        })?;
        prepared.ok_or_else(|| StageError::Other("the evaluation was stopped".to_owned()).into())
    }
}

/// Opens the model in a folder.
///
/// # Errors
/// If the path is not a folder, or the model cannot be opened.
pub fn open_folder(folder: &Path, allow_nondeterministic: bool) -> Result<Model, EvaluateError> {
    if !folder.is_dir() {
        let fault = if folder.exists() {
            "not a folder"
        } else {
            "no such folder"
        };
        return Err(EvaluateError::Argument(format!(
            "{}: {fault}; expected a model folder with model.toml and ONNX files",
            folder.display()
        )));
    }
    let runtime = RuntimeSpec::default();
    model::ort_library::init(&runtime).map_err(|fault| EvaluateError::Argument(fault.message))?;
    let spec = ModelSpec {
        path: Some(folder.to_path_buf()),
        allow_nondeterministic,
        ..ModelSpec::default()
    };
    let name = folder
        .file_name()
        .map_or("model".into(), |name| name.to_string_lossy());
    let model = Model::open(&name, &spec, &runtime, &Arc::new(Metrics::new()));
    model.map_err(|faults| EvaluateError::Argument(fault_lines(&faults, "")))
}

/// Returns the input of a model as its card describes it.
fn model_input(model: &Model) -> InputSpec {
    let mut input = model.input_spec();
    // The cards of earlier versions do not name the values of a list column, but the training file
    // names the column.
    input.columns = input.columns.or_else(|| training_columns(model));
    input
}

/// Returns the `[data]` table of the training from the model card, if the card holds it.
fn training_data(model: &Model) -> Option<&Value> {
    model.card()?.training.as_ref()?.file.get("data")
}

/// Returns the columns that the training file names.
fn training_columns(model: &Model) -> Option<Vec<String>> {
    let file = &model.card()?.training.as_ref()?.file;
    serde_json::from_value(file.get("input")?.get("columns")?.clone()).ok()
}
