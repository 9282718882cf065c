//! Models: a folder with its card, or bare ONNX files; opened, checked, and run by sessions.

pub mod card;
pub mod describe;
pub mod feature_errors;
pub mod input;
mod library_search;
mod batch_limits;
pub mod loss;
pub mod ort_backend;
mod load;
pub mod tensor_spec;
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
pub use describe::describe;
pub use input::{FeatureInput, ImageInput, ModelInput, Scaling};
pub use loss::Loss;
use prometheus::Histogram;

use crate::error::{ConfigError, StageError};
use crate::metrics::Metrics;
use batch_limits::InferenceBatchLimits;
use dynamic_batcher::DynamicBatcher;
use input::{InputKind, InputSpec};
use ort_backend::{InferenceMetrics, OrtSession};
use session::{Session, SessionBackend, SessionChain};
use tensor_spec::{TensorSpec, values};

/// A model that was opened and understood. Sessions are made from it: one per worker, or one for
/// all.
pub struct Model {
    name: String,
    kind: String,
    digest: String,
    loss: Loss,
    card: Option<ModelCard>,
    input: ModelInput,
    code_size: Option<usize>,
    multiple: usize,
    network: ModelNetwork,
    runtime: RuntimeSpec,
    /// Sessions that all workers share, by the role of their file.
    shared: Mutex<BTreeMap<&'static str, Arc<DynamicBatcher<OrtSession>>>>,
    metrics: Arc<Metrics>,
}

/// The files of a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per model")]
enum ModelNetwork {
    /// Codes can be had, and perhaps turned back.
    Autoencoder {
        encoder: ModelFile,
        decoder: Option<ModelFile>,
    },
    /// One file from input to output.
    Whole(ModelFile),
}

/// One ONNX file of a model.
#[derive(Debug)]
pub struct ModelFile {
    /// `encoder`, `decoder` or `model`: the key in a pipeline, and a label of metrics.
    pub role: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What it is fed.
    pub input: TensorSpec,
    /// What is taken from it.
    pub output: TensorSpec,
    /// Its length and time when it was opened: another file is another model.
    stamp: FileStamp,
}

/// Length and modification time of a file; `None` where the system does not tell.
type FileStamp = Option<(u64, std::time::SystemTime)>;

fn stamp(path: &Path) -> FileStamp {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// A way through a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPath {
    /// From input to code; a network in one piece gives what it gives.
    Encode,
    /// From code to reconstruction.
    Decode,
    /// From input to reconstruction, or to whatever a network in one piece gives.
    Whole,
}

impl Model {
    /// Reads the card and the ONNX files, and checks them against each other. Keys of faults are
    /// relative to the model's table. [`ort_library::init`] must have found ONNX Runtime before.
    ///
    /// # Errors
    /// Every fault of the card; a file that cannot be read or is not what its digest says; shapes
    /// that don't match.
    pub fn open(
        name: &str,
        spec: &ModelSpec,
        runtime: &RuntimeSpec,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<ConfigError>> {
        load::open(name, spec, runtime, metrics)
    }

    /// The name that the pipeline gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who computes it, in order of preference, as in `cuda,cpu`.
    pub fn providers(&self) -> String {
        let names: Vec<&str> = self
            .runtime
            .providers
            .iter()
            .map(|provider| provider.as_str())
            .collect();
        names.join(",")
    }

    /// The sort of network, by its card; `onnx` for bare files.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// SHA-256 over all that determines its results: the ONNX files, their external data, the
    /// preprocessing.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The measure of its reconstruction error.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Its card; bare files have none.
    pub fn card(&self) -> Option<&ModelCard> {
        self.card.as_ref()
    }

    /// What it takes.
    pub fn input(&self) -> &ModelInput {
        &self.input
    }

    /// What a card says of such an input: what its own says, and what the files show beside.
    pub fn input_spec(&self) -> InputSpec {
        let said = self
            .card
            .as_ref()
            .map(|card| card.input.clone())
            .unwrap_or_default();
        match &self.input {
            ModelInput::Image(ImageInput { format, size }) => InputSpec {
                kind: Some(InputKind::Image),
                size: size.map(|(height, width)| [height, width]),
                channels: Some(format.channels),
                layout: Some(format.layout),
                ..said
            },
            ModelInput::Features(_) => InputSpec {
                kind: Some(InputKind::Features),
                ..said
            },
            ModelInput::Tensor => said,
        }
    }

    /// The images that it takes, if images.
    pub fn image_input(&self) -> Option<ImageInput> {
        match &self.input {
            ModelInput::Image(image) => Some(image.clone()),
            _ => None,
        }
    }

    /// The features that it takes, if features.
    pub fn feature_input(&self) -> Option<&FeatureInput> {
        match &self.input {
            ModelInput::Features(features) => Some(features),
            _ => None,
        }
    }

    /// Values of a code, where the model has codes and their size is fixed.
    pub fn code_size(&self) -> Option<usize> {
        self.code_size
    }

    /// Height and width of its images must be multiples of this.
    pub fn multiple(&self) -> usize {
        self.multiple
    }

    /// The shape of one record, without the batch dimension; `None` for images of any size.
    pub fn input_shape(&self) -> Option<Vec<usize>> {
        match &self.input {
            ModelInput::Image(ImageInput { format, size }) => {
                size.map(|(height, width)| format.shape(height, width))
            }
            ModelInput::Features(features) if !features.columns.is_empty() => {
                Some(vec![features.columns.len()])
            }
            ModelInput::Features(_) | ModelInput::Tensor => self.first().input.row_shape(),
        }
    }

    /// The files that a pass runs through, in order; `None` where the model has no such way.
    pub fn files(&self, pass: ModelPath) -> Option<Vec<&ModelFile>> {
        match (&self.network, pass) {
            (ModelNetwork::Whole(_), ModelPath::Decode) => None,
            (ModelNetwork::Whole(whole), _) => Some(vec![whole]),
            (ModelNetwork::Autoencoder { encoder, .. }, ModelPath::Encode) => Some(vec![encoder]),
            (ModelNetwork::Autoencoder { decoder, .. }, ModelPath::Decode) => {
                decoder.as_ref().map(|decoder| vec![decoder])
            }
            (ModelNetwork::Autoencoder { encoder, decoder }, ModelPath::Whole) => {
                decoder.as_ref().map(|decoder| vec![encoder, decoder])
            }
        }
    }

    /// The shape that one record of `shape` leaves a pass with. Where the files don't tell, a
    /// record of zeros is run.
    ///
    /// # Errors
    /// When the model has no such pass, when a record of this shape does not fit, or when the model
    /// fails on zeros.
    pub fn output_shape(&self, pass: ModelPath, shape: &[usize]) -> Result<Vec<usize>, String> {
        let parts = self
            .files(pass)
            .ok_or_else(|| format!("the model `{}` has no decoder", self.name))?;
        let mut told = Some(shape.to_vec());
        for part in &parts {
            if let Some(shape) = &told
                && !part.input.takes(shape)
            {
                return Err(format!(
                    "{}: {}",
                    part.path.display(),
                    session::shape_mismatch(shape, &part.input)
                ));
            }
            told = part.output.row_shape();
        }
        match told {
            Some(told) => Ok(told),
            None => self.probe(pass, shape),
        }
    }

    fn probe(&self, pass: ModelPath, shape: &[usize]) -> Result<Vec<usize>, String> {
        let len = values(shape).filter(|&len| len <= MAX_PROBE_VALUES);
        let len = len.ok_or_else(|| format!("the shape {shape:?} is too large for a trial run"))?;
        let mut chain = self.chain(pass).map_err(|error| error.to_string())?;
        chain.run(&vec![0.0; len], shape, &mut Vec::new())
    }

    /// Sessions for a pass, to be run on one thread.
    ///
    /// # Errors
    /// When the model has no such pass, or a file cannot be opened again.
    pub fn chain(&self, pass: ModelPath) -> Result<SessionChain, StageError> {
        let parts = self.files(pass);
        let parts = parts.ok_or_else(|| {
            StageError::Model(format!("the model `{}` has no decoder", self.name))
        })?;
        let sessions = parts
            .into_iter()
            .map(|part| self.session(part))
            .collect::<Result<_, _>>()?;
        Ok(SessionChain::new(sessions))
    }

    fn session(&self, part: &ModelFile) -> Result<Session, StageError> {
        if stamp(&part.path) != part.stamp {
            let path = part.path.display();
            return Err(StageError::Model(format!(
                "{path}: was changed while it was in use; run again to take it as it is"
            )));
        }
        let limits = self.call_limits(part);
        let runner = if self.runtime.shares_sessions() {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let one = match shared.entry(part.role) {
                Entry::Occupied(opened) => Arc::clone(opened.get()),
                Entry::Vacant(place) => {
                    let shared =
                        DynamicBatcher::new(self.engine(part)?, limits, part.input.batch());
                    Arc::clone(place.insert(Arc::new(shared)))
                }
            };
            SessionBackend::Shared(one)
        } else {
            SessionBackend::Own(self.engine(part)?)
        };
        Ok(Session::new(runner, part.input.clone(), limits))
    }

    fn call_seconds(&self, part: &ModelFile) -> Histogram {
        self.metrics
            .models
            .call_seconds
            .with_label_values(&[self.name.as_str(), part.role])
    }

    /// Seconds that the busiest of the sessions which all workers share was at work; `None` where
    /// each has its own.
    pub fn shared_seconds(&self) -> Option<f64> {
        let seconds = self
            .all_files()
            .map(|part| self.call_seconds(part).get_sample_sum());
        self.runtime
            .shares_sessions()
            .then(|| seconds.fold(0.0, f64::max))
    }

    fn call_limits(&self, part: &ModelFile) -> InferenceBatchLimits {
        let images = [&part.input, &part.output]
            .iter()
            .any(|port| port.row_dims().is_some_and(|dims| dims.len() > 1));
        InferenceBatchLimits::of(&self.runtime, images)
    }

    fn engine(&self, part: &ModelFile) -> Result<OrtSession, StageError> {
        let labels = [self.name.as_str(), part.role];
        let records = self.metrics.models.call_records.with_label_values(&labels);
        let watch = InferenceMetrics {
            seconds: self.call_seconds(part),
            records,
        };
        let engine = OrtSession::open(&part.path, &part.input, &part.output, &self.runtime, watch);
        engine.map_err(|reason| StageError::Model(format!("{}: {reason}", part.path.display())))
    }

    /// Bytes that a pass takes in each worker, for records of `len` values, beside input and
    /// output; an estimate.
    pub fn scratch_bytes(&self, pass: ModelPath, len: usize) -> u64 {
        if self.runtime.shares_sessions() {
            return 0;
        }
        let scratch = |part: &&ModelFile| {
            session::scratch_bytes(self.call_limits(part), len, part.input.batch())
        };
        self.files(pass)
            .unwrap_or_default()
            .iter()
            .map(scratch)
            .max()
            .unwrap_or_default()
    }

    /// Bytes of its sessions: in each worker, and once for all of them. ONNX Runtime holds weights
    /// as stored, and packed for its kernels beside.
    pub fn session_bytes(&self) -> (u64, u64) {
        let weights = 2 * self.file_bytes();
        if !self.runtime.shares_sessions() {
            return (weights, 0);
        }
        let device = self.runtime.uses_device();
        let calls = self
            .all_files()
            .map(|part| session::shared_bytes(device, self.call_limits(part), &part.input));
        (0, calls.fold(weights, u64::saturating_add))
    }

    fn all_files(&self) -> impl Iterator<Item = &ModelFile> {
        [ModelPath::Encode, ModelPath::Decode]
            .into_iter()
            .filter_map(|pass| self.files(pass))
            .flatten()
    }

    /// The folders that its files lie in.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        self.all_files()
            .filter_map(|part| part.path.parent().map(Path::to_path_buf))
            .collect()
    }

    /// Bytes of its ONNX files, without external data.
    pub fn file_bytes(&self) -> u64 {
        self.all_files()
            .filter_map(|part| part.path.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// One line for people: its kind, what it takes and what it gives.
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
        format!("{} {input}{code}, {} loss", self.kind, self.loss.as_str())
    }

    fn first(&self) -> &ModelFile {
        match &self.network {
            ModelNetwork::Autoencoder { encoder, .. } => encoder,
            ModelNetwork::Whole(whole) => whole,
        }
    }
}

/// A trial run is for what a pipeline could run: 100 megapixels in colour, and a little more.
const MAX_PROBE_VALUES: usize = 1 << 29;

/// Whether two shapes lay the same values out alike: equal, or one of them flat.
pub fn same_layout(one: &[usize], other: &[usize]) -> bool {
    one == other
        || (one.len() != other.len() && values(one).is_some() && values(one) == values(other))
}
