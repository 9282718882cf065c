//! Resizing of an image whose rows arrive one after the other, in memory for its columns only.

use image::metadata::Orientation;

use crate::image::error::ImageError;
use crate::image::exif_orientation::orient;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;
use crate::image::resize::{CropBox, Resizer, scale, scale_both};

/// The bytes of the rows that are resized at a time, which stay in the second cache. Resizing begins
/// with the weights of all columns, so a small image is one band.
const BAND_BYTES: usize = 256 << 10;

/// Resizes the width of rows as they arrive, and the height of the image at the end. Pixels differ by
/// at most 1 from those of [`Resizer::resize_box`], which resizes the height first.
pub(super) struct RowResizer<'r> {
    resizer: &'r mut Resizer,
    channels: Channels,
    orientation: Orientation,
    /// The number of columns.
    width: usize,
    /// The part of the image that is kept.
    kept: CropBox,
    /// The height and width of the result before it is turned and padded.
    inner: (usize, usize),
    /// The rows that are not resized yet.
    band: Vec<u8>,
    /// The rows of the width of the result.
    lines: Vec<u8>,
}

impl<'r> RowResizer<'r> {
    /// Resizes an image of `width` columns, of which `covered` is used. It is turned afterwards.
    pub(super) fn new(
        resizer: &'r mut Resizer,
        channels: Channels,
        width: usize,
        covered: CropBox,
        orientation: Orientation,
    ) -> Self {
        let target = resizer.target.turned(orientation);
        let kept = target.kept(covered);
        Self {
            resizer,
            channels,
            orientation,
            width,
            kept,
            inner: target.inner_size(kept),
            band: Vec::with_capacity(BAND_BYTES),
            lines: Vec::new(),
        }
    }

    /// Adds a row of interleaved bytes.
    ///
    /// # Errors
    /// If it cannot be resized.
    pub(super) fn push(&mut self, row: &[u8]) -> Result<(), ImageError> {
        if self.band.len() + row.len() > BAND_BYTES && !self.band.is_empty() {
            self.resize_band()?;
        }
        self.band.extend_from_slice(row);
        Ok(())
    }

    fn resize_band(&mut self) -> Result<(), ImageError> {
        let (count, width) = (self.channels.count(), self.inner.1);
        let height = self.band.len() / (self.width * count);
        let pixels = Pixels {
            width: self.width,
            height,
            channels: self.channels,
            data: std::mem::take(&mut self.band),
        };
        let area = CropBox {
            top: 0.0,
            height: height as f64,
            ..self.kept
        };
        let start = self.lines.len();
        self.lines.resize(start + height * width * count, 0);
        let into = &mut self.lines[start..];
        scale_both(
            &mut self.resizer.inner,
            &pixels,
            area,
            (height, width),
            into,
        )?;
        self.band = pixels.data;
        self.band.clear();
        Ok(())
    }

    /// Resizes the height, turns the image, and returns the result of the resizer.
    ///
    /// # Errors
    /// If the image cannot be resized.
    pub(super) fn finish(mut self) -> Result<&'r [u8], ImageError> {
        if !self.band.is_empty() {
            self.resize_band()?;
        }
        let (count, (height, width)) = (self.channels.count(), self.inner);
        let lines = Pixels {
            width,
            height: self.lines.len() / (width * count),
            channels: self.channels,
            data: self.lines,
        };
        let area = CropBox {
            left: 0.0,
            width: width as f64,
            ..self.kept
        };
        let mut data = vec![0; height * width * count];
        let resizer = self.resizer;
        scale(&mut resizer.inner, &lines, area, (height, width), &mut data)?;
        let resized = Pixels {
            width,
            height,
            channels: self.channels,
            data,
        };
        let turned = orient(resized, self.orientation);
        Ok(resizer.pad(&turned.data, (turned.height, turned.width), count))
    }
}
