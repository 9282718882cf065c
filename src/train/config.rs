//! The training file as written, with one type for each table.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::optimizer::Optimizer;
use super::schedule::LearningRateSchedule;
use super::sequential::Activation;
use crate::config::{self, Diagnostics, KeySpans, Override};
use crate::corruption::CorruptionSpec;
use crate::data::DataSpec;
use crate::error::{ConfigError, RecordFaults};
use crate::model::Loss;
use crate::model::input::InputSpec;
use crate::registry::{self, parse_options};

/// A training file with typed tables, before options are resolved.
#[derive(Debug, Clone)]
pub struct TrainingFile {
    /// The options outside of tables.
    pub head: ModelHeader,
    /// `[input]`, as in a model card.
    pub input: InputSpec,
    /// `[network]`
    pub network: NetworkSpec,
    /// `[sparsity]`
    pub sparsity: Option<Sparsity>,
    /// `[[corruption]]`, in the order in which they are applied.
    pub corruption: Vec<CorruptionSpec>,
    /// `[training]`
    pub training: TrainingSpec,
    /// `[data]`
    pub data: DataSpec,
    /// The complete file as it was read, including overrides; it is stored in the model card.
    pub written: Value,
}

/// The options at the top of a training file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ModelHeader {
    /// The name of the model, which is also the name of its folder next to the training file.
    pub name: String,
    /// The kind of autoencoder, one word or several: vanilla, deep, convolutional, sparse,
    /// denoising.
    pub kind: ModelKinds,
    /// The purpose of the model in a sentence or two; it is stored in the model card.
    pub description: String,
    /// The number of values of a latent. If it is omitted, the network is convolutional, has no
    /// code and accepts images of any size.
    pub code_size: Option<usize>,
    /// The loss function of the training: mse, or bce for values in 0..1. Default: bce if the
    /// network ends in a sigmoid and its inputs lie in 0..1 (images without another `input.range`,
    /// features with `input.scaling = "min_max"`), otherwise mse.
    pub loss: Option<Loss>,
    /// The seed of the initial weights, the order of the records and the noise. Default: 0.
    pub seed: u64,
}

/// One kind or a list of kinds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a kind such as \"deep\", or a list such as [\"deep\", \"denoising\"]"
)]
pub enum ModelKinds {
    /// A single kind.
    One(ModelKind),
    /// A list of kinds.
    Several(Vec<ModelKind>),
}

impl Default for ModelKinds {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl ModelKinds {
    /// Returns the kinds.
    pub fn words(&self) -> &[ModelKind] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        }
    }

    /// Returns whether a kind is among them.
    pub fn has(&self, word: ModelKind) -> bool {
        self.words().contains(&word)
    }

    /// Returns the names of the kinds, separated by spaces.
    pub fn describe(&self) -> String {
        self.words()
            .iter()
            .map(|word| word.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Kinds of autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// A penalty is applied to the activations of the code.
    Sparse,
    /// The input is corrupted and the target is not.
    Denoising,
    /// One hidden layer: the code.
    Vanilla,
    /// Hidden layers before and after the code.
    Deep,
    /// Convolutional layers.
    Convolutional,
}

impl ModelKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Denoising => "denoising",
            Self::Vanilla => "vanilla",
            Self::Deep => "deep",
            Self::Convolutional => "convolutional",
        }
    }
}

/// `[network]`: number and size of layers. The decoder mirrors the encoder unless `decoder` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkSpec {
    /// The number of values of each dense layer before the code, such as `[512, 128]`. They follow
    /// the convolutions, if there are any.
    pub nodes: Vec<usize>,
    /// The number of channels of each convolution, such as `[32, 64, 128]`. In a network with a
    /// code, each convolution halves height and width; without a code, the first one keeps them.
    pub channels: Vec<usize>,
    /// The stride of each convolution, 1 or 2. Default: 2; 1 for the first convolution of a network
    /// without a code.
    pub strides: Option<Vec<usize>>,
    /// Height and width of the kernels, an odd number. Default: 3.
    pub kernel: usize,
    /// The number of residual blocks (two convolutions of 3x3, He and others, 2015) after each
    /// convolution. Default: 0.
    pub blocks: usize,
    /// For networks without a code: whether the values of the encoder are added to those of the
    /// decoder at the same size. Default: true.
    pub skips: Option<bool>,
    /// For networks without a code: whether images are first rearranged to half their height and
    /// width and four times the channels, which reduces the computation to about a quarter.
    /// Default: false.
    pub space_to_depth: bool,
    /// For networks without a code: whether the output of the network is added to its input, so
    /// that it learns the difference. Default: false.
    pub residual: bool,
    /// The activation between layers. Default: relu.
    pub activation: Activation,
    /// The activation of the code. Default: linear; sigmoid with a KL penalty, relu with an L1
    /// penalty.
    pub code_activation: Option<Activation>,
    /// The activation of the output. Default: sigmoid if the loss is bce, otherwise linear.
    pub output_activation: Option<Activation>,
    /// Whether the encoder first standardizes its input to mean 0 and deviation 1, by one mean and
    /// one deviation over all values of the training part. Default: true for images with a code.
    pub standardize: Option<bool>,
    /// The layers of a decoder that does not mirror the encoder.
    pub decoder: Option<DecoderSpec>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            channels: Vec::new(),
            strides: None,
            kernel: 3,
            blocks: 0,
            skips: None,
            space_to_depth: false,
            residual: false,
            activation: Activation::default(),
            code_activation: None,
            output_activation: None,
            standardize: None,
            decoder: None,
        }
    }
}

/// `[network.decoder]`: the layers from the code to the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DecoderSpec {
    /// The number of values of each dense layer after the code. Default: those of the encoder in
    /// reverse order.
    pub nodes: Option<Vec<usize>>,
    /// The number of channels of each convolution, as many as in the encoder, smallest image first.
    /// Default: those of the encoder in reverse order.
    pub channels: Option<Vec<usize>>,
}

/// `[sparsity]`: the penalty on the code's activations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sparsity {
    /// The kind of penalty. Default: l1.
    pub penalty: SparsityPenalty,
    /// The weight of the penalty relative to the loss. Default: 0.001.
    pub weight: f32,
    /// For `kl`: the target of the mean activation of each unit, above 0 and below 1. Default:
    /// 0.05.
    pub target: f32,
}

impl Default for Sparsity {
    fn default() -> Self {
        Self {
            penalty: SparsityPenalty::L1,
            weight: 1e-3,
            target: 0.05,
        }
    }
}

/// Penalties on the code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SparsityPenalty {
    /// The mean magnitude of activations.
    #[default]
    L1,
    /// The KL divergence of each unit's mean activation from the target.
    Kl,
}

/// `[training]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainingSpec {
    /// The number of epochs: how often training uses each record. A training that was stopped may
    /// be continued with another number. Default: 20.
    pub epochs: u32,
    /// The number of records per training step. Default: 128; 64, 32 or 16 if the training has
    /// fewer than 2000 steps otherwise.
    pub batch_size: Option<usize>,
    /// The optimizer. Default: adam.
    pub optimizer: Optimizer,
    /// The maximum of the learning rate. Default: 0.001.
    pub learning_rate: f64,
    /// The decay of the learning rate. Default: cosine.
    pub schedule: LearningRateSchedule,
    /// The number of steps in which the learning rate rises from 0. Default: a twentieth of all
    /// steps, at most 100.
    pub warmup: Option<u64>,
    /// The fraction of each weight, times the learning rate, that is subtracted from it in each
    /// step. Default: 0.
    pub weight_decay: f32,
    /// The maximum norm of the gradient over all weights; a larger gradient is scaled down to it.
    /// Default: no maximum.
    pub clip_grad_norm: Option<f32>,
    /// The decay of an exponential moving average of the weights, such as 0.999. Validation and the
    /// model then use the average. Default: no average.
    pub ema_decay: Option<f32>,
    /// The number of epochs without a better validation loss after which training ends, 1 or more.
    /// Default: no such limit.
    pub patience: Option<u32>,
    /// For images: the side of the squares, in pixels, that are cut from images at random positions
    /// for training. Default: entire images.
    pub crop: Option<usize>,
    /// For images of one size: the range of the height and width of randomly cut parts, as
    /// fractions of the image, such as [0.3, 1.0]. Training uses these parts, resized to the size
    /// of the input. Default: entire images.
    pub zoom: Option<[f32; 2]>,
    /// The number of squares or parts that are cut from each image in an epoch. Default: 1.
    pub crops: usize,
    /// For images: random flips. Default: none.
    pub flips: Flips,
}

impl Default for TrainingSpec {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: None,
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: LearningRateSchedule::default(),
            warmup: None,
            weight_decay: 0.0,
            clip_grad_norm: None,
            ema_decay: None,
            patience: None,
            crop: None,
            zoom: None,
            crops: 1,
            flips: Flips::default(),
        }
    }
}

/// Random flips of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flips {
    /// No flips.
    #[default]
    None,
    /// Flips of left and right.
    Horizontal,
    /// Flips of left and right and of top and bottom, and rotations of squares by 90 degrees.
    All,
}

impl TrainingSpec {
    /// Returns the errors in these options for `input`, with keys from the top of the file.
    pub fn faults(&self, input: &InputSpec) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| {
            faults.push(ConfigError::new(format!("training.{key}"), message))
        };
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            fault(
                "learning_rate",
                format!("must be above 0, such as 0.001; met {}", self.learning_rate),
            );
        }
        if self.epochs == 0 {
            fault("epochs", "must be above 0".to_owned());
        }
        if self.patience == Some(0) {
            fault(
                "patience",
                "must be 1 epoch or more; met 0; remove it to train for all epochs".to_owned(),
            );
        }
        if let Some(size) = self
            .batch_size
            .filter(|size| !(1..=MAX_BATCH).contains(size))
        {
            fault(
                "batch_size",
                format!("must lie between 1 and {MAX_BATCH}; met {size}"),
            );
        }
        if !(0.0..1.0).contains(&self.weight_decay) {
            fault(
                "weight_decay",
                format!("must be 0 or more and below 1; met {}", self.weight_decay),
            );
        }
        if self
            .clip_grad_norm
            .is_some_and(|norm| norm.is_nan() || norm <= 0.0)
        {
            fault("clip_grad_norm", "must be above 0, such as 1.0".to_owned());
        }
        if self
            .ema_decay
            .is_some_and(|decay| !(0.0..1.0).contains(&decay))
        {
            fault(
                "ema_decay",
                "must be 0 or more and below 1, such as 0.999".to_owned(),
            );
        }
        if self.crops == 0 || self.crops > MAX_CROPS {
            fault(
                "crops",
                format!("must lie between 1 and {MAX_CROPS}; met {}", self.crops),
            );
        }
        if self
            .crop
            .is_some_and(|crop| !(4..=MAX_CROP).contains(&crop))
        {
            fault("crop", format!("must lie between 4 and {MAX_CROP} pixels"));
        }
        if self.crop.is_some() && input.size.is_some() {
            fault(
                "crop",
                "applies to networks for images of any size; remove it, or remove input.size"
                    .to_owned(),
            );
        }
        if self.crop.is_none() && self.zoom.is_none() && self.crops > 1 {
            fault(
                "crops",
                "has no effect without training.crop or training.zoom".to_owned(),
            );
        }
        if self
            .zoom
            .is_some_and(|[low, high]| !(low > 0.0 && low <= high && high <= 1.0))
        {
            fault(
                "zoom",
                "must be an ascending range above 0 and up to 1, such as [0.3, 1.0]".to_owned(),
            );
        }
        if self.zoom.is_some() && input.size.is_none() {
            fault(
                "zoom",
                "applies to networks for images of one size; set input.size, or use training.crop"
                    .to_owned(),
            );
        }
        faults
    }
}

/// Maximum number of records per step. More records would not fit into memory for networks of
/// practical size.
const MAX_BATCH: usize = 1 << 16;
/// Maximum side of a crop, in pixels.
const MAX_CROP: usize = 1024;
/// Maximum number of crops of an image in an epoch.
const MAX_CROPS: usize = 1 << 16;

impl TrainingFile {
    /// Parses the text of a training file and applies the overrides. `path` is its name in faults.
    ///
    /// # Errors
    /// Every syntax error, unknown key, value of a wrong type and invalid override, and an invalid
    /// name of the model.
    pub fn parse(
        path: &Path,
        text: &str,
        overrides: &[Override],
    ) -> Result<(Self, KeySpans), Diagnostics> {
        let loaded = config::parse_training_file(path, text, std::iter::empty(), overrides)?;
        Self::checked(loaded)
    }

    /// Reads a training file, and applies the overrides of the environment, and then `overrides`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read.
    pub fn open(path: &Path, overrides: &[Override]) -> Result<(Self, KeySpans), Diagnostics> {
        Self::checked(config::read_training_file(path, overrides)?)
    }

    fn checked((written, key_spans): (Value, KeySpans)) -> Result<(Self, KeySpans), Diagnostics> {
        let file = Self::read(written).and_then(|file| match config::name_fault(&file.head.name) {
            Some(message) => Err(vec![ConfigError::new("name", message)]),
            None => Ok(file),
        });
        match file {
            Ok(file) => Ok((file, key_spans)),
            Err(faults) => Err(Diagnostics::new(&key_spans, faults)),
        }
    }

    /// Reads each table separately, so that an error in one table does not hide errors in another.
    ///
    /// # Errors
    /// Unknown keys and values of a wrong type, with keys from the top of the file.
    pub fn read(written: Value) -> Result<Self, Vec<ConfigError>> {
        let Value::Object(mut root) = written.clone() else {
            return Err(vec![ConfigError::new("", "expected a table")]);
        };
        let mut faults = Vec::new();
        let sparsity_table = root.remove("sparsity");
        let corruption = root.remove("corruption");
        let tables = (
            table(&mut root, "input", &mut faults),
            table(&mut root, "network", &mut faults),
            table(&mut root, "training", &mut faults),
            table(&mut root, "data", &mut faults),
            sparsity_table.map_or(Some(None), |options| {
                read("sparsity", options, &mut faults).map(Some)
            }),
        );
        let corruption = list("corruption", corruption, &mut faults);
        let (header, found) = registry::parse_options_lenient::<ModelHeader>(Value::Object(root));
        faults.extend(found.into_iter().map(known_tables));
        match (tables, header) {
            (
                (Some(input), Some(network), Some(training), Some(data), Some(sparsity)),
                Some(head),
            ) if faults.is_empty() => Ok(Self {
                head,
                input,
                network,
                sparsity,
                corruption,
                training,
                data,
                written,
            }),
            _ => Err(faults),
        }
    }
}

/// An unknown key at the top may be a misspelled table, so the names of the tables are added to the
/// message.
fn known_tables(mut fault: ConfigError) -> ConfigError {
    if fault.message.starts_with("unknown key") {
        fault
            .message
            .push_str("; tables: input, network, sparsity, corruption, training, data");
    }
    fault
}

fn table<T: serde::de::DeserializeOwned + JsonSchema>(
    root: &mut Map<String, Value>,
    key: &str,
    faults: &mut Vec<ConfigError>,
) -> Option<T> {
    let written = root
        .remove(key)
        .unwrap_or_else(|| Value::Object(Map::new()));
    read(key, written, faults)
}

fn read<T: serde::de::DeserializeOwned + JsonSchema>(
    key: &str,
    written: Value,
    faults: &mut Vec<ConfigError>,
) -> Option<T> {
    let read = parse_options::<T>(written);
    faults.record_all_within(key, read)
}

/// Reads `[[corruption]]`, or `[corruption]` if there is only one.
fn list(key: &str, written: Option<Value>, faults: &mut Vec<ConfigError>) -> Vec<CorruptionSpec> {
    let entries = match written {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(one) => vec![one],
    };
    let read = |(index, entry)| read(&format!("{key}[{index}]"), entry, faults);
    entries.into_iter().enumerate().filter_map(read).collect()
}
