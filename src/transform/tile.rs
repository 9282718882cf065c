//! Images cut into overlapping tiles of one size, and put together again with linear seams.

use std::ops::Range;

use crate::batch::RejectCode;
use crate::image::pixel_format::{PixelFormat, TensorLayout};
use crate::model::session::SessionChain;
use crate::model::tensor_spec::values;
use crate::tensor::all_finite;

/// Side of a tile, and how far neighbours reach into each other, where nobody says otherwise; in
/// pixels.
pub(crate) const TILE: usize = 512;
pub(crate) const OVERLAP: usize = 32;

/// How images of one size are cut. An image that is no larger than a tile is one tile, padded by
/// repeating its edges.
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
    /// For images of `height` x `width`: tiles of at most `cut.tile` a side.
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

    /// How many tiles an image has.
    pub(crate) fn count(&self) -> usize {
        self.down.spans.len() * self.across.spans.len()
    }

    /// Height and width of every tile.
    pub(crate) fn side(&self) -> (usize, usize) {
        (self.down.side, self.across.side)
    }

    /// Appends a tile of the image to `out`.
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

    /// Adds a tile, as the model gave it, to the image; when all its tiles are added, the image is
    /// whole.
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

    /// Runs images of this size through a model that gives the shape it takes, and adds what comes
    /// out to `out`, which holds zeros there. `refuse` is told the place among `images` of each
    /// that failed, and why.
    pub(crate) fn run(
        &self,
        chain: &mut SessionChain,
        format: &PixelFormat,
        images: &[PlacedImage<'_>],
        out: &mut [f32],
        refuse: &mut dyn FnMut(usize, RejectCode, String),
    ) {
        let (height, width) = self.side();
        let shape = format.shape(height, width);
        let len = values(&shape).unwrap_or_default();
        let tiles: Vec<(usize, usize)> = (0..images.len())
            .flat_map(|image| (0..self.count()).map(move |tile| (image, tile)))
            .collect();
        let (mut given, mut made) = (Vec::new(), Vec::new());
        for tiles in tiles.chunks(chain.slice_rows(len)) {
            given.clear();
            made.clear();
            tiles
                .iter()
                .for_each(|&(image, tile)| self.cut(images[image].values, tile, &mut given));
            for failure in chain.run_rows(&given, &shape, len, &mut made) {
                refuse(tiles[failure.row].0, RejectCode::Model, failure.reason);
            }
            for (&(image, tile), values) in tiles.iter().zip(made.chunks_exact(len)) {
                if !all_finite(values) {
                    let reason = "the model gave a result that is not finite".to_owned();
                    refuse(image, RejectCode::NotFinite, reason);
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

    /// Where a row of pixels begins.
    fn row(&self, plane: usize, y: usize) -> usize {
        (plane * self.height + y) * self.width * self.interleaved
    }
}

/// The values of an image, and where in an output its own begin.
pub(crate) struct PlacedImage<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) at: usize,
}

/// How large tiles are, in pixels: `tile` is a multiple of `multiple`, and at least twice
/// `overlap`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileCut {
    /// Side of a tile, for images that exceed it.
    pub(crate) tile: usize,
    /// How far neighbours reach into each other.
    pub(crate) overlap: usize,
    /// Sides that the model takes are multiples of this.
    pub(crate) multiple: usize,
}

impl TileCut {
    /// Tiles of 512 that overlap by 32, or a little more where the model needs sides of a
    /// `multiple`.
    pub(crate) fn usual(multiple: usize) -> Self {
        Self {
            tile: TILE.next_multiple_of(multiple.max(1)),
            overlap: OVERLAP,
            multiple: multiple.max(1),
        }
    }
}

/// One direction of an image, cut.
#[derive(Debug)]
struct TileAxis {
    side: usize,
    spans: Vec<TileSpan>,
}

/// The pixels of the image that a tile covers in one direction, and what it contributes to each:
/// over all tiles that cover a pixel, weights add up to 1.
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
        // As many tiles as the greatest side asks for, but no larger than they must be: what
        // overlaps is computed twice.
        let side = (len + (count - 1) * overlap)
            .div_ceil(count)
            .next_multiple_of(cut.multiple);
        // Tiles begin where the image does, or multiples behind: a network that takes pixels in
        // blocks then sees the same blocks as in the whole image. So the last one may reach beyond,
        // and is padded as the image would be.
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

    /// Cuts an image, leaves its tiles as they are, and puts it together.
    fn there_and_back(
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
    fn an_image_survives_being_cut_in_every_layout_and_size() {
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            let cut = TileCut {
                tile: 16,
                overlap: 4,
                multiple: 4,
            };
            assert_eq!(there_and_back(layout, 16, 16, cut), (1, (16, 16)));
            assert_eq!(there_and_back(layout, 5, 7, cut), (1, (8, 8)));
            assert_eq!(there_and_back(layout, 1, 1, cut), (1, (4, 4)));
            assert_eq!(there_and_back(layout, 17, 40, cut), (6, (12, 16)));
            assert_eq!(there_and_back(layout, 100, 3, cut), (8, (16, 4)));
            assert_eq!(
                there_and_back(layout, 33, 33, TileCut { overlap: 0, ..cut }),
                (9, (12, 12))
            );
        }
    }

    #[test]
    fn seams_are_linear() {
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
    fn a_small_image_is_padded_with_its_edge() {
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
