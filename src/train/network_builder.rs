//! The construction of a network from a training file, with all errors of the file reported
//! together.

use super::config::{ModelKind, ModelKinds, NetworkSpec, SparsityPenalty, TrainingFile};
use super::input::{DeclaredRange, declared_range};
use super::sequential::{Activation, ConvolutionSpec, LayerSpec, RecordShape, Sequential};
use crate::error::ConfigError;
use crate::model::Loss;
use crate::model::input::InputKind;

/// A network as a training file declares it, and its loss.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltNetwork {
    /// The chains of layers.
    pub network: BuiltLayers,
    /// The loss function.
    pub loss: Loss,
}

impl BuiltNetwork {
    /// Whether the last layer is a sigmoid.
    pub fn ends_in_sigmoid(&self) -> bool {
        let chains = self.network.chains();
        let last = chains.last().and_then(|chain| chain.layers().last());
        last == Some(&LayerSpec::Activate(Activation::Sigmoid))
    }
}

/// The chains of layers of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum BuiltLayers {
    /// An encoder and a decoder with a code in between.
    Autoencoder {
        /// From input to code.
        encoder: Sequential,
        /// From code to reconstruction.
        decoder: Sequential,
    },
    /// From input to output, without a code.
    Whole(Sequential),
}

impl BuiltLayers {
    /// Returns the chains in the order in which they run.
    pub fn chains(&self) -> Vec<&Sequential> {
        match self {
            Self::Autoencoder { encoder, decoder } => vec![encoder, decoder],
            Self::Whole(whole) => vec![whole],
        }
    }

    /// Returns the number of which the height and width of images must be multiples.
    pub fn size_multiple(&self) -> usize {
        let Self::Whole(whole) = self else { return 1 };
        let halves = |step: &&LayerSpec| {
            matches!(step, LayerSpec::SpaceToDepth)
                || matches!(step, LayerSpec::Conv(c) if c.stride == 2)
        };
        1 << whole.layers().iter().filter(halves).count()
    }
}

/// Builds the network that a file declares, for records of the shape `input`. `moments` are the
/// mean and the deviation of all values of the training part.
///
/// # Errors
/// All errors in the file, with keys from its top.
pub fn build(
    file: &TrainingFile,
    input: RecordShape,
    moments: (f64, f64),
) -> Result<BuiltNetwork, Vec<ConfigError>> {
    let mut faults = conflicting_options(file, input);
    let build = NetworkBuilder {
        file,
        spec: &file.network,
        input,
    };
    let output = file.network.output_activation;
    let kind = match input {
        RecordShape::Flat(_) => InputKind::Features,
        RecordShape::Planes { .. } => InputKind::Image,
    };
    let loss = file.head.loss.unwrap_or_else(|| default_loss(file, kind));
    let output = output.unwrap_or(if loss == Loss::Bce {
        Activation::Sigmoid
    } else {
        Activation::Linear
    });
    if loss == Loss::Bce && output != Activation::Sigmoid {
        let message = format!(
            "binary cross-entropy needs `sigmoid`, not `{}`; remove the option",
            output.as_str()
        );
        faults.push(ConfigError::new("network.output_activation", message));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let network = match file.head.code_size {
        Some(code) => build.autoencoder(code, output, moments),
        None => build.whole(output),
    };
    network
        .map(|network| BuiltNetwork { network, loss })
        .map_err(|fault| vec![fault])
}

/// Returns the loss of a file that does not set one: binary cross-entropy if the network ends in a
/// sigmoid and its inputs lie in 0..1, otherwise the mean squared error.
pub fn default_loss(file: &TrainingFile, kind: InputKind) -> Loss {
    let is_sigmoid = file.network.output_activation == Some(Activation::Sigmoid);
    if is_sigmoid && declared_range(&file.input, kind) == DeclaredRange::Unit {
        Loss::Bce
    } else {
        Loss::Mse
    }
}

fn conflicting_options(file: &TrainingFile, input: RecordShape) -> Vec<ConfigError> {
    let (kinds, spec) = (&file.head.kind, &file.network);
    let mut faults = Vec::new();
    let mut fault = |key: &str, message: &str| faults.push(ConfigError::new(key, message));
    kinds_fit(kinds, file, &mut fault);
    match file.head.code_size {
        Some(0) => fault(
            "code_size",
            "must be above 0; remove it for a network without a code",
        ),
        Some(_) if matches!(input, RecordShape::Planes { size: None, .. }) => {
            fault(
                "input.size",
                "is missing; a network with a code needs images of one size, such as [64, 64]",
            );
        }
        Some(_) => {
            for (key, set) in [
                ("skips", spec.skips == Some(true)),
                ("residual", spec.residual),
                ("space_to_depth", spec.space_to_depth),
            ] {
                if set {
                    fault(
                        &format!("network.{key}"),
                        "applies to networks without a code; it would bypass the code",
                    );
                }
            }
        }
        None if spec.channels.is_empty() => {
            fault(
                "code_size",
                "is missing; only convolutional networks (with network.channels) can omit it",
            );
        }
        None if !spec.nodes.is_empty() => {
            fault(
                "network.nodes",
                "a network without a code has no dense layers; remove them, or set code_size",
            );
        }
        None if file.sparsity.is_some() => fault(
            "sparsity",
            "applies to the code, but the network has no code; set code_size",
        ),
        None => {}
    }
    if !spec.channels.is_empty() && matches!(input, RecordShape::Flat(_)) {
        fault(
            "network.channels",
            "convolutions apply to images only; for features set network.nodes",
        );
    }
    sizes_fit(spec, &mut fault);
    if let Some(sparsity) = &file.sparsity {
        if !(sparsity.weight >= 0.0 && sparsity.weight.is_finite()) {
            fault("sparsity.weight", "must be 0 or more");
        }
        if sparsity.penalty == SparsityPenalty::Kl
            && !(sparsity.target > 0.0 && sparsity.target < 1.0)
        {
            fault(
                "sparsity.target",
                "must be above 0 and below 1, such as 0.05",
            );
        }
        let bounded = matches!(spec.code_activation, None | Some(Activation::Sigmoid));
        if sparsity.penalty == SparsityPenalty::Kl && !bounded {
            fault(
                "network.code_activation",
                "a KL penalty needs activations in 0..1; set `sigmoid`, or remove the option",
            );
        }
    }
    faults
}

fn kinds_fit(kinds: &ModelKinds, file: &TrainingFile, fault: &mut impl FnMut(&str, &str)) {
    let spec = &file.network;
    if kinds.words().is_empty() {
        fault(
            "kind",
            "is missing; expected vanilla, deep, convolutional, sparse, denoising, \
             or a list of them",
        );
    }
    if kinds.has(ModelKind::Vanilla) && !(spec.nodes.is_empty() && spec.channels.is_empty()) {
        fault(
            "kind",
            "a vanilla autoencoder has one hidden layer, its code; \
             with more layers it is deep or convolutional",
        );
    }
    if kinds.has(ModelKind::Deep) && spec.nodes.is_empty() {
        fault(
            "network.nodes",
            "is missing; a deep autoencoder has hidden layers before its code, such as [512, 128]",
        );
    }
    if kinds.has(ModelKind::Convolutional) && spec.channels.is_empty() {
        fault(
            "network.channels",
            "is missing; expected the channels of each convolution, such as [32, 64, 128]",
        );
    }
    if !kinds.has(ModelKind::Convolutional)
        && !spec.channels.is_empty()
        && !kinds.words().is_empty()
    {
        fault("kind", "network.channels is set; add \"convolutional\"");
    }
    if kinds.has(ModelKind::Denoising) && file.corruption.is_empty() {
        fault(
            "corruption",
            "is missing; a denoising autoencoder learns from corrupted input; add [[corruption]]",
        );
    }
    if !kinds.has(ModelKind::Denoising) && !file.corruption.is_empty() && !kinds.words().is_empty()
    {
        fault("kind", "[[corruption]] is set; add \"denoising\"");
    }
    if kinds.has(ModelKind::Sparse) && file.sparsity.is_none() {
        fault(
            "sparsity",
            "is missing; add [sparsity] with penalty = \"l1\" or \"kl\" and its weight",
        );
    }
    if !kinds.has(ModelKind::Sparse) && file.sparsity.is_some() && !kinds.words().is_empty() {
        fault("kind", "[sparsity] is set; add \"sparse\"");
    }
}

/// Maximum number of values of a layer: a weight matrix between two such layers takes 4 GiB.
const MAX_WIDTH: usize = 1 << 15;
/// Maximum number of layers in one list, far more than practical networks have.
const MAX_LAYERS: usize = 256;

fn sizes_fit(spec: &NetworkSpec, fault: &mut impl FnMut(&str, &str)) {
    let decoder = spec.decoder.clone().unwrap_or_default();
    let lists = [
        ("network.nodes", Some(&spec.nodes)),
        ("network.channels", Some(&spec.channels)),
        ("network.decoder.nodes", decoder.nodes.as_ref()),
        ("network.decoder.channels", decoder.channels.as_ref()),
    ];
    for (key, list) in lists
        .into_iter()
        .filter_map(|(key, list)| Some((key, list?)))
    {
        if let Some(wrong) = list.iter().find(|&&size| size == 0 || size > MAX_WIDTH) {
            fault(
                key,
                &format!("a layer must have 1 to {MAX_WIDTH} values; met {wrong}"),
            );
        }
        if list.len() > MAX_LAYERS {
            fault(
                key,
                &format!("must have at most {MAX_LAYERS} layers; met {}", list.len()),
            );
        }
    }
    let levels = spec.channels.len();
    if decoder
        .channels
        .is_some_and(|channels| channels.len() != levels)
    {
        fault(
            "network.decoder.channels",
            &format!("must have as many entries as network.channels, {levels}"),
        );
    }
    if let Some(strides) = &spec.strides {
        if strides.len() != levels {
            fault(
                "network.strides",
                &format!(
                    "must have as many entries as network.channels, {levels}; met {}",
                    strides.len()
                ),
            );
        }
        if strides.iter().any(|stride| !matches!(stride, 1 | 2)) {
            fault("network.strides", "must each be 1 or 2");
        }
    }
    if spec.kernel.is_multiple_of(2) || spec.kernel > 31 {
        fault(
            "network.kernel",
            &format!("must be odd and at most 31, such as 3; met {}", spec.kernel),
        );
    }
    if spec.blocks > MAX_LAYERS {
        fault(
            "network.blocks",
            &format!("must be at most {MAX_LAYERS}; met {}", spec.blocks),
        );
    }
}

struct NetworkBuilder<'a> {
    file: &'a TrainingFile,
    spec: &'a NetworkSpec,
    input: RecordShape,
}

impl NetworkBuilder<'_> {
    fn autoencoder(
        &self,
        code: usize,
        output: Activation,
        moments: (f64, f64),
    ) -> Result<BuiltLayers, ConfigError> {
        let mut encoder = self.standardization(moments);
        let mut decoder = Vec::new();
        let mut sizes = Vec::new();
        if let RecordShape::Planes {
            channels,
            size: Some(size),
        } = self.input
        {
            sizes = self.convolutions(channels, size, &mut encoder)?;
            encoder.push(LayerSpec::Flatten);
        }
        // The input of the dense layers: the features, the pixels, or the output of the
        // convolutions.
        let before = Sequential::new(self.input, encoder.clone()).map_err(within("network"))?;
        let wide = before.output().len().unwrap_or_default();
        let ends = |nodes: &[usize]| [&[wide], nodes, &[code]].concat();
        dense(
            &ends(&self.spec.nodes),
            self.spec.activation,
            self.code_activation(),
            &mut encoder,
        );
        let written = self
            .spec
            .decoder
            .as_ref()
            .and_then(|spec| spec.nodes.clone());
        let back = written.unwrap_or_else(|| self.spec.nodes.iter().rev().copied().collect());
        let mut channels = self.decoder_channels();
        // The first channels of the decoder may differ from the last channels of the encoder.
        let first = match (sizes.last(), channels.first()) {
            (Some(&(height, width)), Some(&channels)) => channels * height * width,
            _ => wide,
        };
        let images = !channels.is_empty();
        let last = if images { self.spec.activation } else { output };
        dense(
            &[&[code], back.as_slice(), &[first]].concat(),
            self.spec.activation,
            last,
            &mut decoder,
        );
        if let (
            Some(&(height, width)),
            RecordShape::Planes {
                channels: image_channels,
                ..
            },
        ) = (sizes.last(), self.input)
        {
            let bottom = channels.first().copied().unwrap_or(image_channels);
            decoder.push(LayerSpec::Unflatten {
                shape: [bottom, height, width],
            });
            channels.push(image_channels);
            self.transposed(&channels, &sizes, output, &mut decoder);
        }
        let encoder = Sequential::new(self.input, encoder).map_err(within("network"))?;
        let decoder =
            Sequential::new(RecordShape::Flat(code), decoder).map_err(within("network"))?;
        if decoder.output() != self.input {
            let message = format!(
                "the decoder returns {}, but records have the shape {}",
                decoder.output(),
                self.input
            );
            return Err(ConfigError::new("network", message));
        }
        Ok(BuiltLayers::Autoencoder { encoder, decoder })
    }

    fn standardization(&self, (mean, deviation): (f64, f64)) -> Vec<LayerSpec> {
        let images = matches!(self.input, RecordShape::Planes { .. });
        if !self.spec.standardize.unwrap_or(images) {
            return Vec::new();
        }
        let scale = if deviation > 0.0 {
            1.0 / deviation
        } else {
            1.0
        };
        vec![LayerSpec::Affine {
            scale: scale as f32,
            offset: (-mean * scale) as f32,
        }]
    }

    fn code_activation(&self) -> Activation {
        let by_penalty = match self.file.sparsity.map(|sparsity| sparsity.penalty) {
            Some(SparsityPenalty::L1) => Activation::Relu,
            Some(SparsityPenalty::Kl) => Activation::Sigmoid,
            None => Activation::Linear,
        };
        self.spec.code_activation.unwrap_or(by_penalty)
    }

    fn strides(&self) -> Vec<usize> {
        let whole = self.file.head.code_size.is_none();
        let default = |level: usize| if whole && level == 0 { 1 } else { 2 };
        self.spec
            .strides
            .clone()
            .unwrap_or_else(|| (0..self.spec.channels.len()).map(default).collect())
    }

    fn decoder_channels(&self) -> Vec<usize> {
        let written = self
            .spec
            .decoder
            .as_ref()
            .and_then(|decoder| decoder.channels.clone());
        written.unwrap_or_else(|| self.spec.channels.iter().rev().copied().collect())
    }

    /// Appends the convolutions of the encoder. Returns the size of the image before the first and
    /// after each of them.
    fn convolutions(
        &self,
        image_channels: usize,
        size: (usize, usize),
        steps: &mut Vec<LayerSpec>,
    ) -> Result<Vec<(usize, usize)>, ConfigError> {
        let (mut inputs, mut sizes) = (image_channels, vec![size]);
        for (&outputs, stride) in self.spec.channels.iter().zip(self.strides()) {
            let (height, width) = sizes[sizes.len() - 1];
            if stride == 2 && (height < 2 || width < 2) {
                let message = format!(
                    "an image of {height}x{width} cannot be halved; \
                     remove a convolution, or set its stride to 1"
                );
                return Err(ConfigError::new("network.channels", message));
            }
            if stride == 2 && height % 2 != width % 2 {
                let message = format!(
                    "height and width must both be even, or both odd, before each halving; \
                     met {height}x{width}"
                );
                return Err(ConfigError::new("input.size", message));
            }
            steps.push(same(inputs, outputs, self.spec.kernel, stride));
            steps.push(LayerSpec::Activate(self.spec.activation));
            self.blocks(outputs, steps);
            sizes.push((height.div_ceil(stride), width.div_ceil(stride)));
            inputs = outputs;
        }
        Ok(sizes)
    }

    /// Appends the convolutions of the decoder, with the numbers of channels in `channels` and the
    /// sizes of the encoder, `sizes`, in reverse order.
    fn transposed(
        &self,
        channels: &[usize],
        sizes: &[(usize, usize)],
        output: Activation,
        steps: &mut Vec<LayerSpec>,
    ) {
        let strides: Vec<usize> = self.strides().into_iter().rev().collect();
        let levels = strides.len();
        for (level, stride) in strides.into_iter().enumerate() {
            let (inputs, outputs) = (channels[level], channels[level + 1]);
            let (height, _) = sizes[levels - 1 - level];
            self.blocks(inputs, steps);
            steps.push(match stride {
                1 => same(inputs, outputs, self.spec.kernel, 1),
                // The output has twice the size of the input, or one pixel less.
                _ => LayerSpec::ConvTranspose(ConvolutionSpec {
                    inputs,
                    outputs,
                    kernel: 4 - height % 2,
                    stride: 2,
                    padding: 1,
                }),
            });
            let last = level + 1 == levels;
            steps.push(LayerSpec::Activate(if last {
                output
            } else {
                self.spec.activation
            }));
        }
    }

    /// Builds a network without a code: downsampling, upsampling and skip connections in between,
    /// as in RED-Net (Mao, Shen and Yang, 2016) and U-Net (Ronneberger, Fischer and Brox, 2015),
    /// but with addition instead of concatenation.
    fn whole(&self, output: Activation) -> Result<BuiltLayers, ConfigError> {
        let RecordShape::Planes {
            channels: image_channels,
            ..
        } = self.input
        else {
            return Err(ConfigError::new(
                "code_size",
                "is missing; a network for features needs a code",
            ));
        };
        let mut steps = Vec::new();
        let (fold, skips) = (self.spec.space_to_depth, self.spec.skips.unwrap_or(true));
        steps.extend(self.spec.residual.then_some(LayerSpec::SaveSkip));
        steps.extend(fold.then_some(LayerSpec::SpaceToDepth));
        let folded = if fold {
            4 * image_channels
        } else {
            image_channels
        };
        let levels: Vec<(usize, usize)> = self
            .spec
            .channels
            .iter()
            .copied()
            .zip(self.strides())
            .collect();
        // Residual blocks have their own activations, so the layers between them are linear.
        let activation =
            (self.spec.blocks == 0).then_some(LayerSpec::Activate(self.spec.activation));
        let mut inputs = folded;
        for (level, &(outputs, stride)) in levels.iter().enumerate() {
            steps.extend((skips && level > 0).then_some(LayerSpec::SaveSkip));
            steps.push(self.down(inputs, outputs, stride));
            steps.extend(activation);
            self.blocks(outputs, &mut steps);
            inputs = outputs;
        }
        let back = self.decoder_channels();
        for (level, &(_, stride)) in levels.iter().enumerate().rev() {
            let first = level == 0;
            let outputs = if first {
                folded
            } else {
                back[back.len() - level]
            };
            steps.push(self.up(inputs, outputs, stride));
            if first {
                break;
            }
            steps.extend(skips.then_some(LayerSpec::AddSkip));
            steps.extend(activation);
            self.blocks(outputs, &mut steps);
            inputs = outputs;
        }
        steps.extend(fold.then_some(LayerSpec::DepthToSpace));
        steps.extend(self.spec.residual.then_some(LayerSpec::AddSkip));
        if output != Activation::Linear {
            steps.push(LayerSpec::Activate(output));
        }
        Sequential::new(self.input, steps)
            .map(BuiltLayers::Whole)
            .map_err(within("network"))
    }

    fn down(&self, inputs: usize, outputs: usize, stride: usize) -> LayerSpec {
        match stride {
            1 => same(inputs, outputs, self.spec.kernel, 1),
            _ => LayerSpec::Conv(ConvolutionSpec {
                inputs,
                outputs,
                kernel: 2,
                stride: 2,
                padding: 0,
            }),
        }
    }

    fn up(&self, inputs: usize, outputs: usize, stride: usize) -> LayerSpec {
        match stride {
            1 => same(inputs, outputs, self.spec.kernel, 1),
            _ => LayerSpec::ConvTranspose(ConvolutionSpec {
                inputs,
                outputs,
                kernel: 2,
                stride: 2,
                padding: 0,
            }),
        }
    }

    fn blocks(&self, channels: usize, steps: &mut Vec<LayerSpec>) {
        for _ in 0..self.spec.blocks {
            let conv = same(channels, channels, 3, 1);
            steps.extend([
                LayerSpec::SaveSkip,
                conv,
                LayerSpec::Activate(self.spec.activation),
                conv,
                LayerSpec::AddSkip,
            ]);
        }
    }
}

/// Returns a convolution that keeps height and width, or halves them.
fn same(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> LayerSpec {
    LayerSpec::Conv(ConvolutionSpec {
        inputs,
        outputs,
        kernel,
        stride,
        padding: kernel / 2,
    })
}

fn dense(sizes: &[usize], between: Activation, last: Activation, steps: &mut Vec<LayerSpec>) {
    let layers = sizes.len() - 1;
    for (layer, pair) in sizes.windows(2).enumerate() {
        steps.push(LayerSpec::Dense {
            inputs: pair[0],
            outputs: pair[1],
        });
        steps.push(LayerSpec::Activate(if layer + 1 == layers {
            last
        } else {
            between
        }));
    }
}

fn within(key: &str) -> impl Fn(String) -> ConfigError + '_ {
    move |message| ConfigError::new(key, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;

    const GRAY28: RecordShape = RecordShape::Planes {
        channels: 1,
        size: Some((28, 28)),
    };
    const ANY: RecordShape = RecordShape::Planes {
        channels: 3,
        size: None,
    };

    fn file(text: &str) -> Result<TrainingFile, Vec<ConfigError>> {
        TrainingFile::read(toml::from_str(text).unwrap())
    }

    fn check(text: &str, input: RecordShape, expected: Expect) {
        let shown = match file(text).and_then(|file| build(&file, input, (0.5, 0.25))) {
            Err(faults) => faults
                .iter()
                .map(|fault| format!("{}: {}", fault.key, fault.message))
                .collect(),
            Ok(BuiltNetwork { network, loss }) => {
                let chains = network.chains();
                let lines = chains
                    .iter()
                    .map(|chain| format!("{}: {}", chain.input(), chain.describe().join("\n| ")));
                let end = chains.last().unwrap().output();
                lines
                    .chain([format!(
                        "{end}, {} loss, multiples of {}",
                        loss.as_str(),
                        network.size_multiple()
                    )])
                    .collect::<Vec<_>>()
            }
        };
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn vanilla_autoencoder_has_one_hidden_layer() {
        check(
            "kind = 'vanilla'\ncode_size = 32",
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | dense 784->32, linear
            [32]: dense 32->784, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
        check(
            "kind = 'vanilla'\ncode_size = 3\nloss = 'bce'",
            RecordShape::Flat(8),
            expect![[r#"
            [8]: dense 8->3, linear
            [3]: dense 3->8, sigmoid
            [8], bce loss, multiples of 1"#]],
        );
    }

    #[test]
    fn sigmoid_chooses_bce_only_for_values_in_its_range() {
        let loss = |input: &str, shape: RecordShape| {
            let text =
                "kind = 'vanilla'\ncode_size = 3\n[network]\noutput_activation = 'sigmoid'\n";
            let file = file(&format!("{text}[input]\n{input}")).unwrap();
            build(&file, shape, (0.5, 0.25)).unwrap().loss
        };
        let features = RecordShape::Flat(8);
        assert_eq!(loss("", features), Loss::Mse);
        assert_eq!(loss("scaling = 'standard'", features), Loss::Mse);
        assert_eq!(loss("scaling = 'none'", features), Loss::Mse);
        assert_eq!(loss("scaling = 'min_max'", features), Loss::Bce);
        assert_eq!(loss("channels = 'gray'", GRAY28), Loss::Bce);
        assert_eq!(
            loss("channels = 'gray'\nrange = [-1, 1]", GRAY28),
            Loss::Mse
        );
        assert_eq!(loss("channels = 'gray'\nmean = [0.5]", GRAY28), Loss::Mse);
    }

    #[test]
    fn deep_decoder_mirrors_its_encoder_by_default() {
        let deep =
            "kind = 'deep'\ncode_size = 4\n[network]\nnodes = [32, 16]\nactivation = 'tanh'\n";
        check(
            deep,
            RecordShape::Flat(64),
            expect![[r#"
            [64]: dense 64->32, tanh
            | dense 32->16, tanh
            | dense 16->4, linear
            [4]: dense 4->16, tanh
            | dense 16->32, tanh
            | dense 32->64, linear
            [64], mse loss, multiples of 1"#]],
        );
        check(
            &format!("{deep}decoder = {{ nodes = [8] }}"),
            RecordShape::Flat(64),
            expect![[r#"
            [64]: dense 64->32, tanh
            | dense 32->16, tanh
            | dense 16->4, linear
            [4]: dense 4->8, tanh
            | dense 8->64, linear
            [64], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn convolutional_decoder_mirrors_the_sizes_of_its_encoder() {
        let conv = "kind = 'convolutional'\ncode_size = 32\n[network]\nchannels = [32, 64, 128]\n";
        check(
            conv,
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->32 3x3 stride 2, relu
            | conv 32->64 3x3 stride 2, relu
            | conv 64->128 3x3 stride 2, relu
            | dense 2048->32, linear
            [32]: dense 32->2048, relu
            | transposed conv 128->64 3x3 stride 2, relu
            | transposed conv 64->32 4x4 stride 2, relu
            | transposed conv 32->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
        check(
            &format!(
                "{conv}nodes = [256]\nblocks = 1\nstrides = [1, 2, 2]\n\
                    decoder = {{ channels = [96, 64, 16] }}"
            ),
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->32 3x3, relu
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | conv 32->64 3x3 stride 2, relu
            | conv 64->64 3x3, relu
            | conv 64->64 3x3
            | add what was kept
            | conv 64->128 3x3 stride 2, relu
            | conv 128->128 3x3, relu
            | conv 128->128 3x3
            | add what was kept
            | dense 6272->256, relu
            | dense 256->32, linear
            [32]: dense 32->256, relu
            | dense 256->4704, relu
            | conv 96->96 3x3, relu
            | conv 96->96 3x3
            | add what was kept
            | transposed conv 96->64 4x4 stride 2, relu
            | conv 64->64 3x3, relu
            | conv 64->64 3x3
            | add what was kept
            | transposed conv 64->16 4x4 stride 2, relu
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->1 3x3, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn network_without_a_code_accepts_images_of_any_size() {
        let whole = "kind = ['denoising', 'convolutional']\n[[corruption]]\nnoise = 'gray'\n\
            [network]\nchannels = [16, 32, 48]\n";
        check(
            &format!("{whole}residual = true\nblocks = 1"),
            ANY,
            expect![[r#"
            [3, height, width]: conv 3->16 3x3
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->32 2x2 stride 2
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | conv 32->48 2x2 stride 2
            | conv 48->48 3x3, relu
            | conv 48->48 3x3
            | add what was kept
            | transposed conv 48->32 2x2 stride 2
            | add what was kept
            | conv 32->32 3x3, relu
            | conv 32->32 3x3
            | add what was kept
            | transposed conv 32->16 2x2 stride 2
            | add what was kept
            | conv 16->16 3x3, relu
            | conv 16->16 3x3
            | add what was kept
            | conv 16->3 3x3
            | add what was kept
            [3, height, width], mse loss, multiples of 4"#]],
        );
        check(
            &format!("{whole}space_to_depth = true\nskips = false\nstrides = [1, 1, 2]"),
            ANY,
            expect![[r#"
            [3, height, width]: space to depth
            | conv 12->16 3x3, relu
            | conv 16->32 3x3, relu
            | conv 32->48 2x2 stride 2, relu
            | transposed conv 48->32 2x2 stride 2, relu
            | conv 32->16 3x3, relu
            | conv 16->12 3x3
            | depth to space
            [3, height, width], mse loss, multiples of 4"#]],
        );
    }

    #[test]
    fn kinds_combine() {
        let text = "kind = ['sparse', 'convolutional', 'denoising']\ncode_size = 16\n\
            [network]\nchannels = [8]\n[sparsity]\npenalty = 'kl'\n[corruption]\n\
            noise = 'masking'\nrate = 0.2";
        check(
            text,
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2
            | conv 1->8 3x3 stride 2, relu
            | dense 1568->16, sigmoid
            [16]: dense 16->1568, relu
            | transposed conv 8->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn all_conflicting_options_are_reported() {
        check(
            "code_size = 0",
            GRAY28,
            expect![
                "kind: is missing; expected vanilla, deep, convolutional, sparse, \
                 denoising, or a list of them\n\
                 code_size: must be above 0; remove it for a network without a code"
            ],
        );
        check(
            "kind = ['deep', 'sparse', 'denoising']\ncode_size = 4\n[network]\n\
                residual = true\nkernel = 4\nchannels = [0]\nstrides = [1, 3]",
            RecordShape::Flat(3),
            expect![
                "network.nodes: is missing; a deep autoencoder has hidden layers \
                 before its code, such as [512, 128]\n\
                 kind: network.channels is set; add \"convolutional\"\n\
                 corruption: is missing; a denoising autoencoder learns from \
                 corrupted input; add [[corruption]]\n\
                 sparsity: is missing; add [sparsity] with penalty = \"l1\" or \
                 \"kl\" and its weight\n\
                 network.residual: applies to networks without a code; it would \
                 bypass the code\n\
                 network.channels: convolutions apply to images only; for features \
                 set network.nodes\n\
                 network.channels: a layer must have 1 to 32768 values; met 0\n\
                 network.strides: must have as many entries as network.channels, 1; \
                 met 2\n\
                 network.strides: must each be 1 or 2\n\
                 network.kernel: must be odd and at most 31, such as 3; met 4"
            ],
        );
        check(
            "kind = 'vanilla'\n[network]\nnodes = [3]\n[corruption]\n\
                noise = 'gray'\n[sparsity]\nweight = -1",
            ANY,
            expect![
                "kind: a vanilla autoencoder has one hidden layer, its code; with \
                 more layers it is deep or convolutional\n\
                 kind: [[corruption]] is set; add \"denoising\"\n\
                 kind: [sparsity] is set; add \"sparse\"\n\
                 code_size: is missing; only convolutional networks (with \
                 network.channels) can omit it\n\
                 sparsity.weight: must be 0 or more"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\n\
                channels = [8, 8]\noutput_activation = 'tanh'",
            ANY,
            expect![
                "input.size: is missing; a network with a code needs images of one size, \
                 such as [64, 64]"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\nloss = 'bce'\n[network]\n\
                channels = [8, 8]\noutput_activation = 'tanh'",
            GRAY28,
            expect![
                "network.output_activation: binary cross-entropy needs `sigmoid`, \
                 not `tanh`; remove the option"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
            RecordShape::Planes {
                channels: 1,
                size: Some((4, 4)),
            },
            expect![
                "network.channels: an image of 1x1 cannot be halved; \
                 remove a convolution, or set its stride to 1"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
            RecordShape::Planes {
                channels: 1,
                size: Some((28, 21)),
            },
            expect![
                "input.size: height and width must both be even, or both odd, before each halving; \
                 met 28x21"
            ],
        );
        check(
            "kind = 'shallow'\nnmae = 'x'\n[netwrok]\n[network]\nnode = 3\n\
                [training]\nepochs = 'many'\n[[corruption]]\nnoise = 'gauss'",
            GRAY28,
            expect![
                "network.node: unknown key (did you mean `nodes`?); known: \
                 activation, blocks, channels, code_activation, decoder, kernel, \
                 nodes, output_activation, residual, skips, space_to_depth, \
                 standardize, strides\n\
                 training.epochs: invalid type: string \"many\", expected u32\n\
                 corruption[0].noise: unknown variant `gauss`, expected one of \
                 `gaussian`, `masking`, `salt_and_pepper`, `watermark_text`, \
                 `watermark_grid`, `watermark`, `gray`\n\
                 kind: expected a kind such as \"deep\", or a list such as \
                 [\"deep\", \"denoising\"]"
            ],
        );
    }
}
