//! Antialiased bilinear resizing of 8-bit pixels, equal to Pillow's `BILINEAR` within 1.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::image::decode::Pixels;
use crate::image::error::ImageError;
use crate::image::format::Channels;

/// What becomes of an image whose sides are not in the target's proportion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Each side is resized on its own: nothing is lost, the proportion changes.
    #[default]
    Stretch,
    /// The short side is resized to fit, what the long side has too much is cut off on both ends.
    Crop,
    /// The long side is resized to fit, what the short side lacks is black on both ends.
    Pad,
}

/// Resizes images to one size; its buffers are used again for every image.
pub struct Resizer {
    height: usize,
    width: usize,
    fit: Fit,
    inner: fast_image_resize::Resizer,
    /// The resized image before it is padded.
    unpadded: Vec<u8>,
    resized: Vec<u8>,
}

impl Resizer {
    /// A resizer to `height` x `width` pixels, both above 0.
    pub fn new(height: usize, width: usize, fit: Fit) -> Self {
        let inner = fast_image_resize::Resizer::new();
        Self { height, width, fit, inner, unpadded: Vec::new(), resized: Vec::new() }
    }

    /// The resized image: `height * width * channels` bytes, interleaved.
    ///
    /// # Errors
    /// When the pixels are not as many as their size says, or none.
    pub fn resize(&mut self, pixels: &Pixels) -> Result<&[u8], ImageError> {
        let count = pixels.channels.count();
        self.resized.resize(self.height * self.width * count, 0);
        let (height, width) = self.inner_size(pixels);
        if (height, width) == (self.height, self.width) {
            scale(&mut self.inner, self.fit, pixels, (height, width), &mut self.resized)?;
            return Ok(&self.resized);
        }
        self.unpadded.resize(height * width * count, 0);
        scale(&mut self.inner, self.fit, pixels, (height, width), &mut self.unpadded)?;
        self.resized.fill(0);
        let (top, left) = ((self.height - height) / 2, (self.width - width) / 2);
        let rows = self.resized.chunks_exact_mut(self.width * count).skip(top);
        for (row, from) in rows.zip(self.unpadded.chunks_exact(width * count)) {
            row[left * count..][..from.len()].copy_from_slice(from);
        }
        Ok(&self.resized)
    }

    /// Height and width of the image inside the target: smaller only where it is padded.
    fn inner_size(&self, pixels: &Pixels) -> (usize, usize) {
        let (height, width) = (pixels.height as u64, pixels.width as u64);
        let (target_height, target_width) = (self.height as u64, self.width as u64);
        // Rounded to nearest, at least one pixel.
        let scaled = |side: u64, by: u64, of: u64| ((side * by + of / 2) / of.max(1)).max(1) as usize;
        match self.fit {
            Fit::Stretch | Fit::Crop => (self.height, self.width),
            Fit::Pad if height * target_width < width * target_height => {
                (scaled(height, target_width, width).min(self.height), self.width)
            }
            Fit::Pad => (self.height, scaled(width, target_height, height).min(self.width)),
        }
    }
}

fn scale(
    resizer: &mut fast_image_resize::Resizer,
    fit: Fit,
    pixels: &Pixels,
    (height, width): (usize, usize),
    into: &mut [u8],
) -> Result<(), ImageError> {
    let unfit = |error: &dyn std::fmt::Display| ImageError::Malformed(format!("cannot be resized: {error}"));
    let side = |side: usize| u32::try_from(side).map_err(|error| unfit(&error));
    let pixel = match pixels.channels {
        Channels::Rgb => PixelType::U8x3,
        Channels::Gray => PixelType::U8,
    };
    let source = ImageRef::new(side(pixels.width)?, side(pixels.height)?, &pixels.data, pixel);
    let source = source.map_err(|error| unfit(&error))?;
    let target = Image::from_slice_u8(side(width)?, side(height)?, into, pixel);
    let mut target = target.map_err(|error| unfit(&error))?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let options = if fit == Fit::Crop { options.fit_into_destination(None) } else { options };
    resizer.resize(&source, &mut target, &options).map_err(|error| unfit(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn gray(width: usize, data: &[u8]) -> Pixels {
        Pixels { width, height: data.len() / width, channels: Channels::Gray, data: data.to_vec() }
    }

    #[test]
    fn half_the_width_is_the_weighted_mean_of_its_neighbourhood() {
        // A triangle two pixels wide: weights .75 .75 .25 over 1.75, so (70 * .75 + 140 * .25) / 1.75 = 50.
        let mut resizer = Resizer::new(1, 2, Fit::Stretch);
        assert_eq!(resizer.resize(&gray(4, &[0, 70, 140, 210])).unwrap(), [50, 160]);
    }

    #[test]
    fn a_size_that_fits_already_changes_nothing() {
        let colours = Pixels { width: 2, height: 1, channels: Channels::Rgb, data: vec![1, 2, 3, 4, 5, 6] };
        for fit in [Fit::Stretch, Fit::Crop, Fit::Pad] {
            assert_eq!(Resizer::new(1, 2, fit).resize(&colours).unwrap(), [1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn crop_keeps_the_middle_of_the_long_side() {
        let mut resizer = Resizer::new(1, 2, Fit::Crop);
        assert_eq!(resizer.resize(&gray(4, &[0, 70, 140, 210])).unwrap(), [70, 140]);
    }

    #[test]
    fn pad_puts_black_on_both_ends_of_the_short_side() {
        let mut resizer = Resizer::new(4, 2, Fit::Pad);
        assert_eq!(resizer.resize(&gray(1, &[9])).unwrap(), [0, 0, 9, 9, 9, 9, 0, 0]);
        // The buffers are used again: nothing of the image before may shine through.
        assert_eq!(resizer.resize(&gray(1, &[5, 5, 5, 5])).unwrap(), [5, 0, 5, 0, 5, 0, 5, 0]);
        assert_eq!(resizer.resize(&gray(1, &[9])).unwrap(), [0, 0, 9, 9, 9, 9, 0, 0]);
    }

    #[test]
    fn a_line_is_padded_to_a_line() {
        let mut resizer = Resizer::new(3, 3, Fit::Pad);
        assert_eq!(resizer.resize(&gray(1000, &[7; 1000])).unwrap(), [0, 0, 0, 7, 7, 7, 0, 0, 0]);
    }

    #[test]
    fn pixels_that_are_missing_are_an_error() {
        let short = Pixels { width: 9, height: 9, channels: Channels::Gray, data: vec![1] };
        assert!(Resizer::new(2, 2, Fit::Stretch).resize(&short).is_err());
    }
}
