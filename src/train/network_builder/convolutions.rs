//! Builds convolutional encoders and decoders.

use crate::error::config_error::ConfigError;
use crate::train::layer_spec::{Activation, ConvolutionSpec, LayerSpec};
use crate::train::network_builder::layers::{NetworkBuilder, same};

impl NetworkBuilder<'_> {
    pub(super) fn strides(&self) -> Vec<usize> {
        let whole = self.file.head.code_size.is_none();
        let default = |level: usize| if whole && level == 0 { 1 } else { 2 };
        self.spec
            .strides
            .clone()
            .unwrap_or_else(|| (0..self.spec.channels.len()).map(default).collect())
    }

    pub(super) fn decoder_channels(&self) -> Vec<usize> {
        let written = self
            .spec
            .decoder
            .as_ref()
            .and_then(|decoder| decoder.channels.clone());
        written.unwrap_or_else(|| self.spec.channels.iter().rev().copied().collect())
    }

    /// Appends the convolutions of the encoder. Returns the size of the image before the first and
    /// after each of them.
    pub(super) fn convolutions(
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
            steps.extend(self.normalization(outputs));
            steps.push(LayerSpec::Activate(self.spec.activation));
            self.blocks(outputs, steps);
            sizes.push((height.div_ceil(stride), width.div_ceil(stride)));
            inputs = outputs;
        }
        Ok(sizes)
    }

    /// Appends the convolutions of the decoder, with the numbers of channels in `channels` and the
    /// sizes of the encoder, `sizes`, in reverse order.
    pub(super) fn transposed(
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
            if !last {
                steps.extend(self.normalization(outputs));
            }
            steps.push(LayerSpec::Activate(if last {
                output
            } else {
                self.spec.activation
            }));
        }
    }

    pub(super) fn blocks(&self, channels: usize, steps: &mut Vec<LayerSpec>) {
        for _ in 0..self.spec.blocks {
            let conv = same(channels, channels, 3, 1);
            steps.extend([LayerSpec::SaveSkip, conv]);
            steps.extend(self.normalization(channels));
            steps.extend([LayerSpec::Activate(self.spec.activation), conv]);
            steps.extend(self.normalization(channels));
            steps.push(LayerSpec::AddSkip);
        }
    }
}
