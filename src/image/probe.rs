//! What an image says of itself before it is decoded: its format and its size.

use crate::image::error::ImageError;
use crate::image::{image_rs, jpeg};

/// A format of encoded images, found from their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; of an animation the default image.
    Png,
    /// WebP, lossy or lossless; of an animation the first frame.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF; of an animation the first frame.
    Gif,
    /// TIFF; the first page.
    Tiff,
    /// Portable bitmap, graymap, pixmap or anymap.
    Pnm,
}

impl ImageFormat {
    /// The format that bytes begin with, whatever they are called.
    pub fn of(bytes: &[u8]) -> Option<Self> {
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

    /// The name that its users give it.
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

/// What an image says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    /// How it is encoded.
    pub format: ImageFormat,
    /// Columns of pixels as stored, before any EXIF orientation.
    pub width: u32,
    /// Rows of pixels as stored, before any EXIF orientation.
    pub height: u32,
    /// Bytes that decoding takes at its peak for each pixel.
    pub bytes_per_pixel: u64,
}

/// Bytes that decoding takes for each pixel of most images: a JPEG's coefficients and its colours,
/// or a copy of four 8-bit channels while they become three. Limits and memory count pixels of so
/// many bytes.
pub const DECODING: u64 = 12;

impl ImageInfo {
    /// How many pixels it decodes to.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Pixels of the usual cost that take as much memory while they are decoded: more than it has
    /// where samples are deeper than 8 bits, or blocks are larger than the image.
    pub fn charged_pixels(&self) -> u64 {
        // Blocks of a JPEG whose channels are sampled most coarsely have so many rows and columns.
        const BLOCK: u64 = 32;
        let whole = |side: u32| {
            if self.format == ImageFormat::Jpeg {
                u64::from(side).next_multiple_of(BLOCK)
            } else {
                side.into()
            }
        };
        let stored = whole(self.width) * whole(self.height);
        let decoded = self
            .pixels()
            .saturating_mul(self.bytes_per_pixel)
            .div_ceil(DECODING);
        // Blocks beyond the image are held as coefficients, half of what decoding takes.
        self.pixels().max(decoded).max(stored / 2)
    }

    /// Whether it may be decoded where images of `max_pixels` pixels may.
    pub fn fits(&self, max_pixels: u64) -> bool {
        self.pixels() <= max_pixels
            && self.pixels().saturating_mul(self.bytes_per_pixel)
                <= max_pixels.saturating_mul(DECODING)
    }
}

/// Reads the header alone: microseconds, and no memory that grows with what it claims.
///
/// # Errors
/// When it is no image of a known format, or its header is broken.
pub fn probe(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let format = ImageFormat::of(bytes).ok_or_else(|| ImageError::unknown(bytes))?;
    ImageError::catch(format, || {
        let ((width, height), bytes_per_pixel) = match format {
            ImageFormat::Jpeg => (jpeg::size(bytes)?, DECODING),
            ImageFormat::Png => (png_size(bytes)?, DECODING),
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

/// PNG demands that its size stands at a fixed place, so that its decoder, which would first unpack
/// colour profiles, is not needed.
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
            "its first chunk is no IHDR",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::RejectCode;

    #[test]
    fn the_bytes_say_the_format() {
        assert_eq!(ImageFormat::of(b"P6\n2 2\n255\n"), Some(ImageFormat::Pnm));
        assert_eq!(ImageFormat::of(b"GIF89a"), Some(ImageFormat::Gif));
        assert_eq!(ImageFormat::of(b"MM\0\x2a"), Some(ImageFormat::Tiff));
        assert_eq!(ImageFormat::of(b"<html>"), None);
        assert_eq!(ImageFormat::of(b""), None);
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let html = probe(b"<html>").unwrap_err();
        assert_eq!(html.code(), RejectCode::Unsupported);
        assert!(
            html.to_string()
                .ends_with("it begins with the bytes 3c 68 74 6d 6c 3e"),
            "{html}"
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
    fn an_image_without_pixels_is_malformed() {
        assert_eq!(
            probe(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\0\0\0\0\x01")
                .unwrap_err()
                .code(),
            RejectCode::Malformed
        );
    }

    #[test]
    fn the_header_of_a_pixmap_gives_its_size() {
        let header = probe(b"P6\n3 2\n255\n").unwrap();
        assert_eq!(
            header,
            ImageInfo {
                format: ImageFormat::Pnm,
                width: 3,
                height: 2,
                bytes_per_pixel: DECODING
            }
        );
        assert_eq!(header.pixels(), 6);
    }
}
