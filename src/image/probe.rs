//! Reads the format and the size of an image from its header, without decoding it.

use crate::image::codec::{image_rs, jpeg, tiff};
use crate::image::error::ImageError;
use crate::image::info::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo};

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
    use crate::batch::reject::RejectCode;

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
