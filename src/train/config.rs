//! A training file as written: the words that the field uses, table by table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::optimizer::Optimizer;
use super::schedule::LearningRateSchedule;
use super::sequential::Activation;
use crate::corruption::CorruptionSpec;
use crate::data::DataSpec;
use crate::error::ConfigError;
use crate::model::Loss;
use crate::model::input::InputSpec;
use crate::registry::{self, parse_options};

/// A training file, every table typed; nothing is resolved yet.
#[derive(Debug, Clone)]
pub struct TrainingFile {
    /// What stands outside tables.
    pub head: ModelHeader,
    /// `[input]`: as in a model's card.
    pub input: InputSpec,
    /// `[network]`
    pub network: NetworkSpec,
    /// `[sparsity]`
    pub sparsity: Option<Sparsity>,
    /// `[[corruption]]`, one after the other.
    pub corruption: Vec<CorruptionSpec>,
    /// `[training]`
    pub training: TrainingSpec,
    /// `[data]`
    pub data: DataSpec,
    /// All of it as it was read, overrides included; the card keeps it.
    pub written: Value,
}

/// What stands at the top of a training file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ModelHeader {
    /// The model's name: the name of its folder, beside the file.
    pub name: String,
    /// The sort of autoencoder, one word or several: vanilla, deep, convolutional, sparse,
    /// denoising.
    pub kind: ModelKinds,
    /// What it is for, in a sentence or two; the card keeps it.
    pub description: String,
    /// Values of a code. Left out: a convolutional network without a code, for images of any size.
    pub code_size: Option<usize>,
    /// What training makes small. Default: bce where the network ends in a sigmoid, else mse.
    pub loss: Option<Loss>,
    /// Another seed gives other first weights, another order and other noise. Default: 0.
    pub seed: u64,
}

/// One word or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a kind such as \"deep\", or a list such as [\"deep\", \"denoising\"]"
)]
pub enum ModelKinds {
    /// One.
    One(ModelKind),
    /// Several.
    Several(Vec<ModelKind>),
}

impl Default for ModelKinds {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl ModelKinds {
    /// The words.
    pub fn words(&self) -> &[ModelKind] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        }
    }

    /// Whether a word is among them.
    pub fn has(&self, word: ModelKind) -> bool {
        self.words().contains(&word)
    }

    /// The words as a phrase.
    pub fn describe(&self) -> String {
        self.words()
            .iter()
            .map(|word| word.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Sorts of autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The code is penalised for being active.
    Sparse,
    /// The input is corrupted, the target is not.
    Denoising,
    /// One hidden layer: the code.
    Vanilla,
    /// Hidden layers before and behind the code.
    Deep,
    /// Convolutions.
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

/// `[network]`: number and size of layers. The decoder mirrors the encoder unless `decoder` says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NetworkSpec {
    /// Dense layers before the code, their values each: `[512, 128]`. Behind convolutions they come
    /// last.
    pub nodes: Vec<usize>,
    /// Convolutions, their channels each: `[32, 64, 128]`. With a code each halves height and
    /// width; without one the first keeps them.
    pub channels: Vec<usize>,
    /// Stride of each convolution, 1 or 2. Default: 2; without a code 1 for the first.
    pub strides: Option<Vec<usize>>,
    /// Height and width of the convolutions' kernels, odd. Default: 3.
    pub kernel: usize,
    /// Residual blocks (two convolutions of 3x3, He and others, 2015) behind each convolution.
    /// Default: 0.
    pub blocks: usize,
    /// Without a code: whether the encoder's values are added to the decoder's at the same size.
    /// Default: true.
    pub skips: Option<bool>,
    /// Without a code: whether images are first folded to half their height and width and four
    /// times the channels, which makes the network four times cheaper. Default: false.
    pub space_to_depth: bool,
    /// Without a code: whether the network's output is added to its input, so that it learns the
    /// difference. Default: false.
    pub residual: bool,
    /// Between layers. Default: relu.
    pub activation: Activation,
    /// Of the code. Default: linear; sigmoid under a KL penalty, relu under an L1 penalty.
    pub code_activation: Option<Activation>,
    /// Of the output. Default: sigmoid where the loss is bce, else linear.
    pub output_activation: Option<Activation>,
    /// Whether the encoder first brings its input to mean 0 and deviation 1, by one mean and one
    /// deviation over all values of the training part. Default: true for images with a code.
    pub standardize: Option<bool>,
    /// A decoder that does not mirror the encoder.
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

/// `[network.decoder]`: from the code to the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DecoderSpec {
    /// Dense layers behind the code. Default: the encoder's, backwards.
    pub nodes: Option<Vec<usize>>,
    /// Channels, as many as the encoder has, the smallest image first. Default: the encoder's,
    /// backwards.
    pub channels: Option<Vec<usize>>,
}

/// `[sparsity]`: the penalty on the code's activations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sparsity {
    /// What is penalised. Default: l1.
    pub penalty: SparsityPenalty,
    /// Weight of the penalty beside the loss. Default: 0.001.
    pub weight: f32,
    /// For `kl`: the mean activation that units are driven to, above 0 and below 1. Default: 0.05.
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

/// Penalties on a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SparsityPenalty {
    /// The mean magnitude of activations.
    #[default]
    L1,
    /// The divergence of each unit's mean activation from a target.
    Kl,
}

/// `[training]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainingSpec {
    /// Times that training sees each record. Default: 20.
    pub epochs: u32,
    /// Records to a step. Default: 128.
    pub batch_size: usize,
    /// How gradients change weights. Default: adam.
    pub optimizer: Optimizer,
    /// Height of the learning rate. Default: 0.001.
    pub learning_rate: f64,
    /// How the learning rate falls. Default: cosine.
    pub schedule: LearningRateSchedule,
    /// Steps in which the learning rate rises from 0. Default: 0.
    pub warmup: u64,
    /// Share of each weight, times the learning rate, that is taken off at each step. Default: 0.
    pub weight_decay: f32,
    /// Greatest norm of the gradient over all weights; a longer one is shortened. Default: none.
    pub clip_grad_norm: Option<f32>,
    /// Weights that are kept are a running mean over steps, with this share of the mean before,
    /// such as 0.999. Default: the last weights.
    pub ema_decay: Option<f32>,
    /// End after so many epochs without a better validation loss. Default: never.
    pub patience: Option<u32>,
    /// Images: train on squares of this side, cut at random places. Default: whole images.
    pub crop: Option<usize>,
    /// Images of one size: train on parts of them, whose height and width are each a share of the
    /// whole drawn from this range, such as [0.3, 1.0], and which are then resized. Default: whole
    /// images.
    pub zoom: Option<[f32; 2]>,
    /// Squares, or parts, that are cut from each image in an epoch. Default: 1.
    pub crops: usize,
    /// Images: turn them over at random. Default: none.
    pub flips: Flips,
}

impl Default for TrainingSpec {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 128,
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: LearningRateSchedule::default(),
            warmup: 0,
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

/// Ways to turn an image over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flips {
    /// None.
    #[default]
    None,
    /// Left and right.
    Horizontal,
    /// Left and right, up and down, and quarter turns of squares.
    All,
}

impl TrainingSpec {
    /// What cannot be, for such an input; keys from the top of the file.
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
        if !(1..=MAX_BATCH).contains(&self.batch_size) {
            fault(
                "batch_size",
                format!(
                    "must lie between 1 and {MAX_BATCH}; met {}",
                    self.batch_size
                ),
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
                "is for networks that take images of any size; leave it out, or leave out input.size".to_owned(),
            );
        }
        if self.crop.is_none() && self.zoom.is_none() && self.crops > 1 {
            fault(
                "crops",
                "has no use without training.crop or training.zoom".to_owned(),
            );
        }
        if self
            .zoom
            .is_some_and(|[low, high]| !(low > 0.0 && low <= high && high <= 1.0))
        {
            fault(
                "zoom",
                "must ascend, above 0 and up to 1, such as [0.3, 1.0]".to_owned(),
            );
        }
        if self.zoom.is_some() && input.size.is_none() {
            fault(
                "zoom",
                "is for networks that take images of one size; give input.size, or use training.crop".to_owned(),
            );
        }
        faults
    }
}

/// Records to a step: more would not fit into memory for any network worth training.
const MAX_BATCH: usize = 1 << 16;
/// Side of a cut, in pixels.
const MAX_CROP: usize = 1024;
/// Cuts of an image in an epoch.
const MAX_CROPS: usize = 1 << 16;

impl TrainingFile {
    /// Reads every table on its own, so that a fault in one hides none of another.
    ///
    /// # Errors
    /// Unknown keys and values of a wrong type, with keys from the top of the file.
    pub fn read(written: Value) -> Result<Self, Vec<ConfigError>> {
        let Value::Object(mut root) = written.clone() else {
            return Err(vec![ConfigError::new("", "expected a table")]);
        };
        let mut faults = Vec::new();
        let sparsity = root.remove("sparsity");
        let corruption = root.remove("corruption");
        let input = table(&mut root, "input", &mut faults);
        let network = table(&mut root, "network", &mut faults);
        let training = table(&mut root, "training", &mut faults);
        let data = table(&mut root, "data", &mut faults);
        let sparsity = sparsity.map(|sparsity| read("sparsity", sparsity, &mut faults));
        let corruption = list("corruption", corruption, &mut faults);
        let (head, found) = registry::parse_options_lenient::<ModelHeader>(Value::Object(root));
        faults.extend(found.into_iter().map(known_tables));
        let whole = (
            input,
            network,
            training,
            data,
            head,
            sparsity.map_or(Some(None), |read| read.map(Some)),
        );
        match whole {
            (
                Some(input),
                Some(network),
                Some(training),
                Some(data),
                Some(head),
                Some(sparsity),
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

/// An unknown key at the top may be a table that is misspelt.
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
    read.map_err(|found| faults.extend(found.into_iter().map(|fault| fault.within(key))))
        .ok()
}

/// `[[corruption]]`, or `[corruption]` where there is one.
fn list(key: &str, written: Option<Value>, faults: &mut Vec<ConfigError>) -> Vec<CorruptionSpec> {
    let entries = match written {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(one) => vec![one],
    };
    let read = |(place, entry)| read(&format!("{key}[{place}]"), entry, faults);
    entries.into_iter().enumerate().filter_map(read).collect()
}
