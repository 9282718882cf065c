//! Antialiased bilinear resizing of 8-bit pixels, equal to Pillow's `BILINEAR` within 1.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions};
use image::metadata::Orientation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::error::ImageError;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// The treatment of an image whose aspect ratio differs from that of the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// Each side is resized independently: the content is complete, and the aspect ratio changes.
    #[default]
    Stretch,
    /// The short side is resized to fit, and the excess of the long side is cropped at both ends.
    Crop,
    /// The long side is resized to fit, and the short side is padded with black at both ends.
    Pad,
}

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropBox {
    /// The number of columns to the left of the rectangle.
    pub left: f64,
    /// The number of rows above the rectangle.
    pub top: f64,
    /// The width, in columns.
    pub width: f64,
    /// The height, in rows.
    pub height: f64,
}

impl CropBox {
    /// The rectangle that covers the complete image.
    pub fn full(pixels: &Pixels) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            width: pixels.width as f64,
            height: pixels.height as f64,
        }
    }

    /// The largest centered rectangle with the aspect ratio of `height` x `width`.
    fn centered(self, height: usize, width: usize) -> Self {
        let aspect_ratio = width as f64 / height as f64;
        let (inner_width, inner_height) = if self.width / self.height > aspect_ratio {
            (self.height * aspect_ratio, self.height)
        } else {
            (self.width, self.width / aspect_ratio)
        };
        Self {
            left: self.left + (self.width - inner_width) / 2.0,
            top: self.top + (self.height - inner_height) / 2.0,
            width: inner_width,
            height: inner_height,
        }
    }
}

/// The size to which images are resized.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResizeTarget {
    pub(super) height: usize,
    pub(super) width: usize,
    fit: ResizeMode,
}

impl ResizeTarget {
    /// The target of an image that is turned afterwards.
    pub(super) fn turned(self, orientation: Orientation) -> Self {
        match orientation.to_exif() {
            5.. => Self {
                height: self.width,
                width: self.height,
                ..self
            },
            _ => self,
        }
    }

    /// The part of an area that is kept.
    pub(super) fn kept(self, area: CropBox) -> CropBox {
        match self.fit {
            ResizeMode::Crop => area.centered(self.height, self.width),
            ResizeMode::Stretch | ResizeMode::Pad => area,
        }
    }

    /// The height and width of the image within the target, which are smaller than the target only
    /// if it is padded.
    pub(super) fn inner_size(self, area: CropBox) -> (usize, usize) {
        let (target_height, target_width) = (self.height as f64, self.width as f64);
        // Sides are rounded to the nearest pixel, and are at least one pixel.
        let scaled = |side: f64, by: f64, of: f64| (side * by / of).round().max(1.0) as usize;
        match self.fit {
            ResizeMode::Stretch | ResizeMode::Crop => (self.height, self.width),
            ResizeMode::Pad if area.height * target_width < area.width * target_height => (
                scaled(area.height, target_width, area.width).min(self.height),
                self.width,
            ),
            ResizeMode::Pad => (
                self.height,
                scaled(area.width, target_height, area.height).min(self.width),
            ),
        }
    }
}

/// Resizes images to one size, and reuses its buffers for every image.
pub struct Resizer {
    pub(super) target: ResizeTarget,
    pub(super) inner: fast_image_resize::Resizer,
    /// The resized image before it is padded.
    unpadded: Vec<u8>,
    resized: Vec<u8>,
}

impl Resizer {
    /// Creates a resizer to `height` x `width` pixels, both above 0.
    pub fn new(height: usize, width: usize, fit: ResizeMode) -> Self {
        let inner = fast_image_resize::Resizer::new();
        Self {
            target: ResizeTarget { height, width, fit },
            inner,
            unpadded: Vec::new(),
            resized: Vec::new(),
        }
    }

    /// Resizes an image to `height * width * channels` interleaved bytes.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] if the number of bytes does not match the size, or the image is
    /// empty; [`ImageError::TooLarge`] if a side exceeds 2^20 pixels.
    pub fn resize(&mut self, pixels: &Pixels) -> Result<&[u8], ImageError> {
        self.resize_box(pixels, CropBox::full(pixels))
    }

    /// Resizes a rectangle of an image.
    ///
    /// # Errors
    /// The errors of [`Resizer::resize`], and [`ImageError::Malformed`] if the rectangle exceeds
    /// the image.
    pub fn resize_box(&mut self, pixels: &Pixels, area: CropBox) -> Result<&[u8], ImageError> {
        let area = self.target.kept(area);
        let (height, width) = self.target.inner_size(area);
        let count = pixels.channels.count();
        if (height, width) == (self.target.height, self.target.width) {
            self.resized.resize(height * width * count, 0);
            let into = &mut self.resized;
            scale(&mut self.inner, pixels, area, (height, width), into)?;
            return Ok(&self.resized);
        }
        self.unpadded.resize(height * width * count, 0);
        let into = &mut self.unpadded;
        scale(&mut self.inner, pixels, area, (height, width), into)?;
        let inner = std::mem::take(&mut self.unpadded);
        self.pad(&inner, (height, width), count);
        self.unpadded = inner;
        Ok(&self.resized)
    }

    /// Places an image of this height and width, which are at most those of the target, in the
    /// middle of the result.
    pub(super) fn pad(
        &mut self,
        inner: &[u8],
        (height, width): (usize, usize),
        count: usize,
    ) -> &[u8] {
        let ResizeTarget {
            height: target_height,
            width: target_width,
            ..
        } = self.target;
        self.resized.clear();
        self.resized.resize(target_height * target_width * count, 0);
        let (top, left) = ((target_height - height) / 2, (target_width - width) / 2);
        let rows = self
            .resized
            .chunks_exact_mut(target_width * count)
            .skip(top);
        for (row, from) in rows.zip(inner.chunks_exact(width * count)) {
            row[left * count..][..from.len()].copy_from_slice(from);
        }
        &self.resized
    }
}

/// Maximum number of pixels of a side: the weights of a resized line take memory in addition to the
/// image.
const MAX_SIDE: usize = 1 << 20;
/// Maximum number of bytes of the intermediate image between the vertical pass, which comes first,
/// and the horizontal pass. Above it, an image that becomes higher is resized horizontally first:
/// otherwise, the intermediate image of a line of a million pixels has as many such lines as the
/// target.
const MAX_INTERMEDIATE: usize = 16 << 20;

pub(super) fn scale(
    resizer: &mut fast_image_resize::Resizer,
    pixels: &Pixels,
    area: CropBox,
    (height, width): (usize, usize),
    into: &mut [u8],
) -> Result<(), ImageError> {
    let longest = pixels.width.max(pixels.height);
    if longest > MAX_SIDE {
        let text = format!(
            "an image with a side of {longest} pixels cannot be resized; the maximum is {MAX_SIDE}"
        );
        return Err(ImageError::TooLarge(text));
    }
    let count = pixels.channels.count();
    let is_higher = area.height < height as f64;
    if is_higher
        && (area.width as usize)
            .saturating_mul(height)
            .saturating_mul(count)
            > MAX_INTERMEDIATE
    {
        let mut lines = vec![0; width * pixels.height * count];
        let all_lines = CropBox {
            top: 0.0,
            height: pixels.height as f64,
            ..area
        };
        scale_both(
            resizer,
            pixels,
            all_lines,
            (pixels.height, width),
            &mut lines,
        )?;
        let lines = Pixels {
            width,
            height: pixels.height,
            channels: pixels.channels,
            data: lines,
        };
        let area = CropBox {
            left: 0.0,
            width: width as f64,
            ..area
        };
        return scale_both(resizer, &lines, area, (height, width), into);
    }
    scale_both(resizer, pixels, area, (height, width), into)
}

pub(super) fn scale_both(
    resizer: &mut fast_image_resize::Resizer,
    pixels: &Pixels,
    area: CropBox,
    size: (usize, usize),
    into: &mut [u8],
) -> Result<(), ImageError> {
    match pixels.channels {
        Channels::Rgb | Channels::Bgr => scale_typed::<U8x3>(resizer, pixels, area, size, into),
        Channels::Gray => scale_typed::<U8>(resizer, pixels, area, size, into),
    }
}

/// The library's function for any type of pixels would compile its kernels for types that do not
/// occur here.
fn scale_typed<P: PixelTrait + InnerPixel>(
    resizer: &mut fast_image_resize::Resizer,
    pixels: &Pixels,
    area: CropBox,
    (height, width): (usize, usize),
    into: &mut [u8],
) -> Result<(), ImageError> {
    let malformed = |error: &dyn std::fmt::Display| {
        ImageError::Malformed(format!("the image cannot be resized: {error}"))
    };
    let side = |side: usize| u32::try_from(side).map_err(|error| malformed(&error));
    let (source_width, source_height) = (side(pixels.width)?, side(pixels.height)?);
    let source = TypedImageRef::<P>::from_buffer(source_width, source_height, &pixels.data)
        .map_err(|error| malformed(&error))?;
    let mut target = TypedImage::<P>::from_buffer(side(width)?, side(height)?, into)
        .map_err(|error| malformed(&error))?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let options = options.crop(area.left, area.top, area.width, area.height);
    resizer
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| malformed(&error))
}

#[cfg(test)]
mod tests;
