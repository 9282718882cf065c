//! Convolutions of 3x3 pixels by minimal filtering, F(4x4, 3x3): a tile of 4x4 outputs takes 36
//! multiplications for each pair of channels instead of 144 (Winograd, "Arithmetic Complexity of
//! Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016).
//!
//! With the transforms `B`, `G` and `A` of the points 0, 1, -1, 2, -2 and infinity, the outputs are
//! `A' [(G g G') * (B' d B)] A` for a tile `d` of 6x6 inputs and a kernel `g`. Summed over channels,
//! the product in brackets is one matrix product for each of the 36 positions. The gradients are
//! those of this formula: `A dy A'` for the products, and from them `B v B'` for the inputs and
//! `G' u G` for the kernel.

mod tiles;
mod transforms;

use std::ops::Range;

use self::tiles::ImageTiles;
use self::transforms::{
    OfInput, OfInputGradient, OfKernel, OfKernelGradient, OfOutputGradient, OfProducts, transform,
};
use crate::train::aligned_values::AlignedValues;
use crate::train::gemm::{Accumulate, Matrix, multiply};

/// Height and width of a tile of inputs and of the products.
const TILE: usize = 6;
/// Height and width of a tile of outputs.
const OUTPUTS: usize = 4;
/// Number of products of a tile.
const POSITIONS: usize = TILE * TILE;
/// Numbers of channels are multiples of it: the number of values of the largest SIMD registers.
const LANES: usize = 16;
/// Number of values of transformed tiles that exist at a time: 1 MiB, half the cache of a core.
const BLOCK: usize = 1 << 18;

/// A convolution of 3x3 pixels with stride 1 and padding 1, whose numbers of channels are multiples
/// of [`LANES`].
#[derive(Debug, Clone, Copy)]
pub(super) struct WinogradConvolution {
    inputs: ImageTiles,
    outputs: ImageTiles,
    /// Maximum number of tiles of a block.
    block: usize,
}

impl WinogradConvolution {
    /// Returns the convolution of images of `[height, width]` from `channels` to `depth` channels;
    /// `None` if it is not supported, or if tiles have as many products as windows.
    pub fn new(image: [usize; 2], channels: usize, depth: usize) -> Option<Self> {
        let is_supported = [channels, depth]
            .iter()
            .all(|&count| count > 0 && count.is_multiple_of(LANES));
        if !is_supported || image.iter().any(|&side| side < OUTPUTS) {
            return None;
        }
        let block = (BLOCK / (POSITIONS * (channels + depth))).next_multiple_of(8);
        // Positions whose addresses differed by a multiple of a page would share few lines of the
        // cache.
        let tiles = |count, before| ImageTiles {
            image,
            channels: count,
            before,
            plane: block * count + LANES,
        };
        Some(Self {
            inputs: tiles(channels, 1),
            outputs: tiles(depth, 0),
            block,
        })
    }

    /// Returns the number of values of the transformed kernels.
    pub fn kernel_values(&self) -> usize {
        2 * self.gradients()
    }

    /// Returns the number of values of the buffer of [`Self::forward`] and [`Self::backward`].
    pub fn buffer_values(&self) -> usize {
        self.planes() + self.gradients()
    }

    fn planes(&self) -> usize {
        POSITIONS * (self.inputs.plane + self.outputs.plane)
    }

    /// Returns the number of values of the gradients with respect to transformed kernels.
    fn gradients(&self) -> usize {
        POSITIONS * self.inputs.channels * self.outputs.channels
    }

    /// Transforms kernels `[depth, 3, 3, channels]` into `[positions, channels, depth]`, followed
    /// by the same as `[positions, depth, channels]`.
    pub fn transform_kernels(&self, weight: &[f32], transformed: &mut [f32]) {
        let (channels, depths) = (self.inputs.channels, self.outputs.channels);
        let size = channels * depths;
        let (by_channel, by_depth) = transformed.split_at_mut(POSITIONS * size);
        for (depth, kernel) in weight.chunks_exact(9 * channels).enumerate() {
            for channel in 0..channels {
                let mut tile = [[0.0; 3]; 3];
                let values = kernel.iter().skip(channel).step_by(channels);
                tile.as_flattened_mut()
                    .iter_mut()
                    .zip(values)
                    .for_each(|(to, from)| *to = *from);
                let products = transform::<OfKernel, f32, 3, TILE>(&tile);
                for (position, value) in products.as_flattened().iter().enumerate() {
                    by_depth[position * size + depth * channels + channel] = *value;
                }
            }
        }
        for (transposed, matrix) in by_channel
            .chunks_exact_mut(size)
            .zip(by_depth.chunks_exact(size))
        {
            for (channel, row) in transposed.chunks_exact_mut(depths).enumerate() {
                let column = matrix[channel..].iter().step_by(channels);
                row.iter_mut()
                    .zip(column)
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Adds the convolution of `input` to `output`; both hold all records, one after the other.
    pub fn forward(
        &self,
        kernels: &[f32],
        input: &[f32],
        output: &mut [f32],
        buffer: &mut AlignedValues,
    ) {
        let (channels, depth) = (self.inputs.channels, self.outputs.channels);
        let (by_channel, _) = kernels.split_at(self.gradients());
        let matrices = by_channel.chunks_exact(channels * depth);
        self.blocks(input.len(), buffer, |block| {
            let tiles = block.tiles.len();
            self.inputs
                .gather::<OfInput, TILE>(input, block.tiles.clone(), block.inputs);
            let planes = self.positions(tiles, block.inputs, block.outputs);
            for ((values, products), kernel) in planes.zip(matrices.clone()) {
                let kernel = Matrix::new(kernel, channels, depth);
                let values = Matrix::new(values, tiles, channels);
                multiply(values, kernel, products, Accumulate::Replace);
            }
            self.outputs
                .scatter::<OfProducts, OUTPUTS>(block.outputs, block.tiles, output);
        });
    }

    /// Adds the gradient with respect to the kernels to `sums`, `[depth, 3, 3, channels]`, and the
    /// gradient with respect to the input to `input_gradient`, if it is given.
    pub fn backward(
        &self,
        kernels: &[f32],
        [input, output_gradient]: [&[f32]; 2],
        mut input_gradient: Option<&mut [f32]>,
        sums: &mut [f32],
        buffer: &mut AlignedValues,
    ) {
        let (channels, depth) = (self.inputs.channels, self.outputs.channels);
        let (_, by_depth) = kernels.split_at(self.gradients());
        let matrices = by_depth.chunks_exact(channels * depth);
        let mut accumulate = Accumulate::Replace;
        self.blocks(input.len(), buffer, |block| {
            let tiles = block.tiles.len();
            self.inputs
                .gather::<OfInput, TILE>(input, block.tiles.clone(), block.inputs);
            self.outputs.gather::<OfOutputGradient, OUTPUTS>(
                output_gradient,
                block.tiles.clone(),
                block.outputs,
            );
            let planes = self.positions(tiles, block.inputs, block.outputs);
            let gradients = block.gradients.chunks_exact_mut(channels * depth);
            let planes = planes.zip(matrices.clone()).zip(gradients);
            for (((values, products), kernel), sum) in planes {
                let products = Matrix::new(products, tiles, depth);
                let inputs = Matrix::new(values, tiles, channels);
                multiply(products.transposed(), inputs, sum, accumulate);
                if input_gradient.is_some() {
                    let kernel = Matrix::new(kernel, depth, channels);
                    multiply(products, kernel, values, Accumulate::Replace);
                }
            }
            if let Some(gradient) = &mut input_gradient {
                self.inputs
                    .scatter::<OfInputGradient, TILE>(block.inputs, block.tiles, gradient);
            }
            accumulate = Accumulate::Add;
        });
        if accumulate == Accumulate::Add {
            self.add_kernel_gradients(&buffer[self.planes()..], sums);
        }
    }

    /// Visits all tiles, some at a time; `values` is the number of values of all inputs.
    fn blocks(
        &self,
        values: usize,
        buffer: &mut AlignedValues,
        mut visit: impl FnMut(TileBlock<'_>),
    ) {
        let [height, width] = self.inputs.image;
        let records = values / (height * width * self.inputs.channels);
        let count = records * self.inputs.count();
        if buffer.len() < self.buffer_values() {
            buffer.reset(self.buffer_values());
        }
        for first in (0..count).step_by(self.block) {
            let (planes, gradients) = buffer.split_at_mut(self.planes());
            let (inputs, outputs) = planes.split_at_mut(POSITIONS * self.inputs.plane);
            visit(TileBlock {
                tiles: first..(first + self.block).min(count),
                inputs,
                outputs,
                gradients,
            });
        }
    }

    /// Returns the values of the inputs and outputs of `tiles` tiles for each position.
    fn positions<'a>(
        &self,
        tiles: usize,
        inputs: &'a mut [f32],
        outputs: &'a mut [f32],
    ) -> impl Iterator<Item = (&'a mut [f32], &'a mut [f32])> + use<'a> {
        let lengths = [self.inputs.channels, self.outputs.channels].map(|count| count * tiles);
        let planes = inputs
            .chunks_exact_mut(self.inputs.plane)
            .zip(outputs.chunks_exact_mut(self.outputs.plane));
        planes
            .map(move |(values, products)| (&mut values[..lengths[0]], &mut products[..lengths[1]]))
    }

    /// Transforms gradients `[positions, depth, channels]` and adds them to `[depth, 3, 3,
    /// channels]`.
    fn add_kernel_gradients(&self, gradients: &[f32], sums: &mut [f32]) {
        let channels = self.inputs.channels;
        let size = channels * self.outputs.channels;
        for (depth, kernel) in sums.chunks_exact_mut(9 * channels).enumerate() {
            for channel in 0..channels {
                let mut tile = [[0.0; TILE]; TILE];
                let values = gradients[depth * channels + channel..].iter().step_by(size);
                tile.as_flattened_mut()
                    .iter_mut()
                    .zip(values)
                    .for_each(|(to, from)| *to = *from);
                let transformed = transform::<OfKernelGradient, f32, TILE, 3>(&tile);
                let of_channel = kernel.iter_mut().skip(channel).step_by(channels);
                of_channel
                    .zip(transformed.as_flattened())
                    .for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// A block of tiles, and its parts of the buffer.
struct TileBlock<'a> {
    tiles: Range<usize>,
    /// `[positions, tiles, channels]`.
    inputs: &'a mut [f32],
    /// `[positions, tiles, depth]`.
    outputs: &'a mut [f32],
    /// `[positions, depth, channels]`.
    gradients: &'a mut [f32],
}
