//! Models: a folder with a model card, or bare ONNX files, which are loaded, checked and run in
//! sessions.

pub(crate) mod attribution;
mod batch_limits;
pub mod card;
pub mod config;
pub mod describe;
pub(crate) mod dynamic_batcher;
mod ensemble;
pub mod feature_errors;
pub(crate) mod feature_groups;
pub mod files;
pub(crate) mod graph;
pub mod inference_error;
pub mod input;
mod library_search;
mod load;
pub mod loss;
pub(crate) mod nondeterminism;
mod onnx_graph;
pub(crate) mod onnx_metadata;
pub mod ort_backend;
pub mod ort_library;
pub mod path_error;
pub(crate) mod session;
pub(crate) mod sessions;
pub(crate) mod summary;
pub(crate) mod tensor_selection;
pub(crate) mod tensor_spec;
#[cfg(test)]
pub(crate) mod testing;
mod trial_run;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::feature_groups::FeatureGroups;
use crate::model::files::{ModelFile, ModelNetwork, ModelPath};
use crate::model::graph::{GraphFile, SharedGraphSessions};
use crate::model::load::remote::RemoteCopies;
use crate::model::sessions::SharedSessions;

use input::spec::{InputKind, InputSpec};
use tensor_spec::element_count;

pub(crate) use crate::model::describe::display::OutputsDisplay;
pub use card::ModelCard;
pub use config::{ModelSpec, RuntimeSpec};
pub use describe::describe;
pub use inference_error::InferenceError;
pub use input::ModelInput;
pub(crate) use input::scaling::FeatureScale;
pub use input::scaling::Scaling;
pub(crate) use input::{FeatureInput, ImageInput};
pub use loss::Loss;
pub use path_error::ModelPathError;

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
    /// The graph of the first file; `None` only if it could not be loaded.
    graph: Option<GraphFile>,
    /// Why the model is not deterministic, if the pipeline allows it; `None` otherwise.
    nondeterminism: Option<String>,
    paths: BTreeSet<PathBuf>,
    /// The copies of files in a bucket, which are removed with the model.
    #[expect(dead_code, reason = "holds the folder until the model is dropped")]
    copies: Option<RemoteCopies>,
    runtime: RuntimeSpec,
    shared: Mutex<SharedSessions>,
    shared_graphs: Mutex<SharedGraphSessions>,
    metrics: Arc<Metrics>,
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
    pub(crate) fn input_spec(&self) -> InputSpec {
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

    /// The inputs of each feature of a record with this number of inputs.
    pub(crate) fn feature_groups(&self, inputs: usize) -> FeatureGroups {
        match self.feature_input() {
            Some(features) => features.groups(inputs),
            None => FeatureGroups::single(inputs),
        }
    }

    /// Why no output of a network in one file is plainly its code, if there are several.
    pub(crate) fn code_ambiguity(&self) -> Option<&str> {
        self.first().and_then(|file| file.ambiguity.as_deref())
    }

    /// The output that is the code, if no option names it and it is not the first output of the
    /// file, which earlier versions selected. The digest of the model does not include it.
    pub(crate) fn inferred_code_output(&self) -> Option<&str> {
        let file = self.first()?;
        Some(file.output.name.as_str()).filter(|name| *name != file.digest_output)
    }

    /// The number of values of a latent, if the model has latents of a fixed size.
    pub fn code_size(&self) -> Option<usize> {
        self.code_size
    }

    /// The height and width of images must be multiples of this number.
    pub(crate) fn size_multiple(&self) -> usize {
        self.size_multiple
    }

    /// The shape of one record, without the batch dimension. `None` for images of any size.
    pub fn input_shape(&self) -> Option<Vec<usize>> {
        match &self.input {
            ModelInput::Image(ImageInput { format, size, .. }) => {
                size.map(|(height, width)| format.shape(height, width))
            }
            ModelInput::Features(features) if !features.columns.is_empty() => {
                let groups = features.groups(features.columns.len());
                Some(vec![groups.inputs()])
            }
            ModelInput::Features(_) | ModelInput::Tensor => self.first()?.input.row_shape(),
        }
    }

    /// The output shape of a path for one record of the shape `shape`. If the files do not declare
    /// it, a record of zeros is run.
    ///
    /// # Errors
    /// When the model does not have this path, when a record of this shape does not fit, or when
    /// the model fails on zeros.
    pub fn output_shape(
        &self,
        path: ModelPath,
        shape: &[usize],
    ) -> Result<Vec<usize>, ModelPathError> {
        let parts = self
            .files(path)
            .ok_or_else(|| ModelPathError::NoDecoder(self.name.clone()))?;
        let mut declared = Some(shape.to_vec());
        for part in &parts {
            if let Some(input_shape) = &declared
                && !part.input.takes(input_shape)
            {
                return Err(ModelPathError::Shape {
                    file: part.path.clone(),
                    message: session::shape_mismatch(input_shape, &part.input),
                });
            }
            declared = match part.outputs_of(path).as_slice() {
                [output] => output.row_shape(),
                _ => None,
            };
        }
        match declared {
            Some(declared) => Ok(declared),
            None => self.probe(path, shape).map_err(ModelPathError::TrialRun),
        }
    }

    fn first(&self) -> Option<&ModelFile> {
        match &self.network {
            ModelNetwork::Autoencoder { encoder, .. } => Some(encoder),
            ModelNetwork::SingleFile(file) => Some(file),
            ModelNetwork::Graph(_) => None,
        }
    }
}

/// Whether two shapes have the same layout of values: they are equal, or have different ranks and
/// the same number of values.
pub(crate) fn same_layout(one: &[usize], other: &[usize]) -> bool {
    one == other
        || (one.len() != other.len()
            && element_count(one).is_some()
            && element_count(one) == element_count(other))
}
