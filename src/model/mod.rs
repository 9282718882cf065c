//! Models: a folder with a model card, or bare ONNX files, which are loaded, checked and run in
//! sessions.

pub mod attribution;
pub mod card;
pub mod describe;
pub mod feature_errors;
pub mod input;
mod library_search;
mod batch_limits;
pub mod loss;
pub mod ort_backend;
mod load;
mod nondeterminism;
mod onnx_graph;
mod trial_run;
pub mod tensor_spec;
mod tensor_selection;
pub mod onnx_metadata;
pub mod ort_library;
pub mod session;
pub mod dynamic_batcher;
pub mod config;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use card::ModelCard;
pub use config::{ModelSpec, RuntimeSpec};
pub use describe::{OutputsDisplay, describe};
pub use input::{FeatureInput, FeatureScale, ImageInput, ModelInput, Scaling};
pub use loss::Loss;
use prometheus::Histogram;

use crate::error::{ConfigError, StageError};
use crate::metrics::Metrics;
use batch_limits::InferenceBatchLimits;
use dynamic_batcher::DynamicBatcher;
use input::{InputKind, InputSpec};
use ort_backend::{InferenceMetrics, LoadedGraph, OrtSession};
use session::{Session, SessionBackend, SessionChain};
use tensor_spec::{TensorSpec, element_count};

/// A model that was loaded and checked. It creates the sessions: one per worker, or one that all
/// workers share.
pub struct Model {
    name: String,
    kind: String,
    digest: String,
    loss: Loss,
    card: Option<ModelCard>,
    input: ModelInput,
    code_size: Option<usize>,
    size_multiple: usize,
    network: ModelNetwork,
    /// Why the model is not deterministic, if the pipeline allows it; `None` otherwise.
    nondeterminism: Option<String>,
    paths: BTreeSet<PathBuf>,
    runtime: RuntimeSpec,
    shared: Mutex<SharedSessions>,
    metrics: Arc<Metrics>,
}

/// The sessions that all workers share, by the role of their file and the names of their outputs.
type SharedSessions = BTreeMap<(&'static str, Vec<String>), Arc<DynamicBatcher<OrtSession>>>;

/// The files of a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per model")]
enum ModelNetwork {
    /// An encoder, and optionally its decoder.
    Autoencoder {
        encoder: ModelFile,
        decoder: Option<ModelFile>,
    },
    /// One file for the complete network, from input to output.
    SingleFile(ModelFile),
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
    digest_output: String,
    /// The option that names the reconstruction.
    named_reconstruction: Option<String>,
    /// The stamp of the file when it was loaded. A file with another stamp is another model.
    stamp: FileStamp,
}

/// Length and modification time of a file; `None` if the system does not provide them.
type FileStamp = Option<(u64, std::time::SystemTime)>;

fn stamp(path: &Path) -> FileStamp {
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
    fn outputs_of(&self, path: ModelPath) -> Vec<&TensorSpec> {
        match (path, &self.reconstruction) {
            (ModelPath::Reconstruct, Some(reconstruction)) => vec![reconstruction],
            (ModelPath::EncodeAndReconstruct, _) => self.taken().collect(),
            _ => vec![&self.output],
        }
    }

    /// The selected outputs.
    fn taken(&self) -> impl Iterator<Item = &TensorSpec> {
        std::iter::once(&self.output).chain(&self.reconstruction)
    }
}

impl Model {
    /// Loads the card and the ONNX files, and checks them against each other. The keys of errors
    /// are relative to the model's table. [`ort_library::init`] must have loaded ONNX Runtime
    /// before.
    ///
    /// # Errors
    /// All errors of the card; a file that cannot be read or that does not match its digest; shapes
    /// that do not match.
    pub fn open(
        name: &str,
        spec: &ModelSpec,
        runtime: &RuntimeSpec,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<ConfigError>> {
        load::open(name, spec, runtime, metrics)
    }

    /// The name of the model in the pipeline.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The execution providers in order of preference, separated by commas, as in `cuda,cpu`.
    pub fn providers(&self) -> String {
        let names: Vec<&str> = self
            .runtime
            .providers
            .iter()
            .map(|provider| provider.as_str())
            .collect();
        names.join(",")
    }

    /// The kind of network according to the card; `onnx` for bare files.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// SHA-256 digest, in hexadecimal, over everything that determines the results: the ONNX files,
    /// their external data, and the preprocessing.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The paths of all files of the model: the card and the files that it lists, the ONNX files and
    /// their external data.
    pub fn paths(&self) -> &BTreeSet<PathBuf> {
        &self.paths
    }

    /// The loss that measures the reconstruction error.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The model card; `None` for bare files.
    pub fn card(&self) -> Option<&ModelCard> {
        self.card.as_ref()
    }

    /// The input of the model.
    pub fn input(&self) -> &ModelInput {
        &self.input
    }

    /// The input as a card describes it: the values of the model's own card, completed by values
    /// inferred from the files.
    pub fn input_spec(&self) -> InputSpec {
        let declared = self
            .card
            .as_ref()
            .map(|card| card.input.clone())
            .unwrap_or_default();
        match &self.input {
            ModelInput::Image(ImageInput { format, size, .. }) => InputSpec {
                kind: Some(InputKind::Image),
                size: size.map(|(height, width)| [height, width]),
                channels: Some(format.channels),
                layout: Some(format.layout),
                ..declared
            },
            ModelInput::Features(_) => InputSpec {
                kind: Some(InputKind::Features),
                ..declared
            },
            ModelInput::Tensor => declared,
        }
    }

    /// The image input, if the model takes images.
    pub fn image_input(&self) -> Option<ImageInput> {
        match &self.input {
            ModelInput::Image(image) => Some(image.clone()),
            _ => None,
        }
    }

    /// The feature input, if the model takes features.
    pub fn feature_input(&self) -> Option<&FeatureInput> {
        match &self.input {
            ModelInput::Features(features) => Some(features),
            _ => None,
        }
    }

    /// Why no output of a network in one file is plainly its code, if there are several.
    pub fn code_ambiguity(&self) -> Option<&str> {
        self.first().ambiguity.as_deref()
    }

    /// The output that is the code, if no option names it and it is not the first output of the
    /// file, which earlier versions selected. The digest of the model does not include it.
    pub fn inferred_code_output(&self) -> Option<&str> {
        let file = self.first();
        Some(file.output.name.as_str()).filter(|name| *name != file.digest_output)
    }

    /// The number of values of a latent, if the model has latents of a fixed size.
    pub fn code_size(&self) -> Option<usize> {
        self.code_size
    }

    /// The height and width of images must be multiples of this number.
    pub fn size_multiple(&self) -> usize {
        self.size_multiple
    }

    /// The shape of one record, without the batch dimension. `None` for images of any size.
    pub fn input_shape(&self) -> Option<Vec<usize>> {
        match &self.input {
            ModelInput::Image(ImageInput { format, size, .. }) => {
                size.map(|(height, width)| format.shape(height, width))
            }
            ModelInput::Features(features) if !features.columns.is_empty() => {
                Some(vec![features.columns.len()])
            }
            ModelInput::Features(_) | ModelInput::Tensor => self.first().input.row_shape(),
        }
    }

    /// The files that a path runs, in order; `None` if the model does not have this path.
    pub fn files(&self, path: ModelPath) -> Option<Vec<&ModelFile>> {
        match (&self.network, path) {
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

    /// The output shape of a path for one record of the shape `shape`. If the files do not declare
    /// it, a record of zeros is run.
    ///
    /// # Errors
    /// When the model does not have this path, when a record of this shape does not fit, or when
    /// the model fails on zeros.
    pub fn output_shape(&self, path: ModelPath, shape: &[usize]) -> Result<Vec<usize>, String> {
        let parts = self
            .files(path)
            .ok_or_else(|| format!("the model `{}` has no decoder", self.name))?;
        let mut declared = Some(shape.to_vec());
        for part in &parts {
            if let Some(input_shape) = &declared
                && !part.input.takes(input_shape)
            {
                return Err(format!(
                    "{}: {}",
                    part.path.display(),
                    session::shape_mismatch(input_shape, &part.input)
                ));
            }
            declared = match part.outputs_of(path).as_slice() {
                [output] => output.row_shape(),
                _ => None,
            };
        }
        match declared {
            Some(declared) => Ok(declared),
            None => self.probe(path, shape),
        }
    }

    fn probe(&self, path: ModelPath, shape: &[usize]) -> Result<Vec<usize>, String> {
        let len = element_count(shape).filter(|&len| len <= MAX_PROBE_VALUES);
        let len = len.ok_or_else(|| format!("the shape {shape:?} is too large for a trial run"))?;
        let mut chain = self.chain(path).map_err(|error| error.to_string())?;
        chain.run(&vec![0.0; len], shape, &mut Vec::new())
    }

    /// Creates the sessions of a path, which run on one thread.
    ///
    /// # Errors
    /// When the model does not have this path, or a file cannot be loaded again.
    pub fn chain(&self, path: ModelPath) -> Result<SessionChain, StageError> {
        let parts = self.files(path);
        let parts = parts.ok_or_else(|| {
            StageError::Model(format!("the model `{}` has no decoder", self.name))
        })?;
        let sessions = parts
            .into_iter()
            .map(|part| self.session(part, &part.outputs_of(path)))
            .collect::<Result<_, _>>()?;
        Ok(SessionChain::new(sessions))
    }

    fn session(&self, part: &ModelFile, outputs: &[&TensorSpec]) -> Result<Session, StageError> {
        if stamp(&part.path) != part.stamp {
            let path = part.path.display();
            return Err(StageError::Model(format!(
                "{path}: the file has changed since it was loaded; run again to use the new file"
            )));
        }
        let limits = self.call_limits(part, outputs);
        let backend = if self.runtime.shares_sessions() {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let names = outputs.iter().map(|output| output.name.clone()).collect();
            let one = match shared.entry((part.role, names)) {
                Entry::Occupied(opened) => Arc::clone(opened.get()),
                Entry::Vacant(vacant) => {
                    let session = self.open_session(part, outputs)?;
                    let batcher = DynamicBatcher::new(session, limits, part.input.batch());
                    Arc::clone(vacant.insert(Arc::new(batcher)))
                }
            };
            SessionBackend::Shared(one)
        } else {
            SessionBackend::Own(self.open_session(part, outputs)?)
        };
        Ok(Session::new(backend, part.input.clone(), limits))
    }

    fn call_seconds(&self, part: &ModelFile) -> Histogram {
        self.metrics
            .models
            .call_seconds
            .with_label_values(&[self.name.as_str(), part.role])
    }

    /// The total call duration of the busiest shared session, in seconds; `None` if each worker has
    /// its own sessions.
    pub fn shared_seconds(&self) -> Option<f64> {
        let seconds = self
            .all_files()
            .map(|part| self.call_seconds(part).get_sample_sum());
        self.runtime
            .shares_sessions()
            .then(|| seconds.fold(0.0, f64::max))
    }

    fn call_limits(&self, part: &ModelFile, outputs: &[&TensorSpec]) -> InferenceBatchLimits {
        let images = [&part.input]
            .into_iter()
            .chain(outputs.iter().copied())
            .any(|spec| spec.row_dims().is_some_and(|dims| dims.len() > 1));
        InferenceBatchLimits::new(&self.runtime, images)
    }

    fn open_session(
        &self,
        part: &ModelFile,
        outputs: &[&TensorSpec],
    ) -> Result<OrtSession, StageError> {
        let labels = [self.name.as_str(), part.role];
        let records = self.metrics.models.call_records.with_label_values(&labels);
        let metrics = InferenceMetrics {
            seconds: self.call_seconds(part),
            records,
        };
        let session = LoadedGraph::open(&part.path, &self.runtime)
            .and_then(|graph| OrtSession::new(graph, &part.input, outputs, metrics));
        session.map_err(|reason| StageError::Model(format!("{}: {reason}", part.path.display())))
    }

    /// Estimates the memory that a path needs in each worker for records of `len` values, in bytes,
    /// in addition to input and output.
    pub fn scratch_bytes(&self, path: ModelPath, len: usize) -> u64 {
        if self.runtime.shares_sessions() {
            return 0;
        }
        let scratch = |part: &&ModelFile| {
            let limits = self.call_limits(part, &part.outputs_of(path));
            session::scratch_bytes(limits, len, part.input.batch())
        };
        self.files(path)
            .unwrap_or_default()
            .iter()
            .map(scratch)
            .max()
            .unwrap_or_default()
    }

    /// Estimates the memory of the sessions, in bytes: per worker, and once for all workers. ONNX
    /// Runtime holds the weights twice: as stored, and packed for its kernels.
    pub fn session_bytes(&self) -> (u64, u64) {
        let weights = 2 * self.file_bytes();
        if !self.runtime.shares_sessions() {
            return (weights, 0);
        }
        let device = self.runtime.uses_device();
        let calls = self.all_files().map(|part| {
            let limits = self.call_limits(part, &[&part.output]);
            session::shared_bytes(device, limits, &part.input)
        });
        (0, calls.fold(weights, u64::saturating_add))
    }

    fn all_files(&self) -> impl Iterator<Item = &ModelFile> {
        [ModelPath::Encode, ModelPath::Decode]
            .into_iter()
            .filter_map(|path| self.files(path))
            .flatten()
    }

    /// The folders of the model files.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.all_files()
            .filter_map(|part| part.path.parent().map(Path::to_path_buf))
            .collect()
    }

    /// The total size of the ONNX files in bytes, without external data.
    pub fn file_bytes(&self) -> u64 {
        self.all_files()
            .filter_map(|part| part.path.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// A summary of kind, input, latent and loss on one line.
    pub fn summary(&self) -> String {
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

    fn first(&self) -> &ModelFile {
        match &self.network {
            ModelNetwork::Autoencoder { encoder, .. } => encoder,
            ModelNetwork::SingleFile(file) => file,
        }
    }
}

/// The maximum number of values of a trial run: more than an RGB image of 100 megapixels.
const MAX_PROBE_VALUES: usize = 1 << 29;

/// Whether two shapes have the same layout of values: they are equal, or have different ranks and
/// the same number of values.
pub fn same_layout(one: &[usize], other: &[usize]) -> bool {
    one == other
        || (one.len() != other.len()
            && element_count(one).is_some()
            && element_count(one) == element_count(other))
}
