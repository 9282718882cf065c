//! Loads a model: finds its files, verifies them against the card, and checks that they fit
//! together.

pub(crate) mod digest;
pub(crate) mod files;
pub(crate) mod remote;
pub(crate) mod verify;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::card::{self, CARD};
use crate::model::files::{ModelFile, ModelNetwork, stamp};
use crate::model::load::digest::digest;
use crate::model::load::files::{ModelFiles, OnnxFiles, OpenedFiles};
use crate::model::load::remote::RemoteCopies;
use crate::model::load::verify::match_shapes;
use crate::model::tensor_selection::SelectedTensors;
use crate::model::tensor_spec::TensorSpec;
use crate::model::{Model, ModelInput, ModelSpec, RuntimeSpec, trial_run};

/// Loads a model, as [`Model::open`].
pub(super) fn open(
    name: &str,
    spec: &ModelSpec,
    runtime: &RuntimeSpec,
    metrics: &Arc<Metrics>,
) -> Result<Model, Vec<ConfigError>> {
    let Some((local, copies)) = RemoteCopies::fetch(spec)? else {
        return open_local(name, spec, runtime, metrics);
    };
    match open_local(name, &local, runtime, metrics) {
        Ok(model) => Ok(Model {
            copies: Some(copies),
            ..model
        }),
        Err(faults) => Err(faults
            .into_iter()
            .map(|fault| copies.with_urls(fault))
            .collect()),
    }
}

fn open_local(
    name: &str,
    spec: &ModelSpec,
    runtime: &RuntimeSpec,
    metrics: &Arc<Metrics>,
) -> Result<Model, Vec<ConfigError>> {
    let files = ModelFiles::find(spec)?;
    let OnnxFiles {
        digests,
        outputs,
        mut paths,
    } = files.verify()?;
    paths.extend(spec.preprocessor.clone());
    let OpenedFiles {
        network,
        graph,
        loaded,
    } = files.open(spec, runtime, &outputs)?;
    let found = files.nondeterminism(&network, &outputs, runtime);
    let nondeterminism = match found {
        Some((_, fault)) if !spec.allow_nondeterministic => return Err(vec![fault]),
        Some((reason, _)) => Some(reason),
        None => (spec.allow_nondeterministic).then(|| "`allow_nondeterministic` is set".to_owned()),
    };
    let card = files.card;
    let input_spec = match &card {
        Some(card) => card.input.clone(),
        None => spec.input_spec().map_err(|fault| vec![fault])?,
    };
    let first = match &network {
        ModelNetwork::Autoencoder { encoder, .. } => Some(encoder),
        ModelNetwork::SingleFile(file) => Some(file),
        ModelNetwork::Graph(_) => None,
    };
    let in_card = |fault| match &spec.path {
        Some(folder) => card::in_file(&folder.join(CARD), ConfigError::within(fault, "input")),
        None => fault,
    };
    let input = first.map_or(Ok(ModelInput::Tensor), |file| {
        input_spec.resolve(&file.input)
    });
    let input = input.map_err(|faults| faults.into_iter().map(in_card).collect::<Vec<_>>())?;
    let mut model = Model {
        name: name.to_owned(),
        kind: card
            .as_ref()
            .map_or("onnx", |card| card.kind.as_str())
            .to_owned(),
        digest: String::new(),
        loss: card
            .as_ref()
            .map(|card| card.loss)
            .or(spec.loss)
            .unwrap_or_default(),
        size_multiple: card
            .as_ref()
            .and_then(|card| card.multiple)
            .or(spec.multiple.map(Into::into))
            .unwrap_or(1),
        card,
        input,
        code_size: None,
        network,
        graph,
        nondeterminism,
        paths,
        copies: None,
        runtime: runtime.clone(),
        shared: Mutex::default(),
        shared_graphs: Mutex::default(),
        metrics: Arc::clone(metrics),
    };
    model.digest = digest(&model, &input_spec, &digests);
    model.code_size = match_shapes(&model).map_err(|fault| {
        let key = if spec.path.is_some() {
            "path"
        } else {
            fault.key.as_str()
        };
        vec![ConfigError::new(key, fault.message.clone())]
    })?;
    if !spec.allow_nondeterministic
        && let Some((file, fault)) = trial_run::fault(&model, runtime, loaded)
    {
        let key = spec.path.as_ref().map_or(file.role, |_| "path");
        let message = format!("{}: {fault}", file.path.display());
        return Err(vec![ConfigError::new(key, message)]);
    }
    Ok(model)
}

impl ModelFile {
    fn new(
        (role, path): (&'static str, &Path),
        selected: SelectedTensors,
        outputs: Vec<TensorSpec>,
        spec: &ModelSpec,
    ) -> Self {
        let named = match role {
            "decoder" => spec.decoder_output.as_ref(),
            _ => spec.output.as_ref(),
        };
        // Earlier versions selected the first output if no option named one. Digests stay as they
        // were.
        let first = outputs.first().map(|output| &output.name);
        Self {
            role,
            path: path.to_path_buf(),
            digest_output: named.or(first).cloned().unwrap_or_default(),
            named_reconstruction: spec.reconstruction.clone().filter(|_| role != "decoder"),
            input: selected.input,
            output: selected.output,
            reconstruction: selected.reconstruction,
            ambiguity: selected.ambiguity,
            outputs,
            stamp: stamp(path),
        }
    }
}

#[cfg(test)]
mod tests;
