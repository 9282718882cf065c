//! The options of models and of ONNX Runtime in a pipeline file: `[models.NAME]` and `[runtime]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::config_error::ConfigError;
use crate::image::pixel_format::{Channels, TensorLayout};
use crate::image::preprocess::preset::{PixelPreset, PreprocessingOptions};
use crate::image::preprocess::steps::PreprocessStep;
use crate::model::input::scaling::ScalingKind;
use crate::model::input::spec::{InputKind, InputSpec};
use crate::model::loss::Loss;

/// A model as a pipeline declares it: a folder with a model card, or bare ONNX files with the
/// options that a card would contain.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelSpec {
    /// A folder with `model.toml`, and with `encoder.onnx` and `decoder.onnx`, or `model.onnx`. This
    /// and the other files may be in a bucket, as `s3://bucket/models/name`.
    pub path: Option<PathBuf>,
    /// An ONNX file that maps inputs to latents.
    pub encoder: Option<PathBuf>,
    /// An ONNX file that maps the latents of the encoder back to inputs.
    pub decoder: Option<PathBuf>,
    /// An ONNX file with the complete network: a denoiser, or an autoencoder in one file; or any
    /// graph, for the stage `onnx`.
    pub model: Option<PathBuf>,
    /// The name of the output of the encoder or of the complete network. Default: the only output,
    /// or the one that is plainly the code.
    pub output: Option<String>,
    /// For a file that returns the code and the reconstruction: the name of the output with the
    /// reconstruction. Default: the only other output with the shape of the input.
    pub reconstruction: Option<String>,
    /// The name of the output of the decoder. Default: the only output, or the only one with the
    /// shape of the input.
    pub decoder_output: Option<String>,
    /// Height and width of images must be multiples of this number. Other images are padded by
    /// repeating their edges. Default: 1.
    pub multiple: Option<NonZeroUsize>,
    /// Whether to use a model that returns different values for the same record: it draws random
    /// numbers, or mixes the records of a batch. The output is then not the same in every run.
    /// Default: false.
    pub allow_nondeterministic: bool,
    /// The loss that the model was trained with. Default: `mse`.
    pub loss: Option<Loss>,
    /// Bare files, images: height and width. Default: inferred from the file.
    pub size: Option<[usize; 2]>,
    /// Bare files, images: the color channels of a pixel. Default: inferred from the file.
    pub channels: Option<Channels>,
    /// Bare files, images: the order of the dimensions. Default: inferred from the file.
    pub layout: Option<TensorLayout>,
    /// Bare files, images: the range to which the byte values 0..255 are mapped. Default: `[0, 1]`,
    /// or `[0, 255]` for a uint8 input.
    pub range: Option<[f32; 2]>,
    /// Bare files, images: the steps that resize, crop and pad, in their order, as in the stage
    /// `pixels`. Default: none, or those of `preset` or `preprocessor`.
    pub steps: Option<Vec<PreprocessStep>>,
    /// Bare files, images: the preprocessing of a well-known model. Other options replace parts of
    /// it.
    pub preset: Option<PixelPreset>,
    /// Bare files, images: the file that comes with the model: `preprocessor_config.json` of
    /// transformers, or `config.json` of timm. Other options replace parts of it.
    #[schemars(extend("format" = "path"))]
    pub preprocessor: Option<PathBuf>,
    /// Bare files: the values that are subtracted, per channel of an image or per feature. Default:
    /// none.
    pub mean: Option<Vec<f64>>,
    /// Bare files: the divisors, per channel of an image or per feature. Default: none.
    pub std: Option<Vec<f64>>,
    /// Bare files, features: the column names, in the order of the input vector.
    pub columns: Option<Vec<String>>,
    /// Bare files, features: the kind of scaling. Default: `none`.
    pub scaling: Option<ScalingKind>,
    /// Bare files, features with `min_max` scaling: the minimum per feature, which becomes 0.
    pub min: Option<Vec<f64>>,
    /// Bare files, features with `min_max` scaling: the maximum per feature, which becomes 1.
    pub max: Option<Vec<f64>>,
}

impl ModelSpec {
    /// The input of a bare file as the pipeline declares it.
    ///
    /// # Errors
    /// If the file that describes the preprocessing cannot be used.
    pub(crate) fn input_spec(&self) -> Result<InputSpec, ConfigError> {
        let named = PreprocessingOptions::named(self.preset, self.preprocessor.as_ref())?;
        let Some(PreprocessingOptions { steps, format }) = named else {
            return Ok(self.written_input());
        };
        let wide = |values: &[f32]| {
            let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
            (!values.is_empty()).then_some(values)
        };
        let written = self.written_input();
        // The ONNX file decides the layout, and whether images are gray.
        let bgr = (format.channels == Channels::Bgr).then_some(Channels::Bgr);
        Ok(InputSpec {
            kind: Some(InputKind::Image),
            channels: written.channels.or(bgr),
            range: written.range.or(Some(format.range)),
            mean: written.mean.or_else(|| wide(&format.mean)),
            std: written.std.or_else(|| wide(&format.std)),
            steps: written
                .steps
                .or_else(|| Some(steps).filter(|steps| !steps.is_empty())),
            ..written
        })
    }

    /// The keys that a model card holds, too.
    pub(crate) fn card_keys(&self) -> Vec<&'static str> {
        let others = [
            ("preset", self.preset.is_some()),
            ("preprocessor", self.preprocessor.is_some()),
            ("loss", self.loss.is_some()),
        ];
        let others = others
            .into_iter()
            .filter_map(|(key, set)| set.then_some(key));
        let written = self.written_input().set_keys();
        written.into_iter().chain(others).collect()
    }

    fn written_input(&self) -> InputSpec {
        InputSpec {
            kind: None,
            size: self.size,
            channels: self.channels,
            layout: self.layout,
            range: self.range,
            decode: None,
            steps: self.steps.clone(),
            mean: self.mean.clone(),
            std: self.std.clone(),
            columns: self.columns.clone(),
            scaling: self.scaling,
            min: self.min.clone(),
            max: self.max.clone(),
            rules: vec![],
        }
    }
}

/// The options of ONNX Runtime.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuntimeSpec {
    /// The execution providers in order of preference. A provider that is not available is an error
    /// and is never skipped. Operators that a provider does not support run on the CPU only if
    /// `cpu` is listed, too. Default: `["cpu"]`.
    pub providers: Vec<ExecutionProvider>,
    /// Whether each worker has its own session, or all workers share one, which processes records
    /// of several workers in one call. Default: `shared` if the first provider is not `cpu`, else
    /// `per-worker`. With shared sessions there are two workers per core, since half of them wait.
    pub sessions: Option<SessionMode>,
    /// The maximum number of records of one call. Default: as many as fit into 1.5 MB of values, or
    /// into 25 MB on a device.
    pub max_batch_records: Option<NonZeroUsize>,
    /// The number of threads of one session. Workers already run in parallel, so more than 1 is
    /// rarely faster. Default: 1.
    pub threads: NonZeroUsize,
    /// The level of graph optimization. Default: `all`.
    pub optimization: GraphOptimization,
    /// The ONNX Runtime library: an absolute path to a file that is owned by the user or by root,
    /// and that other users cannot write, neither the file nor its folder. Default:
    /// `ORT_DYLIB_PATH`, then a search in the folder of the program, the checkout in which the
    /// program was built, the active Python environment, and the system folders.
    pub library: Option<PathBuf>,
}

impl Default for RuntimeSpec {
    fn default() -> Self {
        Self {
            providers: vec![ExecutionProvider::Cpu],
            sessions: None,
            max_batch_records: None,
            threads: NonZeroUsize::MIN,
            optimization: GraphOptimization::default(),
            library: None,
        }
    }
}

impl RuntimeSpec {
    /// Whether all workers share one session.
    pub(crate) fn shares_sessions(&self) -> bool {
        match self.sessions {
            Some(sessions) => sessions == SessionMode::Shared,
            None => self.uses_device(),
        }
    }

    /// Whether the first provider uses a device other than the CPU.
    pub(crate) fn uses_device(&self) -> bool {
        self.providers
            .first()
            .is_some_and(|&first| first != ExecutionProvider::Cpu)
    }
}

/// How workers use sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionMode {
    /// One session per worker, which is suited to the CPU.
    PerWorker,
    /// One session for all workers, which is suited to a device and to a model that is too large to
    /// be in memory several times.
    Shared,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionProvider {
    /// The CPU.
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
    /// The name in pipelines.
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

/// The level of graph optimization in ONNX Runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// All optimizations, including changes of memory layout.
    #[default]
    All,
    /// Complex node fusions, without changes of memory layout.
    Extended,
    /// Constant folding and removal of redundant nodes.
    Basic,
    /// No optimizations.
    None,
}
