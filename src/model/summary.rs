//! The description of a model for people, and its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::model::Model;
use crate::model::files::{ModelFile, ModelNetwork, ModelPath};
use crate::model::input::ModelInput;
use crate::model::tensor_spec::TensorSpec;

impl Model {
    /// The files that a path runs, in order; `None` if the model does not have this path.
    pub fn files(&self, path: ModelPath) -> Option<Vec<&ModelFile>> {
        match (&self.network, path) {
            (ModelNetwork::Graph(_), _) => None,
            (ModelNetwork::SingleFile(_), ModelPath::Decode)
            | (ModelNetwork::Autoencoder { .. }, ModelPath::EncodeAndReconstruct) => None,
            (ModelNetwork::SingleFile(file), ModelPath::EncodeAndReconstruct) => {
                file.reconstruction.as_ref().map(|_| vec![file])
            }
            (ModelNetwork::SingleFile(file), _) => Some(vec![file]),
            (ModelNetwork::Autoencoder { encoder, .. }, ModelPath::Encode) => Some(vec![encoder]),
            (ModelNetwork::Autoencoder { decoder, .. }, ModelPath::Decode) => {
                decoder.as_ref().map(|decoder| vec![decoder])
            }
            (ModelNetwork::Autoencoder { encoder, decoder }, ModelPath::Reconstruct) => {
                decoder.as_ref().map(|decoder| vec![encoder, decoder])
            }
        }
    }

    pub(crate) fn all_files(&self) -> impl Iterator<Item = &ModelFile> {
        [ModelPath::Encode, ModelPath::Decode]
            .into_iter()
            .filter_map(|path| self.files(path))
            .flatten()
    }

    /// The paths of the ONNX files.
    fn onnx_paths(&self) -> impl Iterator<Item = &PathBuf> {
        let graph = self.graph().filter(|_| self.unfit().is_some());
        let files = self.all_files().map(|part| &part.path);
        files.chain(graph.map(|file| &file.path))
    }

    /// The folders of the model files.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.onnx_paths()
            .filter_map(|path| path.parent().map(Path::to_path_buf))
            .collect()
    }

    /// The total size of the ONNX files in bytes, without external data.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.onnx_paths()
            .filter_map(|path| path.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// A summary of kind, input, latent and loss on one line.
    pub fn summary(&self) -> String {
        if let (Some(_), Some(graph)) = (self.unfit(), self.graph()) {
            let names = |tensors: &[TensorSpec]| {
                let all: Vec<String> = tensors.iter().map(TensorSpec::to_string).collect();
                all.join(", ")
            };
            let (inputs, outputs) = (names(&graph.inputs), names(&graph.outputs));
            return format!("{} {inputs} -> {outputs}", self.kind);
        }
        let shape = self
            .input_shape()
            .map_or("any size".to_owned(), |shape| format!("{shape:?}"));
        let input = match &self.input {
            ModelInput::Image(image) => {
                format!("{:?} images {shape}", image.format.channels).to_lowercase()
            }
            ModelInput::Features(_) => format!("features {shape}"),
            ModelInput::Tensor => format!("tensors {shape}"),
        };
        let code = self
            .code_size
            .map_or(String::new(), |size| format!(" -> code of {size}"));
        let caution = match &self.nondeterminism {
            Some(reason) => format!(", not the same in every run ({reason})"),
            None => String::new(),
        };
        format!(
            "{} {input}{code}, {} loss{caution}",
            self.kind,
            self.loss.as_str()
        )
    }
}
