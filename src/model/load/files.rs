//! The files of a model, and the graphs in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::config_error::ConfigError;
use crate::model::card::{CARD, ModelCard};
use crate::model::files::{ModelFile, ModelNetwork};
use crate::model::graph::GraphFile;
use crate::model::input::spec::InputSpec;
use crate::model::nondeterminism::NondeterministicOutputs;
use crate::model::ort_backend::{LoadedGraph, OnnxGraph};
use crate::model::tensor_selection::{
    OutputNames, SelectedTensors, SelectionError, select_decoder, select_encoder,
};
use crate::model::tensor_spec::TensorSpec;
use crate::model::{ModelSpec, RuntimeSpec};

/// The ONNX files that ONNX Runtime has loaded for the CPU, by role.
pub(in crate::model) type LoadedGraphs = BTreeMap<&'static str, LoadedGraph>;

/// The files of a model after ONNX Runtime has loaded them.
pub(super) struct OpenedFiles {
    pub(super) network: ModelNetwork,
    /// The graph of the first file.
    pub(super) graph: Option<GraphFile>,
    pub(super) loaded: LoadedGraphs,
}

/// The contents of the ONNX files that are read before ONNX Runtime opens them.
pub(super) struct OnnxFiles {
    /// The digests of the files and their external data, by role and name.
    pub(super) digests: BTreeMap<String, String>,
    /// The nondeterministic nodes of each output, by role.
    pub(super) outputs: BTreeMap<&'static str, NondeterministicOutputs>,
    /// The paths of the card and of all these files.
    pub(super) paths: BTreeSet<PathBuf>,
}

/// The paths of the files of a model, and its card.
pub(super) struct ModelFiles {
    pub(super) folder: Option<PathBuf>,
    pub(super) card: Option<ModelCard>,
    pub(super) encoder: Option<PathBuf>,
    pub(super) decoder: Option<PathBuf>,
    whole: Option<PathBuf>,
}

impl ModelFiles {
    pub(super) fn find(spec: &ModelSpec) -> Result<Self, Vec<ConfigError>> {
        let (encoder, decoder, whole) = (
            spec.encoder.clone(),
            spec.decoder.clone(),
            spec.model.clone(),
        );
        let named = [
            ("encoder", &encoder),
            ("decoder", &decoder),
            ("model", &whole),
        ];
        let named: Vec<&str> = named
            .iter()
            .filter_map(|(key, path)| path.as_ref().map(|_| *key))
            .collect();
        let Some(folder) = &spec.path else {
            let files = Self {
                folder: None,
                card: None,
                encoder,
                decoder,
                whole,
            };
            return files.complete().map_err(|fault| vec![fault]);
        };
        let keys_of_card = spec.card_keys().into_iter();
        let mut faults: Vec<ConfigError> = keys_of_card
            .map(|key| ConfigError::new(key, "is already set by the model card; remove it"))
            .collect();
        faults.extend(named.iter().map(|key| {
            let message =
                format!("`path` already names the files of the model; remove `{key}` or `path`");
            ConfigError::new(*key, message)
        }));
        let inside = |file: &str| Some(folder.join(file)).filter(|path| path.is_file());
        let mut files = Self {
            folder: Some(folder.clone()),
            card: None,
            encoder: inside("encoder.onnx"),
            decoder: inside("decoder.onnx"),
            whole: inside("model.onnx"),
        };
        if !folder.is_dir() {
            faults.push(ConfigError::new(
                "path",
                format!(
                    "{} is not a folder; for an ONNX file, use `model`",
                    folder.display()
                ),
            ));
            return Err(faults);
        }
        match ModelCard::read(&folder.join(CARD)) {
            Ok(card) => files.card = Some(card),
            Err(more) => faults.extend(more),
        }
        match files.complete() {
            Ok(files) if faults.is_empty() => Ok(files),
            Ok(_) => Err(faults),
            Err(fault) => Err(faults.into_iter().chain([fault]).collect()),
        }
    }

    /// Checks that the files form a network: an encoder, optionally with its decoder, or a single
    /// file.
    fn complete(self) -> Result<Self, ConfigError> {
        let error = |key: &str, message: &str| match &self.folder {
            Some(folder) => ConfigError::new("path", format!("{}: {message}", folder.display())),
            None => ConfigError::new(key, message),
        };
        match (&self.encoder, &self.decoder, &self.whole) {
            (Some(_), _, None) | (None, None, Some(_)) => Ok(self),
            (None, None, None) if self.folder.is_some() => {
                Err(error("", "contains neither encoder.onnx nor model.onnx"))
            }
            (None, None, None) => Err(error(
                "",
                "no model is given; set `path`, `encoder` or `model`",
            )),
            (None, Some(_), None) => Err(error(
                "decoder",
                "a decoder cannot be used without its encoder; add the encoder",
            )),
            (_, _, Some(_)) => Err(error(
                "model",
                "a complete network cannot be combined with an encoder or a decoder; remove one of \
                 them",
            )),
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let parts = [
            ("encoder", &self.encoder),
            ("decoder", &self.decoder),
            ("model", &self.whole),
        ];
        parts
            .into_iter()
            .filter_map(|(role, path)| Some((role, path.as_ref()?)))
    }

    pub(super) fn fault(&self, role: &str, path: &Path, message: &str) -> ConfigError {
        let key = if self.folder.is_some() { "path" } else { role };
        ConfigError::new(key, format!("{}: {message}", path.display()))
    }

    pub(super) fn open(
        &self,
        spec: &ModelSpec,
        runtime: &RuntimeSpec,
        nondeterministic: &BTreeMap<&'static str, NondeterministicOutputs>,
    ) -> Result<OpenedFiles, Vec<ConfigError>> {
        let (mut faults, mut unfit, mut first) = (Vec::new(), None, None);
        let mut parts: Vec<ModelFile> = Vec::new();
        let mut graphs = LoadedGraphs::new();
        for (role, path) in self.parts() {
            let graph = match LoadedGraph::open(path, runtime) {
                Ok(loaded) => {
                    let graph = loaded.describe();
                    // The memory of a device may hold no more than the sessions of the run.
                    if !runtime.uses_device() {
                        graphs.insert(role, loaded);
                    }
                    graph
                }
                Err(reason) => {
                    let message = format!("ONNX Runtime cannot load it: {reason}");
                    faults.push(self.fault(role, path, &message));
                    continue;
                }
            };
            let selected = self.select(role, &graph, spec, parts.first());
            let of_file = nondeterministic.get(role).cloned().unwrap_or_default();
            if role != "decoder" {
                first = Some(GraphFile::new((role, path), &graph, of_file));
            }
            match selected {
                Ok(selected) => {
                    let mut file = ModelFile::new((role, path), selected, graph.outputs, spec);
                    // A reconstruction that no option names must not prevent the use of the code.
                    let random = |output: &TensorSpec| {
                        let found = nondeterministic
                            .get(role)
                            .and_then(|all| all.get(&output.name));
                        found.is_some_and(|nodes| !nodes.is_empty())
                    };
                    if file.named_reconstruction.is_none() && !spec.allow_nondeterministic {
                        file.reconstruction.take_if(|output| random(output));
                    }
                    parts.push(file);
                }
                Err(SelectionError::Option(_, message) | SelectionError::File(message))
                    if role == "model" && !self.describes_network(spec) =>
                {
                    match first.as_ref().map(GraphFile::check_inputs) {
                        Some(Err(fault)) => {
                            faults.push(self.fault(role, path, &fault.to_string()));
                        }
                        _ => unfit = Some(message),
                    }
                }
                Err(SelectionError::Option(key, message)) => {
                    faults.push(ConfigError::new(key, message));
                }
                Err(SelectionError::File(message)) => faults.push(self.fault(role, path, &message)),
            }
        }
        if self.decoder.is_none() && spec.decoder_output.is_some() {
            faults.push(ConfigError::new(
                "decoder_output",
                "the model has no decoder; remove this key",
            ));
        }
        let mut parts = parts.into_iter();
        let network = match (parts.next(), parts.next(), unfit) {
            _ if !faults.is_empty() => return Err(faults),
            (Some(file), None, _) if file.role == "model" || file.reconstruction.is_some() => {
                ModelNetwork::SingleFile(file)
            }
            (Some(encoder), decoder, _) => ModelNetwork::Autoencoder { encoder, decoder },
            (None, _, Some(reason)) => ModelNetwork::Graph(reason),
            (None, _, None) => return Err(faults),
        };
        Ok(OpenedFiles {
            network,
            graph: first,
            loaded: graphs,
        })
    }

    /// Whether the pipeline or the card describes the file as an encoder or a complete network: its
    /// faults are then faults of the description.
    fn describes_network(&self, spec: &ModelSpec) -> bool {
        let input = match &self.card {
            Some(card) => Some(card.input.clone()),
            None => spec.input_spec().ok(),
        };
        let describes =
            |declared: InputSpec| declared.kind.is_some() || !declared.set_keys().is_empty();
        let names = [&spec.output, &spec.reconstruction, &spec.decoder_output];
        // A file of preprocessing that cannot be read is reported as a fault of the description.
        names.into_iter().any(Option::is_some) || input.is_none_or(describes)
    }

    /// Selects the tensors of a file. `encoder` is the file that was selected before.
    fn select(
        &self,
        role: &str,
        graph: &OnnxGraph,
        spec: &ModelSpec,
        encoder: Option<&ModelFile>,
    ) -> Result<SelectedTensors, SelectionError> {
        match (role, encoder, graph.inputs.first()) {
            // If the encoder cannot be used, its fault is reported, and the decoder is compared
            // with its own input.
            ("decoder", None, Some(record)) => {
                select_decoder(graph, spec.decoder_output.as_deref(), record)
            }
            ("decoder", Some(encoder), _) => {
                select_decoder(graph, spec.decoder_output.as_deref(), &encoder.input)
            }
            _ => {
                let names = OutputNames {
                    output: spec.output.as_deref(),
                    reconstruction: spec.reconstruction.as_deref(),
                };
                select_encoder(graph, names, role == "encoder", self.decoder.is_some())
            }
        }
    }
}
