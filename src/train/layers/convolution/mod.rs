//! Convolutions and transposed convolutions over images of `[height, width, channels]`, as products
//! of matrices of windows.

mod winograd;

use std::ops::Range;

use self::winograd::WinogradConvolution;
use super::rearrange::Rearrange;
use super::windows::KernelWindows;
use crate::train::aligned_values::AlignedValues;
use crate::train::elementwise::add_rows;
use crate::train::gemm::{Accumulate, Matrix, multiply};

/// Number of values of windows that are gathered at a time: 512 KiB stay in the cache of a core.
pub(crate) const BLOCK: usize = 1 << 17;

/// A convolution for images of one size.
///
/// Both kinds connect an image with a grid of points, one for each window: a convolution computes
/// points from an image, a transposed convolution computes an image from points. The weights are
/// `[depth, windows.values()]` for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvolutionLayer {
    /// The windows on the image.
    pub windows: KernelWindows,
    /// Channels of the points.
    pub depth: usize,
    /// Whether the input is points and the output is an image.
    pub transposed: bool,
}

/// Gradients with respect to the parameters of a convolution, summed over some records.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConvolutionGradients {
    /// Gradient by the weights, in the order of the layer.
    pub weight: Vec<f32>,
    /// Gradient by the bias.
    pub bias: Vec<f32>,
}

impl ConvolutionLayer {
    /// Returns the number of output values of a record.
    pub fn outputs(&self) -> usize {
        if self.transposed {
            self.windows.image_values()
        } else {
            self.points()
        }
    }

    /// Returns the number of multiplications of the forward pass for one record.
    pub(crate) fn multiplications(&self) -> usize {
        self.points() * self.windows.values()
    }

    fn points(&self) -> usize {
        self.windows.count[0] * self.windows.count[1] * self.depth
    }

    /// Returns the number of output channels.
    fn channels_out(&self) -> usize {
        if self.transposed {
            self.windows.channels
        } else {
            self.depth
        }
    }

    /// Returns the layer as tiles, if that takes fewer multiplications than windows.
    fn winograd(&self) -> Option<WinogradConvolution> {
        let KernelWindows {
            image,
            channels,
            kernel,
            stride,
            padding,
            ..
        } = self.windows;
        let has_tiles = !self.transposed && [kernel, stride, padding] == [3, 1, 1];
        has_tiles
            .then(|| WinogradConvolution::new(image, channels, self.depth))
            .flatten()
    }

    /// Converts a parameter, `[depth, channels, kernel, kernel]`, to the kernels that the passes
    /// take: the weights with the channels last, followed by their transform if the layer is
    /// computed by tiles.
    pub fn prepare(&self, parameter: &[f32], kernels: &mut AlignedValues) {
        kernels.reset(self.kernel_values());
        let (weights, transformed) = kernels.split_at_mut(parameter.len());
        self.order().apply(parameter, weights);
        if let Some(winograd) = self.winograd() {
            winograd.transform_kernels(weights, transformed);
        }
    }

    /// Returns the number of values of the kernels of [`Self::prepare`].
    pub(crate) fn kernel_values(&self) -> usize {
        let transformed = self
            .winograd()
            .map_or(0, |winograd| winograd.kernel_values());
        self.depth * self.windows.values() + transformed
    }

    /// Returns the maximum number of values of the buffer of the passes.
    pub(crate) fn buffer_values(&self) -> usize {
        let line = self.windows.count[1] * self.windows.values();
        self.winograd()
            .map_or(line.max(BLOCK), |winograd| winograd.buffer_values())
    }

    /// Returns the conversion of a parameter, `[depth, channels, kernel, kernel]`, to the weights
    /// of this layer, whose channels are last.
    pub fn order(&self) -> Rearrange {
        let KernelWindows {
            channels, kernel, ..
        } = self.windows;
        Rearrange::ToPixels {
            channels,
            pixels: kernel * kernel,
        }
    }

    /// Computes `output` from `input`; both hold all records, one after the other. `kernels` are
    /// those of [`Self::prepare`].
    pub fn forward(
        &self,
        kernels: &[f32],
        bias: &[f32],
        input: &[f32],
        output: &mut [f32],
        buffer: &mut AlignedValues,
    ) {
        output
            .chunks_exact_mut(bias.len())
            .for_each(|pixel| pixel.copy_from_slice(bias));
        let (weight, transformed) = self.split_kernels(kernels);
        if let Some(winograd) = self.winograd() {
            winograd.forward(transformed, input, output, buffer);
        } else if self.transposed {
            self.blocks(input.len(), buffer, |block| {
                let points = self.matrix(&input[block.points.clone()], block.windows);
                multiply(
                    points,
                    self.weights(weight),
                    block.rows,
                    Accumulate::Replace,
                );
                self.windows.scatter(block.rows, block.lines, output);
            });
        } else {
            self.blocks(output.len(), buffer, |block| {
                self.windows.gather(input, block.lines, block.rows);
                let rows = Matrix::new(block.rows, block.windows, self.windows.values());
                multiply(
                    rows,
                    self.weights(weight).transposed(),
                    &mut output[block.points],
                    Accumulate::Add,
                );
            });
        }
    }

    /// Adds the gradients with respect to weights and bias to `sums`. Computes the gradient with
    /// respect to the input if `input_gradient` is given. `output_gradient` is the gradient with
    /// respect to the output.
    pub(crate) fn backward(
        &self,
        kernels: &[f32],
        input: &[f32],
        output_gradient: &[f32],
        mut input_gradient: Option<&mut [f32]>,
        sums: &mut ConvolutionGradients,
        buffer: &mut AlignedValues,
    ) {
        add_rows(output_gradient, &mut sums.bias);
        let (weight, transformed) = self.split_kernels(kernels);
        let values = self.windows.values();
        if self.transposed {
            self.blocks(input.len(), buffer, |block| {
                self.windows
                    .gather(output_gradient, block.lines, block.rows);
                let rows = Matrix::new(block.rows, block.windows, values);
                let points = self.matrix(&input[block.points.clone()], block.windows);
                multiply(points.transposed(), rows, &mut sums.weight, Accumulate::Add);
                if let Some(input_gradient) = &mut input_gradient {
                    let out = &mut input_gradient[block.points];
                    multiply(
                        rows,
                        self.weights(weight).transposed(),
                        out,
                        Accumulate::Replace,
                    );
                }
            });
            return;
        }
        if let Some(input_gradient) = &mut input_gradient {
            input_gradient.fill(0.0);
        }
        if let Some(winograd) = self.winograd() {
            return winograd.backward(
                transformed,
                [input, output_gradient],
                input_gradient,
                &mut sums.weight,
                buffer,
            );
        }
        self.blocks(output_gradient.len(), buffer, |block| {
            self.windows.gather(input, block.lines.clone(), block.rows);
            let points = self.matrix(&output_gradient[block.points], block.windows);
            let rows = Matrix::new(block.rows, block.windows, values);
            multiply(points.transposed(), rows, &mut sums.weight, Accumulate::Add);
            if let Some(input_gradient) = &mut input_gradient {
                multiply(
                    points,
                    self.weights(weight),
                    block.rows,
                    Accumulate::Replace,
                );
                self.windows
                    .scatter(block.rows, block.lines, input_gradient);
            }
        });
    }

    /// Resets `sums` to 0 and reuses its buffers.
    pub fn clear(&self, sums: &mut ConvolutionGradients) {
        for (values, len) in [
            (&mut sums.weight, self.depth * self.windows.values()),
            (&mut sums.bias, self.channels_out()),
        ] {
            values.clear();
            values.resize(len, 0.0);
        }
    }

    fn split_kernels<'a>(&self, kernels: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        kernels.split_at(self.depth * self.windows.values())
    }

    fn weights<'a>(&self, weight: &'a [f32]) -> Matrix<'a> {
        Matrix::new(weight, self.depth, self.windows.values())
    }

    fn matrix<'a>(&self, points: &'a [f32], windows: usize) -> Matrix<'a> {
        Matrix::new(points, windows, self.depth)
    }

    /// Visits all windows, some lines at a time; `points` is the number of values of the points of
    /// all records.
    fn blocks(
        &self,
        points: usize,
        buffer: &mut AlignedValues,
        mut visit: impl FnMut(WindowBlock<'_>),
    ) {
        let across = self.windows.count[1];
        let lines = points / (across * self.depth).max(1);
        let line = across * self.windows.values();
        let step = (BLOCK / line.max(1)).clamp(1, lines.max(1));
        if buffer.len() < step * line {
            buffer.reset(step * line);
        }
        for first in (0..lines).step_by(step) {
            let lines = first..(first + step).min(lines);
            let windows = lines.start * across..lines.end * across;
            visit(WindowBlock {
                windows: windows.len(),
                points: windows.start * self.depth..windows.end * self.depth,
                rows: &mut buffer[..windows.len() * self.windows.values()],
                lines,
            });
        }
    }
}

/// A block of lines of windows.
struct WindowBlock<'a> {
    lines: Range<usize>,
    /// Number of windows.
    windows: usize,
    /// The values of the windows in the points.
    points: Range<usize>,
    /// Buffer for `[windows, values]`.
    rows: &'a mut [f32],
}

#[cfg(test)]
mod tests;
