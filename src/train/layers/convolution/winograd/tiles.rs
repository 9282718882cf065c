//! Tiles of images, gathered as transformed values and scattered back.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::transforms::{Lanes, LineTransform, transform};
use super::{OUTPUTS, TILE};
use crate::system::simd_kernel;

/// The index of a pixel outside of its image.
const OUTSIDE: usize = usize::MAX;

/// The tiles of images `[height, width, channels]`, numbered consecutively through all images.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageTiles {
    /// Height and width of the images.
    pub image: [usize; 2],
    /// Channels of the images.
    pub channels: usize,
    /// Number of pixels by which a tile starts before its outputs.
    pub before: usize,
    /// Number of values from one position of the transformed tiles to the next.
    pub plane: usize,
}

impl ImageTiles {
    /// Returns the number of tiles of an image.
    pub fn count(&self) -> usize {
        self.tiles().iter().product()
    }

    fn tiles(&self) -> [usize; 2] {
        self.image.map(|side| side.div_ceil(OUTPUTS))
    }

    /// Returns the index of the first channel of each pixel of a tile; [`OUTSIDE`] if the pixel lies
    /// outside of the image.
    #[inline(always)]
    fn pixels<const N: usize>(&self, tile: usize) -> [[usize; N]; N] {
        let ([height, width], [down, across]) = (self.image, self.tiles());
        let (record, position) = (tile / (down * across), tile % (down * across));
        let (top, left) = (position / across * OUTPUTS, position % across * OUTPUTS);
        let mut pixels = [[OUTSIDE; N]; N];
        for (row, line) in pixels.iter_mut().enumerate() {
            let y = (top + row).wrapping_sub(self.before);
            for (column, pixel) in line.iter_mut().enumerate() {
                let x = (left + column).wrapping_sub(self.before);
                if y < height && x < width {
                    *pixel = ((record * height + y) * width + x) * self.channels;
                }
            }
        }
        pixels
    }

    /// Transforms the pixels of tiles into `[positions, tiles, channels]`.
    pub fn gather<T: LineTransform<I, TILE>, const I: usize>(
        &self,
        images: &[f32],
        tiles: Range<usize>,
        planes: &mut [f32],
    ) {
        simd_kernel(Gather {
            images: self,
            pixels: images,
            tiles,
            planes,
            transform: PhantomData::<T>,
        });
    }

    /// Transforms `[positions, tiles, channels]` and adds them to the pixels of tiles.
    pub fn scatter<T: LineTransform<TILE, O>, const O: usize>(
        &self,
        planes: &[f32],
        tiles: Range<usize>,
        images: &mut [f32],
    ) {
        simd_kernel(Scatter {
            images: self,
            pixels: images,
            tiles,
            planes,
            transform: PhantomData::<T>,
        });
    }
}

struct Gather<'a, T, const I: usize> {
    images: &'a ImageTiles,
    pixels: &'a [f32],
    tiles: Range<usize>,
    planes: &'a mut [f32],
    transform: PhantomData<T>,
}

impl<T: LineTransform<I, TILE>, const I: usize> WithSimd for Gather<'_, T, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ImageTiles {
            channels, plane, ..
        } = *self.images;
        let zero = Lanes::zero(simd);
        for (number, tile) in self.tiles.enumerate() {
            let pixels = self.images.pixels::<I>(tile);
            for channel in (0..channels).step_by(S::F32_LANES) {
                let mut values = [[zero; I]; I];
                for (line, places) in values.iter_mut().zip(&pixels) {
                    for (value, &pixel) in line.iter_mut().zip(places) {
                        if pixel != OUTSIDE {
                            *value = Lanes::read(simd, &self.pixels[pixel + channel..]);
                        }
                    }
                }
                let transformed = transform::<T, _, I, TILE>(&values);
                let first = number * channels + channel;
                for (row, line) in transformed.into_iter().enumerate() {
                    for (column, value) in line.into_iter().enumerate() {
                        value.write(&mut self.planes[first + (row * TILE + column) * plane..]);
                    }
                }
            }
        }
    }
}

struct Scatter<'a, T, const O: usize> {
    images: &'a ImageTiles,
    pixels: &'a mut [f32],
    tiles: Range<usize>,
    planes: &'a [f32],
    transform: PhantomData<T>,
}

impl<T: LineTransform<TILE, O>, const O: usize> WithSimd for Scatter<'_, T, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ImageTiles {
            channels, plane, ..
        } = *self.images;
        let zero = Lanes::zero(simd);
        for (number, tile) in self.tiles.enumerate() {
            let pixels = self.images.pixels::<O>(tile);
            for channel in (0..channels).step_by(S::F32_LANES) {
                let first = number * channels + channel;
                let mut values = [[zero; TILE]; TILE];
                for (row, line) in values.iter_mut().enumerate() {
                    for (column, value) in line.iter_mut().enumerate() {
                        let at = first + (row * TILE + column) * plane;
                        *value = Lanes::read(simd, &self.planes[at..]);
                    }
                }
                let transformed = transform::<T, _, TILE, O>(&values);
                for (line, places) in transformed.into_iter().zip(&pixels) {
                    for (value, &pixel) in line.into_iter().zip(places) {
                        if pixel != OUTSIDE {
                            value.add_to(&mut self.pixels[pixel + channel..]);
                        }
                    }
                }
            }
        }
    }
}
