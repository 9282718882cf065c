//! The files of a model.

use std::path::{Path, PathBuf};

use crate::model::tensor_spec::TensorSpec;

/// The files of a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per model")]
pub(super) enum ModelNetwork {
    /// An encoder, and optionally its decoder.
    Autoencoder {
        encoder: ModelFile,
        decoder: Option<ModelFile>,
    },
    /// One file for the complete network, from input to output.
    SingleFile(ModelFile),
    /// One file that is neither, and why: it has several inputs, for example.
    Graph(String),
}

/// One ONNX file of a model.
#[derive(Debug)]
pub struct ModelFile {
    /// `encoder`, `decoder` or `model`: the key in a pipeline, and the value of a metric label.
    pub role: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// The input of the graph.
    pub input: TensorSpec,
    /// The selected output of the graph: the code, or the only result.
    pub output: TensorSpec,
    /// The output with the reconstruction, if the file returns a code as well.
    pub reconstruction: Option<TensorSpec>,
    /// All outputs of the graph.
    pub outputs: Vec<TensorSpec>,
    /// Why `output` is not the code of a network in one file: several outputs may be it.
    pub ambiguity: Option<String>,
    /// The name of the output in the digest.
    pub(super) digest_output: String,
    /// The option that names the reconstruction.
    pub(crate) named_reconstruction: Option<String>,
    /// The stamp of the file when it was loaded. A file with another stamp is another model.
    pub(super) stamp: FileStamp,
}

/// Length and modification time of a file; `None` if the system does not provide them.
pub(super) type FileStamp = Option<(u64, std::time::SystemTime)>;

pub(super) fn stamp(path: &Path) -> FileStamp {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// The part of a model that is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPath {
    /// From input to latent. For a network in one file, from its input to its output.
    Encode,
    /// From latent to reconstruction.
    Decode,
    /// From input to reconstruction. For a network in one file, from its input to its output.
    Reconstruct,
    /// From input to latent and reconstruction in one call, for a file with both outputs. The
    /// output of a record is the latent, followed by the reconstruction.
    EncodeAndReconstruct,
}

impl ModelFile {
    /// The outputs of the file that a path computes.
    pub(super) fn outputs_of(&self, path: ModelPath) -> Vec<&TensorSpec> {
        match (path, &self.reconstruction) {
            (ModelPath::Reconstruct, Some(reconstruction)) => vec![reconstruction],
            (ModelPath::EncodeAndReconstruct, _) => self.taken().collect(),
            _ => vec![&self.output],
        }
    }

    /// The selected outputs.
    pub(crate) fn taken(&self) -> impl Iterator<Item = &TensorSpec> {
        std::iter::once(&self.output).chain(&self.reconstruction)
    }
}
