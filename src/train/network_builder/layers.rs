//! Builds the layers of a network.

use crate::error::config_error::ConfigError;
use crate::train::config::TrainingFile;
use crate::train::config::network::{
    ModelKind, NetworkSpec, SkipConnections, SkipMode, SparsityPenalty,
};
use crate::train::layer_spec::{Activation, ConvolutionSpec, LayerSpec};
use crate::train::network_builder::BuiltLayers;
use crate::train::network_builder::conflicts::within;
use crate::train::record_shape::RecordShape;
use crate::train::sequential::Sequential;

pub(super) struct NetworkBuilder<'a> {
    pub(super) file: &'a TrainingFile,
    pub(super) spec: &'a NetworkSpec,
    pub(super) input: RecordShape,
}

impl NetworkBuilder<'_> {
    pub(super) fn autoencoder(
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
        let is_variational = self.file.head.kind.has(ModelKind::Variational);
        let last = if is_variational { 2 * code } else { code };
        let sizes_of_dense = [&[wide], self.spec.nodes.as_slice(), &[last]].concat();
        self.dense(&sizes_of_dense, self.code_activation(), false, &mut encoder);
        encoder.extend(is_variational.then_some(LayerSpec::Sample { code }));
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
        let activation = if images { self.spec.activation } else { output };
        let nodes = [&[code], back.as_slice(), &[first]].concat();
        self.dense(&nodes, activation, images, &mut decoder);
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

    /// Builds a network without a code: downsampling, upsampling and skip connections in between,
    /// as in RED-Net (Mao, Shen and Yang, 2016), which adds, and U-Net (Ronneberger, Fischer and
    /// Brox, 2015), which concatenates.
    pub(super) fn whole(&self, output: Activation) -> Result<BuiltLayers, ConfigError> {
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
        let skips = self
            .spec
            .skips
            .unwrap_or(SkipConnections::Added(true))
            .mode();
        let fold = self.spec.space_to_depth;
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
            steps.extend(skips.filter(|_| level > 0).map(|_| LayerSpec::SaveSkip));
            steps.push(self.down(inputs, outputs, stride));
            steps.extend(self.normalization(outputs));
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
            if skips == Some(SkipMode::Concat) {
                let stored = levels[level - 1].0;
                steps.push(LayerSpec::ConcatSkip);
                steps.push(same(outputs + stored, outputs, self.spec.kernel, 1));
            }
            steps.extend(self.normalization(outputs));
            steps.extend((skips == Some(SkipMode::Add)).then_some(LayerSpec::AddSkip));
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

    /// Returns the normalization after a layer with a number of channels or values.
    pub(super) fn normalization(&self, channels: usize) -> Option<LayerSpec> {
        let over = self.spec.normalization?;
        Some(LayerSpec::Normalize { over, channels })
    }

    /// Appends dense layers. `last` is the activation of the last one; `is_hidden` is whether it
    /// has a normalization as the others.
    fn dense(
        &self,
        sizes: &[usize],
        last: Activation,
        is_hidden: bool,
        steps: &mut Vec<LayerSpec>,
    ) {
        let layers = sizes.len() - 1;
        for (layer, pair) in sizes.windows(2).enumerate() {
            let is_last = layer + 1 == layers;
            steps.push(LayerSpec::Dense {
                inputs: pair[0],
                outputs: pair[1],
            });
            if is_hidden || !is_last {
                steps.extend(self.normalization(pair[1]));
            }
            steps.push(LayerSpec::Activate(if is_last {
                last
            } else {
                self.spec.activation
            }));
        }
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
}

/// Returns a convolution that keeps height and width, or halves them.
pub(super) fn same(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> LayerSpec {
    LayerSpec::Conv(ConvolutionSpec {
        inputs,
        outputs,
        kernel,
        stride,
        padding: kernel / 2,
    })
}
