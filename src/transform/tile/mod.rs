//! Tiling of images: cuts an image into overlapping tiles of one size, and merges them with linear
//! blending.

use std::ops::Range;

use crate::batch::reject::RejectCode;
use crate::image::pixel_format::{PixelFormat, TensorLayout};
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::tensor::all_finite;

/// The default side of a tile, in pixels.
pub(crate) const TILE: usize = 512;
/// The default overlap of adjacent tiles, in pixels.
pub(crate) const OVERLAP: usize = 32;

/// The tiling of images of one size. An image that fits into one tile is one tile, padded by
/// repetition of its edges.
#[derive(Debug)]
pub(crate) struct Tiling {
    planes: usize,
    interleaved: usize,
    height: usize,
    width: usize,
    down: TileAxis,
    across: TileAxis,
}

impl Tiling {
    /// Creates a tiling of images of `height` x `width` pixels with tiles of at most `cut.tile`
    /// pixels per side.
    pub(crate) fn new(format: &PixelFormat, (height, width): (usize, usize), cut: TileCut) -> Self {
        let channels = format.channels.count();
        let (planes, interleaved) = match format.layout {
            TensorLayout::Nchw => (channels, 1),
            TensorLayout::Nhwc => (1, channels),
        };
        Self {
            planes,
            interleaved,
            height,
            width,
            down: TileAxis::new(height, cut),
            across: TileAxis::new(width, cut),
        }
    }

    /// The number of tiles of an image.
    pub(crate) fn count(&self) -> usize {
        self.down.spans.len() * self.across.spans.len()
    }

    /// The height and width of every tile.
    pub(crate) fn side(&self) -> (usize, usize) {
        (self.down.side, self.across.side)
    }

    /// Appends the values of a tile of the image to `out`.
    pub(crate) fn cut(&self, image: &[f32], tile: usize, out: &mut Vec<f32>) {
        let (down, across) = self.spans(tile);
        for plane in 0..self.planes {
            for y in 0..self.down.side {
                let row = self.row(plane, (down.range.start + y).min(self.height - 1));
                let pixel = |x: usize| {
                    row + (across.range.start + x).min(self.width - 1) * self.interleaved
                };
                let inside = pixel(0)..pixel(across.range.len() - 1) + self.interleaved;
                out.extend_from_slice(&image[inside.clone()]);
                for _ in across.range.len()..self.across.side {
                    out.extend_from_slice(&image[inside.end - self.interleaved..inside.end]);
                }
            }
        }
    }

    /// Adds a tile of the output of the model to the image. The image is complete when all of its
    /// tiles are added.
    pub(crate) fn blend(&self, values: &[f32], tile: usize, image: &mut [f32]) {
        let (down, across) = self.spans(tile);
        let (side, tile_row) = (self.down.side, self.across.side * self.interleaved);
        for plane in 0..self.planes {
            for (y, down_weight) in down.weights.iter().enumerate() {
                let from = (plane * side + y) * tile_row;
                let to =
                    self.row(plane, down.range.start + y) + across.range.start * self.interleaved;
                for (x, across_weight) in across.weights.iter().enumerate() {
                    let weight = down_weight * across_weight;
                    for channel in x * self.interleaved..(x + 1) * self.interleaved {
                        image[to + channel] += weight * values[from + channel];
                    }
                }
            }
        }
    }

    /// Runs images of this size through a model whose output has the shape of its input, and adds
    /// the results to `out`, which must hold zeros at these positions. Calls `reject` for each
    /// failed image with its index in `images` and the reason.
    pub(crate) fn run(
        &self,
        chain: &mut SessionChain,
        format: &PixelFormat,
        images: &[PlacedImage<'_>],
        out: &mut [f32],
        reject: &mut dyn FnMut(usize, RejectCode, String),
    ) {
        let (height, width) = self.side();
        let shape = format.shape(height, width);
        let len = element_count(&shape).unwrap_or_default();
        let tiles: Vec<(usize, usize)> = (0..images.len())
            .flat_map(|image| (0..self.count()).map(move |tile| (image, tile)))
            .collect();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for slice in tiles.chunks(chain.slice_rows(len)) {
            inputs.clear();
            outputs.clear();
            slice
                .iter()
                .for_each(|&(image, tile)| self.cut(images[image].values, tile, &mut inputs));
            for failure in chain.run_rows(&inputs, &shape, len, &mut outputs) {
                reject(slice[failure.row].0, failure.code, failure.reason);
            }
            for (&(image, tile), values) in slice.iter().zip(outputs.chunks_exact(len)) {
                if !all_finite(values) {
                    let reason = "the model returned a result that is not finite".to_owned();
                    reject(image, RejectCode::NotFinite, reason);
                }
                let PlacedImage { values: image, at } = &images[image];
                self.blend(values, tile, &mut out[*at..at + image.len()]);
            }
        }
    }

    fn spans(&self, tile: usize) -> (&TileSpan, &TileSpan) {
        let columns = self.across.spans.len();
        (
            &self.down.spans[tile / columns],
            &self.across.spans[tile % columns],
        )
    }

    /// The index of the first value of a row of pixels.
    fn row(&self, plane: usize, y: usize) -> usize {
        (plane * self.height + y) * self.width * self.interleaved
    }
}

/// The values of an image, and the index of its first value in the output.
pub(crate) struct PlacedImage<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) at: usize,
}

/// The size and overlap of tiles, in pixels: `tile` is a multiple of `multiple`, and at least twice
/// `overlap`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileCut {
    /// The side of a tile, for images that exceed it.
    pub(crate) tile: usize,
    /// The overlap of adjacent tiles.
    pub(crate) overlap: usize,
    /// The number of which the sides of the input of the model are multiples.
    pub(crate) multiple: usize,
}

impl TileCut {
    /// Returns tiles of 512 pixels with an overlap of 32 pixels, rounded up if the model requires
    /// sides that are multiples of `multiple`.
    pub(crate) fn default_for(multiple: usize) -> Self {
        Self {
            tile: TILE.next_multiple_of(multiple.max(1)),
            overlap: OVERLAP,
            multiple: multiple.max(1),
        }
    }
}

/// The tiling along one axis of an image.
#[derive(Debug)]
struct TileAxis {
    side: usize,
    spans: Vec<TileSpan>,
}

/// The pixels of the image that a tile covers along one axis, and the weight of the tile for each
/// of them. The weights of all tiles that cover a pixel add up to 1.
#[derive(Debug)]
struct TileSpan {
    range: Range<usize>,
    weights: Vec<f32>,
}

impl TileAxis {
    fn new(len: usize, cut: TileCut) -> Self {
        if len <= cut.tile {
            let span = TileSpan {
                range: 0..len,
                weights: vec![1.0; len],
            };
            return Self {
                side: len.next_multiple_of(cut.multiple),
                spans: vec![span],
            };
        }
        let overlap = cut
            .overlap
            .next_multiple_of(cut.multiple)
            .min(cut.tile - cut.multiple);
        let count = (len - overlap).div_ceil(cut.tile - overlap);
        // The number of tiles follows from the maximum side, and the side is then as small as that
        // number allows, because overlapping pixels are computed twice.
        let side = (len + (count - 1) * overlap)
            .div_ceil(count)
            .next_multiple_of(cut.multiple);
        // Tiles start at multiples from the start of the image, so that a network that groups
        // pixels into blocks processes the same blocks as in the complete image. The last tile can
        // therefore extend beyond the image, and is padded as the image would be.
        let starts: Vec<usize> = (0..count).map(|tile| tile * (side - overlap)).collect();
        let ramp = |at: usize| (at + 1).min(side - at).min(overlap + 1) as f32;
        let covered = |start: usize| start..len.min(start + side);
        let mut sums = vec![0.0_f32; len];
        for &start in &starts {
            sums[covered(start)]
                .iter_mut()
                .enumerate()
                .for_each(|(at, sum)| *sum += ramp(at));
        }
        let spans = starts.into_iter().map(|start| {
            let range = covered(start);
            let weights = range
                .clone()
                .map(|pixel| ramp(pixel - start) / sums[pixel])
                .collect();
            TileSpan { range, weights }
        });
        Self {
            side,
            spans: spans.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
