//! From a training file to the network that it declares, every fault at once.

use super::config::{ModelKind, ModelKinds, NetworkSpec, SparsityPenalty, TrainingFile};
use super::sequential::{Activation, ConvolutionSpec, LayerSpec, RecordShape, Sequential};
use crate::error::ConfigError;
use crate::model::Loss;

/// A network as declared, and what follows from the declaration.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltNetwork {
    /// Its chains.
    pub network: BuiltLayers,
    /// What training makes small.
    pub loss: Loss,
}

/// The chains of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum BuiltLayers {
    /// With a code in between.
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
    /// Its chains, in order.
    pub fn chains(&self) -> Vec<&Sequential> {
        match self {
            Self::Autoencoder { encoder, decoder } => vec![encoder, decoder],
            Self::Whole(whole) => vec![whole],
        }
    }

    /// Height and width of its images must be multiples of this.
    pub fn multiple(&self) -> usize {
        let Self::Whole(whole) = self else { return 1 };
        let halves = |step: &&LayerSpec| {
            matches!(step, LayerSpec::SpaceToDepth)
                || matches!(step, LayerSpec::Conv(c) if c.stride == 2)
        };
        1 << whole.layers().iter().filter(halves).count()
    }
}

/// Builds what a file declares for records of a shape. `moments` are mean and deviation of the
/// training part's values.
///
/// # Errors
/// Every fault, with keys from the top of the file.
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
    let loss = file
        .head
        .loss
        .unwrap_or(if output == Some(Activation::Sigmoid) {
            Loss::Bce
        } else {
            Loss::Mse
        });
    let output = output.unwrap_or(if loss == Loss::Bce {
        Activation::Sigmoid
    } else {
        Activation::Linear
    });
    if loss == Loss::Bce && output != Activation::Sigmoid {
        let message = format!(
            "binary cross-entropy needs a sigmoid, not {}; leave it out",
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

fn conflicting_options(file: &TrainingFile, input: RecordShape) -> Vec<ConfigError> {
    let (kinds, spec) = (&file.head.kind, &file.network);
    let mut faults = Vec::new();
    let mut fault = |key: &str, message: &str| faults.push(ConfigError::new(key, message));
    kinds_fit(kinds, file, &mut fault);
    match file.head.code_size {
        Some(0) => fault(
            "code_size",
            "must be above 0; leave it out for a network without a code",
        ),
        Some(_) if matches!(input, RecordShape::Planes { size: None, .. }) => {
            fault(
                "input.size",
                "is missing: a network with a code takes images of one size, such as [64, 64]",
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
                        "is for networks without a code: it would lead around the code",
                    );
                }
            }
        }
        None if spec.channels.is_empty() => {
            fault(
                "code_size",
                "is missing: only convolutional networks (with network.channels) do without a code",
            );
        }
        None if !spec.nodes.is_empty() => {
            fault(
                "network.nodes",
                "a network without a code has no dense layers; leave them out, or give code_size",
            );
        }
        None if file.sparsity.is_some() => fault(
            "sparsity",
            "penalises the code, but there is none; give code_size",
        ),
        None => {}
    }
    if !spec.channels.is_empty() && matches!(input, RecordShape::Flat(_)) {
        fault(
            "network.channels",
            "convolutions are for images; for features give network.nodes",
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
                "must lie above 0 and below 1, such as 0.05",
            );
        }
        let bounded = matches!(spec.code_activation, None | Some(Activation::Sigmoid));
        if sparsity.penalty == SparsityPenalty::Kl && !bounded {
            fault(
                "network.code_activation",
                "a KL penalty needs activations in 0..1: sigmoid, or leave it out",
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
            "is missing: vanilla, deep, convolutional, sparse, denoising, or a list of them",
        );
    }
    if kinds.has(ModelKind::Vanilla) && !(spec.nodes.is_empty() && spec.channels.is_empty()) {
        fault(
            "kind",
            "a vanilla autoencoder has one hidden layer, its code; with more layers it is deep or convolutional",
        );
    }
    if kinds.has(ModelKind::Deep) && spec.nodes.is_empty() {
        fault(
            "network.nodes",
            "is missing: a deep autoencoder has hidden layers before its code, such as [512, 128]",
        );
    }
    if kinds.has(ModelKind::Convolutional) && spec.channels.is_empty() {
        fault(
            "network.channels",
            "is missing: the channels of each convolution, such as [32, 64, 128]",
        );
    }
    if !kinds.has(ModelKind::Convolutional)
        && !spec.channels.is_empty()
        && !kinds.words().is_empty()
    {
        fault("kind", "there are network.channels: add \"convolutional\"");
    }
    if kinds.has(ModelKind::Denoising) && file.corruption.is_empty() {
        fault(
            "corruption",
            "is missing: a denoising autoencoder learns from corrupted input; give [[corruption]]",
        );
    }
    if !kinds.has(ModelKind::Denoising) && !file.corruption.is_empty() && !kinds.words().is_empty()
    {
        fault("kind", "there is [[corruption]]: add \"denoising\"");
    }
    if kinds.has(ModelKind::Sparse) && file.sparsity.is_none() {
        fault(
            "sparsity",
            "is missing: give [sparsity] with penalty = \"l1\" or \"kl\" and its weight",
        );
    }
    if !kinds.has(ModelKind::Sparse) && file.sparsity.is_some() && !kinds.words().is_empty() {
        fault("kind", "there is [sparsity]: add \"sparse\"");
    }
}

/// The widest layer that can be declared: a weight matrix between two of them takes 4 GiB.
const MAX_WIDTH: usize = 1 << 15;
/// More layers than anyone trains.
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
                &format!("a layer has 1 to {MAX_WIDTH} values; met {wrong}"),
            );
        }
        if list.len() > MAX_LAYERS {
            fault(
                key,
                &format!("at most {MAX_LAYERS} layers; met {}", list.len()),
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
            &format!("there are {levels} network.channels; give as many"),
        );
    }
    if let Some(strides) = &spec.strides {
        if strides.len() != levels {
            fault(
                "network.strides",
                &format!(
                    "{} strides for {levels} channels; give as many",
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
            &format!("at most {MAX_LAYERS}; met {}", spec.blocks),
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
        let mut encoder = self.standardised(moments);
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
        // What the dense layers start from: the features, the pixels, or what the convolutions
        // left.
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
            .and_then(|decoder| decoder.nodes.clone());
        let back = written.unwrap_or_else(|| self.spec.nodes.iter().rev().copied().collect());
        let mut channels = self.decoder_channels();
        // The decoder may begin with other channels than the encoder ends with.
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
                channels: colours, ..
            },
        ) = (sizes.last(), self.input)
        {
            let bottom = channels.first().copied().unwrap_or(colours);
            decoder.push(LayerSpec::Unflatten {
                shape: [bottom, height, width],
            });
            channels.push(colours);
            self.transposed(&channels, &sizes, output, &mut decoder);
        }
        let encoder = Sequential::new(self.input, encoder).map_err(within("network"))?;
        let decoder =
            Sequential::new(RecordShape::Flat(code), decoder).map_err(within("network"))?;
        if decoder.output() != self.input {
            let message = format!(
                "the decoder gives {}, but records are {}",
                decoder.output(),
                self.input
            );
            return Err(ConfigError::new("network", message));
        }
        Ok(BuiltLayers::Autoencoder { encoder, decoder })
    }

    fn standardised(&self, (mean, deviation): (f64, f64)) -> Vec<LayerSpec> {
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

    /// Appends the encoder's convolutions; gives the image's size before the first and after each.
    fn convolutions(
        &self,
        colours: usize,
        size: (usize, usize),
        steps: &mut Vec<LayerSpec>,
    ) -> Result<Vec<(usize, usize)>, ConfigError> {
        let (mut inputs, mut sizes) = (colours, vec![size]);
        for (&outputs, stride) in self.spec.channels.iter().zip(self.strides()) {
            let (height, width) = sizes[sizes.len() - 1];
            if stride == 2 && (height < 2 || width < 2) {
                let message = format!(
                    "an image of {height}x{width} cannot be halved; leave a convolution out, or give it stride 1"
                );
                return Err(ConfigError::new("network.channels", message));
            }
            if stride == 2 && height % 2 != width % 2 {
                let message = format!(
                    "height and width must both be even, or both odd, before each halving; met {height}x{width}"
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

    /// Appends the decoder's convolutions, through `channels` and back through the encoder's
    /// `sizes`.
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
                // Twice the size, or one less.
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

    /// A network without a code: down, up, and skips in between, as in RED-Net (Mao, Shen and Yang,
    /// 2016) and U-Net (Ronneberger, Fischer and Brox, 2015), but adding.
    fn whole(&self, output: Activation) -> Result<BuiltLayers, ConfigError> {
        let RecordShape::Planes {
            channels: colours, ..
        } = self.input
        else {
            return Err(ConfigError::new(
                "code_size",
                "is missing: features have no network without a code",
            ));
        };
        let mut steps = Vec::new();
        let (fold, skips) = (self.spec.space_to_depth, self.spec.skips.unwrap_or(true));
        steps.extend(self.spec.residual.then_some(LayerSpec::SaveSkip));
        steps.extend(fold.then_some(LayerSpec::SpaceToDepth));
        let folded = if fold { 4 * colours } else { colours };
        let levels: Vec<(usize, usize)> = self
            .spec
            .channels
            .iter()
            .copied()
            .zip(self.strides())
            .collect();
        // Residual blocks bring their own activations; the layers between them are then linear.
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

/// A convolution that keeps height and width, or halves them.
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
                    .map(|chain| format!("{}: {}", chain.input(), chain.describe().join(" | ")));
                let end = chains.last().unwrap().output();
                lines
                    .chain([format!(
                        "{end}, {} loss, multiples of {}",
                        loss.as_str(),
                        network.multiple()
                    )])
                    .collect::<Vec<_>>()
            }
        };
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn a_vanilla_autoencoder_has_one_hidden_layer() {
        check(
            "kind = 'vanilla'\ncode_size = 32",
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2 | dense 784->32, linear
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
    fn a_deep_decoder_mirrors_its_encoder_unless_told_otherwise() {
        let deep =
            "kind = 'deep'\ncode_size = 4\n[network]\nnodes = [32, 16]\nactivation = 'tanh'\n";
        check(
            deep,
            RecordShape::Flat(64),
            expect![[r#"
            [64]: dense 64->32, tanh | dense 32->16, tanh | dense 16->4, linear
            [4]: dense 4->16, tanh | dense 16->32, tanh | dense 32->64, linear
            [64], mse loss, multiples of 1"#]],
        );
        check(
            &format!("{deep}decoder = {{ nodes = [8] }}"),
            RecordShape::Flat(64),
            expect![[r#"
            [64]: dense 64->32, tanh | dense 32->16, tanh | dense 16->4, linear
            [4]: dense 4->8, tanh | dense 8->64, linear
            [64], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn a_convolutional_decoder_gives_back_the_sizes_of_its_encoder() {
        let conv = "kind = 'convolutional'\ncode_size = 32\n[network]\nchannels = [32, 64, 128]\n";
        check(
            conv,
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2 | conv 1->32 3x3 stride 2, relu | conv 32->64 3x3 stride 2, relu | conv 64->128 3x3 stride 2, relu | dense 2048->32, linear
            [32]: dense 32->2048, relu | transposed conv 128->64 3x3 stride 2, relu | transposed conv 64->32 4x4 stride 2, relu | transposed conv 32->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
        check(
            &format!(
                "{conv}nodes = [256]\nblocks = 1\nstrides = [1, 2, 2]\ndecoder = {{ channels = [96, 64, 16] }}"
            ),
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2 | conv 1->32 3x3, relu | conv 32->32 3x3, relu | conv 32->32 3x3 | add what was kept | conv 32->64 3x3 stride 2, relu | conv 64->64 3x3, relu | conv 64->64 3x3 | add what was kept | conv 64->128 3x3 stride 2, relu | conv 128->128 3x3, relu | conv 128->128 3x3 | add what was kept | dense 6272->256, relu | dense 256->32, linear
            [32]: dense 32->256, relu | dense 256->4704, relu | conv 96->96 3x3, relu | conv 96->96 3x3 | add what was kept | transposed conv 96->64 4x4 stride 2, relu | conv 64->64 3x3, relu | conv 64->64 3x3 | add what was kept | transposed conv 64->16 4x4 stride 2, relu | conv 16->16 3x3, relu | conv 16->16 3x3 | add what was kept | conv 16->1 3x3, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn without_a_code_a_network_takes_images_of_any_size() {
        let whole = "kind = ['denoising', 'convolutional']\n[[corruption]]\nnoise = 'gray'\n[network]\nchannels = [16, 32, 48]\n";
        check(
            &format!("{whole}residual = true\nblocks = 1"),
            ANY,
            expect![[r#"
            [3, height, width]: conv 3->16 3x3 | conv 16->16 3x3, relu | conv 16->16 3x3 | add what was kept | conv 16->32 2x2 stride 2 | conv 32->32 3x3, relu | conv 32->32 3x3 | add what was kept | conv 32->48 2x2 stride 2 | conv 48->48 3x3, relu | conv 48->48 3x3 | add what was kept | transposed conv 48->32 2x2 stride 2 | add what was kept | conv 32->32 3x3, relu | conv 32->32 3x3 | add what was kept | transposed conv 32->16 2x2 stride 2 | add what was kept | conv 16->16 3x3, relu | conv 16->16 3x3 | add what was kept | conv 16->3 3x3 | add what was kept
            [3, height, width], mse loss, multiples of 4"#]],
        );
        check(
            &format!("{whole}space_to_depth = true\nskips = false\nstrides = [1, 1, 2]"),
            ANY,
            expect![[r#"
            [3, height, width]: space to depth | conv 12->16 3x3, relu | conv 16->32 3x3, relu | conv 32->48 2x2 stride 2, relu | transposed conv 48->32 2x2 stride 2, relu | conv 32->16 3x3, relu | conv 16->12 3x3 | depth to space
            [3, height, width], mse loss, multiples of 4"#]],
        );
    }

    #[test]
    fn kinds_combine() {
        let text = "kind = ['sparse', 'convolutional', 'denoising']\ncode_size = 16\n[network]\nchannels = [8]\n[sparsity]\npenalty = 'kl'\n[corruption]\nnoise = 'masking'\nrate = 0.2";
        check(
            text,
            GRAY28,
            expect![[r#"
            [1, 28, 28]: scale 4, offset -2 | conv 1->8 3x3 stride 2, relu | dense 1568->16, sigmoid
            [16]: dense 16->1568, relu | transposed conv 8->1 4x4 stride 2, linear
            [1, 28, 28], mse loss, multiples of 1"#]],
        );
    }

    #[test]
    fn every_contradiction_is_told_at_once() {
        check(
            "code_size = 0",
            GRAY28,
            expect![[r#"
            kind: is missing: vanilla, deep, convolutional, sparse, denoising, or a list of them
            code_size: must be above 0; leave it out for a network without a code"#]],
        );
        check(
            "kind = ['deep', 'sparse', 'denoising']\ncode_size = 4\n[network]\nresidual = true\nkernel = 4\nchannels = [0]\nstrides = [1, 3]",
            RecordShape::Flat(3),
            expect![[r#"
            network.nodes: is missing: a deep autoencoder has hidden layers before its code, such as [512, 128]
            kind: there are network.channels: add "convolutional"
            corruption: is missing: a denoising autoencoder learns from corrupted input; give [[corruption]]
            sparsity: is missing: give [sparsity] with penalty = "l1" or "kl" and its weight
            network.residual: is for networks without a code: it would lead around the code
            network.channels: convolutions are for images; for features give network.nodes
            network.channels: a layer has 1 to 32768 values; met 0
            network.strides: 2 strides for 1 channels; give as many
            network.strides: must each be 1 or 2
            network.kernel: must be odd and at most 31, such as 3; met 4"#]],
        );
        check(
            "kind = 'vanilla'\n[network]\nnodes = [3]\n[corruption]\nnoise = 'gray'\n[sparsity]\nweight = -1",
            ANY,
            expect![[r#"
            kind: a vanilla autoencoder has one hidden layer, its code; with more layers it is deep or convolutional
            kind: there is [[corruption]]: add "denoising"
            kind: there is [sparsity]: add "sparse"
            code_size: is missing: only convolutional networks (with network.channels) do without a code
            sparsity.weight: must be 0 or more"#]],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8]\noutput_activation = 'tanh'",
            ANY,
            expect![
                "input.size: is missing: a network with a code takes images of one size, such as [64, 64]"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\nloss = 'bce'\n[network]\nchannels = [8, 8]\noutput_activation = 'tanh'",
            GRAY28,
            expect![
                "network.output_activation: binary cross-entropy needs a sigmoid, not tanh; leave it out"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
            RecordShape::Planes {
                channels: 1,
                size: Some((4, 4)),
            },
            expect![
                "network.channels: an image of 1x1 cannot be halved; leave a convolution out, or give it stride 1"
            ],
        );
        check(
            "kind = 'convolutional'\ncode_size = 4\n[network]\nchannels = [8, 8, 8]",
            RecordShape::Planes {
                channels: 1,
                size: Some((28, 21)),
            },
            expect![
                "input.size: height and width must both be even, or both odd, before each halving; met 28x21"
            ],
        );
        check(
            "kind = 'shallow'\nnmae = 'x'\n[netwrok]\n[network]\nnode = 3\n[training]\nepochs = 'many'\n[[corruption]]\nnoise = 'gauss'",
            GRAY28,
            expect![[r#"
            network.node: unknown key (did you mean `nodes`?); known: activation, blocks, channels, code_activation, decoder, kernel, nodes, output_activation, residual, skips, space_to_depth, standardize, strides
            training.epochs: invalid type: string "many", expected u32
            corruption[0].noise: unknown variant `gauss`, expected one of `gaussian`, `masking`, `salt_and_pepper`, `watermark_text`, `watermark_grid`, `watermark`, `gray`
            kind: expected a kind such as "deep", or a list such as ["deep", "denoising"]"#]],
        );
    }
}
