//! Tiling of images: cuts an image into overlapping tiles of one size, and merges them with linear
//! blending.

use std::ops::Range;

use crate::batch::RejectCode;
use crate::image::pixel_format::{PixelFormat, TensorLayout};
use crate::model::session::SessionChain;
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
mod tests {
    use super::*;
    use crate::image::pixel_format::Channels;

    fn format(layout: TensorLayout) -> PixelFormat {
        PixelFormat {
            layout,
            channels: Channels::Rgb,
            ..PixelFormat::default()
        }
    }

    /// Cuts an image into tiles, merges the unchanged tiles, and checks that the result equals the
    /// image.
    fn cut_and_merge(
        layout: TensorLayout,
        height: usize,
        width: usize,
        cut: TileCut,
    ) -> (usize, (usize, usize)) {
        let tiling = Tiling::new(&format(layout), (height, width), cut);
        let image: Vec<f32> = (0..3 * height * width)
            .map(|value| (value % 251) as f32)
            .collect();
        let mut back = vec![0.0; image.len()];
        for tile in 0..tiling.count() {
            let mut values = Vec::new();
            tiling.cut(&image, tile, &mut values);
            assert_eq!(values.len(), 3 * tiling.side().0 * tiling.side().1);
            tiling.blend(&values, tile, &mut back);
        }
        let worst = image
            .iter()
            .zip(&back)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-4, "off by {worst}");
        (tiling.count(), tiling.side())
    }

    #[test]
    fn image_is_restored_from_tiles_in_all_layouts_and_sizes() {
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            let cut = TileCut {
                tile: 16,
                overlap: 4,
                multiple: 4,
            };
            assert_eq!(cut_and_merge(layout, 16, 16, cut), (1, (16, 16)));
            assert_eq!(cut_and_merge(layout, 5, 7, cut), (1, (8, 8)));
            assert_eq!(cut_and_merge(layout, 1, 1, cut), (1, (4, 4)));
            assert_eq!(cut_and_merge(layout, 17, 40, cut), (6, (12, 16)));
            assert_eq!(cut_and_merge(layout, 100, 3, cut), (8, (16, 4)));
            assert_eq!(
                cut_and_merge(layout, 33, 33, TileCut { overlap: 0, ..cut }),
                (9, (12, 12))
            );
        }
    }

    #[test]
    fn blending_weights_are_linear() {
        let axis = TileAxis::new(
            13,
            TileCut {
                tile: 8,
                overlap: 3,
                multiple: 1,
            },
        );
        let weights: Vec<&[f32]> = axis
            .spans
            .iter()
            .map(|span| span.weights.as_slice())
            .collect();
        assert_eq!(
            weights,
            [
                &[1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25],
                &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
            ]
        );
    }

    #[test]
    fn small_image_is_padded_with_its_edges() {
        let gray = PixelFormat {
            channels: Channels::Gray,
            ..PixelFormat::default()
        };
        let tiling = Tiling::new(
            &gray,
            (2, 3),
            TileCut {
                tile: 4,
                overlap: 0,
                multiple: 4,
            },
        );
        let mut padded = Vec::new();
        tiling.cut(&[1., 2., 3., 4., 5., 6.], 0, &mut padded);
        assert_eq!(
            padded,
            [
                1., 2., 3., 3., 4., 5., 6., 6., 4., 5., 6., 6., 4., 5., 6., 6.
            ]
        );
    }
}
