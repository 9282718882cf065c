//! The evaluation of a model folder on the data of its training, or on other data.

pub(crate) mod dataset;

use std::path::Path;
use std::sync::Arc;

use super::evaluation::evaluate;
use super::result::Evaluation;
use super::{corruption_argument, decode_distance};
use crate::data::{PreparedDataset, Subset};
use crate::error::StageError;
use crate::evaluate::ensemble::Ensemble;
use crate::evaluate::options::{
    EvaluateError, EvaluateEvent, EvaluateOptions, EvaluationRequest, fault_lines,
};
use crate::evaluate::request::dataset::{model_input, training_data};
use crate::image::DecodeMode;
use crate::metrics::Metrics;
use crate::model::files::ModelPath;
use crate::model::input::spec::InputSpec;
use crate::model::{self, Model, ModelSpec, RuntimeSpec};

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
    pub(crate) fn has_data(&self, model: &Model) -> bool {
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
                 of a fixed size that are resized without steps",
                model.name()
            )));
        }
        let ensemble = Ensemble::open(model, &self.ensemble, self)?;
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
        evaluation.notes.extend(self.unseparated_anomalies(model));
        if let (Some(ensemble), Some(anomalies)) = (&ensemble, &mut evaluation.anomalies) {
            anomalies.ensemble =
                ensemble.measure(&prepared, &options, &mut |name, done, total| {
                    watch(EvaluateEvent::Step { name, done, total })
                })?;
        } else if ensemble.is_some() {
            let note = "the ensemble was not measured: the data does not distinguish anomalies from \
                        normal records";
            evaluation.notes.push(note.to_owned());
        }
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
