//! Models and their runtime as a pipeline file writes them: `[models.NAME]` and `[runtime]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::image::pixel_format::{Channels, TensorLayout};
use crate::model::input::{InputSpec, ScalingKind};
use crate::model::loss::Loss;

/// A model as the pipeline declares it: a folder with a card, or bare ONNX files with what a card
/// would have said.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelSpec {
    /// A folder that holds `model.toml`, and `encoder.onnx` and `decoder.onnx`, or `model.onnx`.
    pub path: Option<PathBuf>,
    /// An ONNX file that turns inputs into codes.
    pub encoder: Option<PathBuf>,
    /// An ONNX file that turns the encoder's codes back into inputs.
    pub decoder: Option<PathBuf>,
    /// An ONNX file that is the whole network: a denoiser, or an autoencoder in one piece.
    pub model: Option<PathBuf>,
    /// The output to take, where the encoder or the whole network has several. Default: the first.
    pub output: Option<String>,
    /// The output to take, where the decoder has several. Default: the first.
    pub decoder_output: Option<String>,
    /// Height and width of images must be multiples of this; others are padded by repeating their
    /// edges. Default: 1.
    pub multiple: Option<NonZeroUsize>,
    /// The loss that the model was trained with. Default: mse.
    pub loss: Option<Loss>,
    /// Bare files, images: height and width. Default: what the file says.
    pub size: Option<[usize; 2]>,
    /// Bare files, images: colours of a pixel. Default: what the file says.
    pub channels: Option<Channels>,
    /// Bare files, images: order of the dimensions. Default: what the file says.
    pub layout: Option<TensorLayout>,
    /// Bare files, images: bytes 0..255 are mapped onto this range. Default: [0, 1], or [0, 255]
    /// for a uint8 input.
    pub range: Option<[f32; 2]>,
    /// Bare files: subtracted, per channel of an image or per feature. Default: nothing.
    pub mean: Option<Vec<f64>>,
    /// Bare files: divided by, per channel of an image or per feature. Default: nothing.
    pub std: Option<Vec<f64>>,
    /// Bare files, features: names of the columns, in the order of the input vector.
    pub columns: Option<Vec<String>>,
    /// Bare files, features: how they are scaled. Default: none.
    pub scaling: Option<ScalingKind>,
    /// Bare files, features with min_max scaling: the least value per feature, which becomes 0.
    pub min: Option<Vec<f64>>,
    /// Bare files, features with min_max scaling: the greatest value per feature, which becomes 1.
    pub max: Option<Vec<f64>>,
}

impl ModelSpec {
    /// What the pipeline says of a bare file's input.
    pub fn input_spec(&self) -> InputSpec {
        InputSpec {
            kind: None,
            size: self.size,
            channels: self.channels,
            layout: self.layout,
            range: self.range,
            mean: self.mean.clone(),
            std: self.std.clone(),
            columns: self.columns.clone(),
            scaling: self.scaling,
            min: self.min.clone(),
            max: self.max.clone(),
        }
    }
}

/// How ONNX Runtime is loaded and used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuntimeSpec {
    /// Who computes, in order of preference. One that is not available is an error, never skipped;
    /// what it cannot compute runs on the processor only where `cpu` is listed too.
    pub providers: Vec<ExecutionProvider>,
    /// Whether each worker has a session of its own, or all share one, which computes for several
    /// of them at a time. Default: shared where the first provider is not `cpu`; then there are two
    /// workers per core, since half of them wait.
    pub sessions: Option<SessionMode>,
    /// Records that go into one call at most. Default: as many as make 1.5 MB of values, or 25 MB
    /// on a device.
    pub max_batch_records: Option<NonZeroUsize>,
    /// Threads of one session. Workers run side by side already, so more than 1 rarely pays.
    pub threads: NonZeroUsize,
    /// How far the graph is rewritten before it runs.
    pub optimisation: GraphOptimization,
    /// The ONNX Runtime library: an absolute path to a file that belongs to the user or to root and
    /// that others cannot write, neither the file nor its folder. Default: `ORT_DYLIB_PATH`, then
    /// in the folder of the program, in the checkout that the program was built in, in the active
    /// Python environment, in the system's folders.
    pub library: Option<PathBuf>,
}

impl Default for RuntimeSpec {
    fn default() -> Self {
        Self {
            providers: vec![ExecutionProvider::Cpu],
            sessions: None,
            max_batch_records: None,
            threads: NonZeroUsize::MIN,
            optimisation: GraphOptimization::default(),
            library: None,
        }
    }
}

impl RuntimeSpec {
    /// Whether all workers share one session.
    pub fn shares_sessions(&self) -> bool {
        match self.sessions {
            Some(sessions) => sessions == SessionMode::Shared,
            None => self.uses_device(),
        }
    }

    /// Whether another device than the processor computes.
    pub fn uses_device(&self) -> bool {
        self.providers
            .first()
            .is_some_and(|&first| first != ExecutionProvider::Cpu)
    }
}

/// Whose a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionMode {
    /// One for each worker: what suits the processor.
    PerWorker,
    /// One for all workers: what suits a device, and a model too large to be held several times.
    Shared,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionProvider {
    /// The processor.
    Cpu,
    /// NVIDIA GPUs through CUDA.
    Cuda,
    /// NVIDIA GPUs through TensorRT.
    Tensorrt,
    /// Intel hardware through OpenVINO.
    Openvino,
    /// Apple hardware through Core ML.
    Coreml,
}

impl ExecutionProvider {
    /// The name as pipelines write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Openvino => "openvino",
            Self::Coreml => "coreml",
        }
    }
}

/// How far ONNX Runtime rewrites a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// Everything, memory layouts too.
    #[default]
    All,
    /// Fusions of many nodes, but no change of layout.
    Extended,
    /// Constant folding and removal of what does nothing.
    Basic,
    /// Nothing.
    None,
}
