//! Dead-leaves images: opaque discs of all sizes that occlude each other, the simplest model with
//! the statistics of natural images (Lee, Mumford, Huang, "Occlusion models for natural images",
//! IJCV 41, 2001).

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Bounds of the radii, as fractions of the image's shorter side. Radii have density r^-3, which
/// makes the statistics of the image the same at every scale.
const RADII: [f64; 2] = [1.0 / 48.0, 1.0 / 3.0];
/// Bounds of the smallest radius in pixels, so that small images have edges and large ones have
/// detail.
const SMALLEST: [f64; 2] = [1.5, 16.0];
/// Maximum number of leaves for each pixel. The image is almost certainly covered long before; the
/// maximum bounds the work.
const LEAVES_PER_PIXEL: usize = 16;

/// Draws an image and returns its RGB bytes, row after row.
pub(crate) fn draw(rng: &mut ChaCha8Rng, height: usize, width: usize) -> Vec<u8> {
    let palette = Palette::draw(rng);
    let mut plane = Plane::new(height, width, palette.color(rng));
    let side = height.min(width) as f64;
    let smallest = (RADII[0] * side).clamp(SMALLEST[0], SMALLEST[1]);
    let largest = (RADII[1] * side).max(2.0 * smallest);
    for _ in 0..height * width * LEAVES_PER_PIXEL {
        if plane.uncovered == 0 {
            break;
        }
        let radius = radius(rng, smallest, largest);
        // The center may lie outside of the image by up to the largest radius.
        let y = rng.random_range(-largest..height as f64 + largest);
        let x = rng.random_range(-largest..width as f64 + largest);
        plane.cover(y, x, radius, || palette.color(rng));
    }
    blur(&mut plane.pixels, height, width);
    plane.pixels
}

/// Draws a radius by inversion of the distribution function.
fn radius(rng: &mut ChaCha8Rng, smallest: f64, largest: f64) -> f64 {
    let (from, to) = (smallest.powi(-2), largest.powi(-2));
    (from + rng.random::<f64>() * (to - from)).sqrt().recip()
}

/// The light of a scene. Photographs differ in brightness, contrast and tint, and vary more in luma
/// than in color.
struct Palette {
    luma: f64,
    contrast: f64,
    tint: [f64; 2],
}

impl Palette {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut normal = || rng.sample::<f64, _>(StandardNormal);
        Self {
            luma: 115.0 + 25.0 * normal(),
            contrast: 45.0 + 10.0 * normal(),
            tint: [7.0 * normal(), 7.0 * normal()],
        }
    }

    /// Draws a color, converted from luma and chroma by the inverse of the transform of ITU-R
    /// BT.601.
    fn color(&self, rng: &mut ChaCha8Rng) -> [u8; 3] {
        let mut normal = || rng.sample::<f64, _>(StandardNormal);
        let luma = self.luma + self.contrast * normal();
        let [blue, red] = self.tint.map(|tint| tint + 10.0 * normal());
        [
            luma + 1.402 * red,
            luma - 0.344_136 * blue - 0.714_136 * red,
            luma + 1.772 * blue,
        ]
        .map(|level| level.round().clamp(0.0, 255.0) as u8)
    }
}

/// An image that is covered from front to back: each pixel keeps the first leaf that covers it.
struct Plane {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
    /// For each position of a row, and one beyond its end, a position at or after it such that all
    /// pixels in between are covered.
    next: Vec<u32>,
    uncovered: usize,
}

impl Plane {
    fn new(height: usize, width: usize, ground: [u8; 3]) -> Self {
        // The plan bounds the number of pixels of an image and thus its width.
        let columns = 0..=u32::try_from(width).unwrap_or(u32::MAX);
        let next = (0..height).flat_map(|_| columns.clone()).collect();
        Self {
            height,
            width,
            pixels: ground.repeat(height * width),
            next,
            uncovered: height * width,
        }
    }

    /// Places a disc below the existing leaves. Its color is drawn only if some of its pixels are
    /// visible.
    fn cover(&mut self, y: f64, x: f64, radius: f64, draw: impl FnOnce() -> [u8; 3]) {
        let color = std::cell::LazyCell::new(draw);
        for row in inside(y - radius, y + radius, self.height) {
            let half = (radius * radius - (row as f64 + 0.5 - y).powi(2))
                .max(0.0)
                .sqrt();
            let span = inside(x - half, x + half, self.width);
            let next = &mut self.next[row * (self.width + 1)..(row + 1) * (self.width + 1)];
            let mut column = uncovered(next, span.start);
            while column < span.end {
                self.pixels[(row * self.width + column) * 3..][..3].copy_from_slice(&*color);
                self.uncovered -= 1;
                next[column] = column as u32 + 1;
                column = uncovered(next, column + 1);
            }
        }
    }
}

/// Returns the pixels whose centers lie between two coordinates.
fn inside(from: f64, to: f64, len: usize) -> std::ops::Range<usize> {
    let column = |at: f64| (at - 0.5).ceil().clamp(0.0, len as f64) as usize;
    column(from)..column(to)
}

/// Returns the first uncovered position at or after `from`. Each step halves the path that it
/// follows, so that covered runs are skipped quickly.
fn uncovered(next: &mut [u32], from: usize) -> usize {
    let mut column = from;
    while next[column] as usize != column {
        next[column] = next[next[column] as usize];
        column = next[column] as usize;
    }
    column
}

/// Blurs the edges with weights 1, 2, 1 along rows and columns, as a lens does.
fn blur(pixels: &mut [u8], height: usize, width: usize) {
    let weigh = |before: u8, here: u8, after: u8| {
        ((u16::from(before) + 2 * u16::from(here) + u16::from(after) + 2) / 4) as u8
    };
    for row in pixels.chunks_exact_mut(width * 3) {
        let mut before = [row[0], row[1], row[2]];
        for index in 0..row.len() {
            let here = row[index];
            let after = row.get(index + 3).copied().unwrap_or(here);
            row[index] = weigh(before[index % 3], here, after);
            before[index % 3] = here;
        }
    }
    let mut row_before = pixels[..width * 3].to_vec();
    for row in 0..height {
        let start = row * width * 3;
        for (index, before) in row_before.iter_mut().enumerate() {
            let here = pixels[start + index];
            let after = pixels
                .get(start + width * 3 + index)
                .copied()
                .unwrap_or(here);
            pixels[start + index] = weigh(*before, here, after);
            *before = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn image(seed: u64, height: usize, width: usize) -> Vec<u8> {
        draw(&mut ChaCha8Rng::seed_from_u64(seed), height, width)
    }

    #[test]
    fn seed_and_size_determine_the_image() {
        for (height, width) in [(1, 1), (1, 40), (40, 1), (64, 64), (33, 70)] {
            assert_eq!(image(1, height, width).len(), height * width * 3);
            assert_eq!(image(1, height, width), image(1, height, width));
        }
        assert_ne!(image(1, 64, 64), image(2, 64, 64));
    }

    #[test]
    fn leaf_covers_only_uncovered_pixels() {
        let mut plane = Plane::new(3, 5, [0; 3]);
        plane.cover(1.5, 1.5, 1.1, || [1; 3]);
        plane.cover(1.5, 2.5, 10.0, || [2; 3]);
        let reds: Vec<u8> = plane.pixels.iter().step_by(3).copied().collect();
        assert_eq!(reds, [2, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 1, 2, 2, 2]);
        assert_eq!(plane.uncovered, 0);
    }

    #[test]
    fn adjacent_pixels_are_alike_and_distant_pixels_are_not() {
        let difference = |distance: usize| -> f64 {
            let images = (0..20).map(|seed| {
                let image = image(seed, 64, 64);
                let rows = image.chunks_exact(64 * 3);
                let pairs = rows.map(|row| f64::from(row[90].abs_diff(row[90 - distance * 3])));
                pairs.sum::<f64>() / 64.0
            });
            images.sum::<f64>() / 20.0
        };
        let (near, far) = (difference(1), difference(30));
        assert!(near < 0.35 * far && far > 20.0, "{near} {far}");
    }

    #[test]
    fn blur_does_not_change_an_image_of_one_color() {
        let mut pixels = [7, 8, 9].repeat(12);
        blur(&mut pixels, 3, 4);
        assert_eq!(pixels, [7, 8, 9].repeat(12));
    }
}
