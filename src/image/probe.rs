//! Reads the format and the size of an image from its header, without decoding it.

use crate::image::error::ImageError;
use crate::image::{image_rs, jpeg, tiff};

/// A format of encoded images, detected from their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; for an animation, the default image.
    Png,
    /// WebP, lossy or lossless; for an animation, the first frame.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF; for an animation, the first frame.
    Gif,
    /// TIFF; the first page.
    Tiff,
    /// Portable bitmap, graymap, pixmap or anymap.
    Pnm,
}

impl ImageFormat {
    /// Detects the format from the first bytes, regardless of the file name.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Some(Self::WebP),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            // 43 is BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace() || *space == b'#' => {
                Some(Self::Pnm)
            }
            _ => None,
        }
    }

    /// The usual name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        }
    }
}

/// The format and size of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    /// The format of the encoded image.
    pub format: ImageFormat,
    /// The number of columns as stored, before any EXIF orientation.
    pub width: u32,
    /// The number of rows as stored, before any EXIF orientation.
    pub height: u32,
    /// The peak memory of decoding, in bytes per pixel.
    pub bytes_per_pixel: u64,
}

/// The memory that the decoding of most images takes per pixel, in bytes: the coefficients and the
/// colors of a JPEG, or a copy of four 8-bit channels during their conversion to three. Limits and
/// memory estimates count pixels of this size.
pub const DECODE_BYTES_PER_PIXEL: u64 = 12;

impl ImageInfo {
    /// The number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The number of pixels of [`DECODE_BYTES_PER_PIXEL`] bytes that take as much memory as the
    /// decoding of the image: more than its pixels if samples are deeper than 8 bits, or if blocks
    /// exceed the image.
    pub fn charged_pixels(&self) -> u64 {
        // The number of rows and columns of a block of a JPEG at the coarsest subsampling.
        const BLOCK: u64 = 32;
        let padded = |side: u32| {
            if self.format == ImageFormat::Jpeg {
                u64::from(side).next_multiple_of(BLOCK)
            } else {
                side.into()
            }
        };
        let stored = padded(self.width) * padded(self.height);
        let decoded = self
            .pixels()
            .saturating_mul(self.bytes_per_pixel)
            .div_ceil(DECODE_BYTES_PER_PIXEL);
        // Blocks beyond the image are held as coefficients, of up to 9 of the 12 bytes per pixel.
        self.pixels().max(decoded).max(stored * 3 / 4)
    }

    /// Whether the image is within a limit of `max_pixels` pixels of [`DECODE_BYTES_PER_PIXEL`]
    /// bytes.
    pub fn fits(&self, max_pixels: u64) -> bool {
        self.pixels() <= max_pixels
            && self.pixels().saturating_mul(self.bytes_per_pixel)
                <= max_pixels.saturating_mul(DECODE_BYTES_PER_PIXEL)
    }
}

/// Reads the header only, which takes microseconds; the memory does not depend on the size that the
/// header states.
///
/// # Errors
/// If the format is unknown, or the header is truncated, malformed or unsupported.
pub fn probe(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let format = ImageFormat::from_bytes(bytes).ok_or_else(|| ImageError::unknown(bytes))?;
    ImageError::catch(format, || {
        let ((width, height), bytes_per_pixel) = match format {
            ImageFormat::Jpeg => (jpeg::size(bytes)?, DECODE_BYTES_PER_PIXEL),
            ImageFormat::Png => (png_size(bytes)?, DECODE_BYTES_PER_PIXEL),
            ImageFormat::Tiff => tiff::size(bytes)?,
            _ => image_rs::size(bytes, format)?,
        };
        if width == 0 || height == 0 {
            return Err(ImageError::malformed(
                format,
                format_args!("its size is {width} x {height} pixels"),
            ));
        }
        Ok(ImageInfo {
            format,
            width,
            height,
            bytes_per_pixel,
        })
    })
}

/// Reads the size from its fixed offset in a PNG. The decoder is not used, because it unpacks color
/// profiles first.
fn png_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let header = bytes
        .get(8..24)
        .ok_or_else(|| ImageError::truncated(ImageFormat::Png, bytes, "in its header"))?;
    let number = |at: usize| {
        header[at..at + 4]
            .iter()
            .fold(0, |value, &byte| value << 8 | u32::from(byte))
    };
    match &header[4..8] {
        b"IHDR" => Ok((number(8), number(12))),
        _ => Err(ImageError::malformed(
            ImageFormat::Png,
            "its first chunk is not IHDR",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::RejectCode;

    #[test]
    fn format_is_detected_from_the_bytes() {
        assert_eq!(
            ImageFormat::from_bytes(b"P6\n2 2\n255\n"),
            Some(ImageFormat::Pnm)
        );
        assert_eq!(ImageFormat::from_bytes(b"GIF89a"), Some(ImageFormat::Gif));
        assert_eq!(
            ImageFormat::from_bytes(b"MM\0\x2a"),
            Some(ImageFormat::Tiff)
        );
        assert_eq!(ImageFormat::from_bytes(b"<html>"), None);
        assert_eq!(ImageFormat::from_bytes(b""), None);
    }

    #[test]
    fn unknown_empty_and_broken_images_have_distinct_codes() {
        let html = probe(b"<html>").unwrap_err();
        assert_eq!(html.code(), RejectCode::Unsupported);
        assert_eq!(
            html.to_string(),
            "not a JPEG, PNG, WebP, BMP, GIF, TIFF or PNM image: it begins with the bytes \
             3c 68 74 6d 6c 3e"
        );
        assert_eq!(probe(b"").unwrap_err().code(), RejectCode::Truncated);
        assert_eq!(
            probe(b"\xff\xd8\xff\xd9").unwrap_err().code(),
            RejectCode::Malformed
        );
        assert_eq!(
            probe(b"\x89PNG\r\n\x1a\n").unwrap_err().code(),
            RejectCode::Truncated
        );
    }

    #[test]
    fn image_of_zero_width_is_malformed() {
        assert_eq!(
            probe(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\0\0\0\0\x01")
                .unwrap_err()
                .code(),
            RejectCode::Malformed
        );
    }

    #[test]
    fn size_of_a_pixmap_is_read_from_its_header() {
        let header = probe(b"P6\n3 2\n255\n").unwrap();
        assert_eq!(
            header,
            ImageInfo {
                format: ImageFormat::Pnm,
                width: 3,
                height: 2,
                bytes_per_pixel: DECODE_BYTES_PER_PIXEL
            }
        );
        assert_eq!(header.pixels(), 6);
    }
}
