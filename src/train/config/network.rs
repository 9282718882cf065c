//! The tables `model` and `network` of a training file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Loss;
use crate::train::layer_spec::Activation;
use crate::train::normalization::Normalization;

/// The options at the top of a training file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ModelHeader {
    /// The name of the model, which is also the name of its folder next to the training file.
    pub name: String,
    /// The kind of autoencoder, one word or several: vanilla, deep, convolutional, sparse,
    /// denoising, variational, contractive.
    pub kind: ModelKinds,
    /// The purpose of the model in a sentence or two; it is stored in the model card.
    pub description: String,
    /// The number of values of a latent. If it is omitted, the network is convolutional, has no
    /// code and accepts images of any size.
    pub code_size: Option<usize>,
    /// The loss function of the training: mse, bce for values in 0..1, l1 or charbonnier. Default:
    /// bce if the network ends in a sigmoid and its inputs lie in 0..1 (images without another
    /// `input.range`, features with `input.scaling = "min_max"`), otherwise mse.
    pub loss: Option<Loss>,
    /// The seed of the initial weights, the order of the records and the noise. Default: 0.
    pub seed: u64,
    /// For variational autoencoders: the weight of the KL divergence of a code from the standard
    /// normal distribution, in relation to the sum of the loss over the values of a record (Higgins
    /// and others, 2017). Default: 1, the evidence lower bound of Kingma and Welling (2013).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f32>,
    /// For variational autoencoders: the number of epochs in which `beta` rises linearly from 0
    /// (Bowman and others, 2016). Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_warmup: Option<u32>,
    /// For contractive autoencoders: the weight of the squared norm of the derivatives of the code,
    /// in relation to the sum of the loss over the values of a record, such as 0.1 (Rifai and
    /// others, 2011).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contraction: Option<f32>,
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
    /// The code is a normal distribution, from which the training draws.
    Variational,
    /// A penalty is applied to the derivatives of the code with respect to the input.
    Contractive,
}

impl ModelKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Denoising => "denoising",
            Self::Vanilla => "vanilla",
            Self::Deep => "deep",
            Self::Convolutional => "convolutional",
            Self::Variational => "variational",
            Self::Contractive => "contractive",
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
    /// decoder at the same size. Default: true, or `"add"`. With `"concat"`, the channels of the
    /// encoder are appended to those of the decoder, and a convolution reduces them, as in U-Net
    /// (Ronneberger, Fischer and Brox, 2015).
    pub skips: Option<SkipConnections>,
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
    /// The normalization after each dense layer and each convolution, before its activation; the
    /// code and the output have none. Default: no normalization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// For networks of dense layers: whether the weights of the decoder are those of the encoder,
    /// transposed. Default: false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
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
            normalization: None,
            tied: false,
            standardize: None,
            decoder: None,
        }
    }
}

/// Whether and how values of the encoder reach the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false, \"add\" or \"concat\"")]
pub enum SkipConnections {
    /// Whether they are added.
    Added(bool),
    /// How they are combined.
    Combined(SkipMode),
}

impl SkipConnections {
    /// Returns how values are combined, or `None` without skip connections.
    pub fn mode(self) -> Option<SkipMode> {
        match self {
            Self::Added(false) => None,
            Self::Added(true) => Some(SkipMode::Add),
            Self::Combined(mode) => Some(mode),
        }
    }
}

/// Combinations of the values of a skip connection with those of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipMode {
    /// The sum.
    Add,
    /// The channels of both, which a convolution reduces.
    Concat,
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
