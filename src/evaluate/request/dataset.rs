//! The data of an evaluation.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::config::is_at_or_below;
use crate::config::load::overlay;
use crate::data::{self, DataError, DataSpec, PreparedDataset, current_data};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::evaluate::options::EvaluationRequest;
use crate::evaluate::options::{EvaluateError, EvaluateEvent, fault_lines};
use crate::evaluate::source_argument;
use crate::model::Model;
use crate::model::input::spec::InputSpec;
use crate::registry;

/// Returns the input of a model as its card describes it.
pub(crate) fn model_input(model: &Model) -> InputSpec {
    let mut input = model.input_spec();
    // The cards of earlier versions do not name the values of a list column, but the training file
    // names the column.
    input.columns = input.columns.or_else(|| training_columns(model));
    input
}

/// Returns the `[data]` table of the training from the model card, if the card holds it.
pub(super) fn training_data(model: &Model) -> Option<Value> {
    let data = model.card()?.training.as_ref()?.file.get("data");
    data.cloned().map(current_data)
}

/// Returns the columns that the training file names.
fn training_columns(model: &Model) -> Option<Vec<String>> {
    let file = &model.card()?.training.as_ref()?.file;
    serde_json::from_value(file.get("input")?.get("columns")?.clone()).ok()
}

impl EvaluationRequest {
    /// Returns a note if the training data differs from that of the training, whose digest the card
    /// holds.
    pub(super) fn changed_data(&self, model: &Model, prepared: &PreparedDataset) -> Option<String> {
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

    /// Returns a note if the training separates anomalies, but the sources of the request do not: other
    /// data may have other columns, so its `normal` is not that of the training.
    pub(crate) fn unseparated_anomalies(&self, model: &Model) -> Option<String> {
        let data = training_data(model)?;
        let normal = data.get("normal")?.as_object()?;
        let is_set = |set: &String| set.trim_start().starts_with("normal");
        if self.sources.is_empty() || self.set.iter().any(is_set) {
            return None;
        }
        let keys: Vec<String> = normal
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        Some(format!(
            "all records of the sources count as normal; if they have the labels of the training data, pass \
             --set 'normal={{ {} }}'",
            keys.join(", ")
        ))
    }

    /// Returns the `[data]` table of the training, or one with the sources of the request.
    pub(crate) fn data_spec(
        &self,
        model: &Model,
        folder: &Path,
    ) -> Result<DataSpec, EvaluateError> {
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
        let Some(mut data) = training_data(model) else {
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

    pub(crate) fn prepare(
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
        prepared
            .ok_or_else(|| StageError::new(ErrorCode::Stopped, "the evaluation was stopped").into())
    }
}
