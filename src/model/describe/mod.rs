//! Describes a model folder or an ONNX file as text: inputs and outputs, versions, digests, and its
//! use in a pipeline.

pub mod display;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::card::{CARD, ModelCard};
use crate::model::load::digest::{read, read_header, sha256};
use crate::model::nondeterminism::NondeterministicOutputs;
use crate::model::onnx_metadata::OnnxMetadata;
use crate::model::ort_backend::{LoadedGraph, OnnxGraph};
use crate::model::{Model, ModelSpec, RuntimeSpec};

/// Describes a model folder or a bare ONNX file. [`crate::model::ort_library::init`] must have
/// loaded ONNX Runtime before.
///
/// # Errors
/// When the file does not exist, or when a folder contains neither a card nor an ONNX file.
pub fn describe(path: &Path, runtime: &RuntimeSpec) -> Result<ModelDescription, Vec<ConfigError>> {
    let (spec, files) = if path.is_dir() {
        let files = ["encoder.onnx", "decoder.onnx", "model.onnx"].map(|file| path.join(file));
        let files: Vec<PathBuf> = files.into_iter().filter(|file| file.is_file()).collect();
        if files.is_empty() && !path.join(CARD).is_file() {
            let message = format!(
                "{} contains no {CARD}, encoder.onnx, decoder.onnx or model.onnx",
                path.display()
            );
            return Err(vec![ConfigError::new("path", message)]);
        }
        (
            ModelSpec {
                path: Some(path.to_path_buf()),
                ..ModelSpec::default()
            },
            files,
        )
    } else {
        (
            ModelSpec {
                model: Some(path.to_path_buf()),
                ..ModelSpec::default()
            },
            vec![path.to_path_buf()],
        )
    };
    let files = files
        .iter()
        .map(|file| OnnxFile::read(file, runtime))
        .collect::<Result<_, _>>();
    let files = files.map_err(|message| vec![ConfigError::new("path", message)])?;
    let model = Model::open("model", &spec, runtime, &Arc::new(Metrics::new()));
    let card = path
        .is_dir()
        .then(|| ModelCard::read(&path.join(CARD)).ok())
        .flatten();
    Ok(ModelDescription {
        path: path.to_path_buf(),
        card,
        files,
        model,
    })
}

/// The description of a model. Its `Display` implementation writes the text.
pub struct ModelDescription {
    path: PathBuf,
    card: Option<ModelCard>,
    files: Vec<OnnxFile>,
    model: Result<Model, Vec<ConfigError>>,
}

impl ModelDescription {
    /// Whether the model can be used in a stage.
    pub fn usable(&self) -> bool {
        self.model.is_ok()
    }
}

struct OnnxFile {
    path: PathBuf,
    bytes: usize,
    digest: String,
    header: OnnxMetadata,
    nondeterministic: NondeterministicOutputs,
    graph: Result<OnnxGraph, String>,
}

impl OnnxFile {
    fn read(path: &Path, runtime: &RuntimeSpec) -> Result<Self, String> {
        let bytes = read(path)?;
        let header = read_header(path, &bytes);
        let open = |_| {
            LoadedGraph::open(path, runtime)
                .map(|graph| graph.describe())
                .map_err(|reason| format!("ONNX Runtime cannot load it: {reason}"))
        };
        let graph = header.as_ref().map_err(String::clone).and_then(open);
        let (metadata, nondeterministic) = header.unwrap_or_default();
        Ok(Self {
            path: path.to_path_buf(),
            bytes: bytes.len(),
            digest: sha256(path)?,
            graph,
            header: metadata,
            nondeterministic,
        })
    }
}

#[cfg(test)]
mod tests;
