//! Encodes pixels to the bytes of an image file; equal pixels give equal bytes.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::image::error::ImageError;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// The format in which images are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Lossless PNG.
    Png,
    /// Baseline JPEG of a quality from 1 to 100.
    Jpeg(u8),
    /// Lossless WebP.
    WebP,
}

/// Encodes an image.
///
/// # Errors
/// [`ImageError::Unsupported`] if the format cannot hold an image of this size (JPEG: at most
/// 65,535 pixels per side, WebP: 16,384); [`ImageError::Malformed`] if the number of bytes does not
/// match the size.
pub fn encode(pixels: &Pixels, format: OutputFormat) -> Result<Vec<u8>, ImageError> {
    let Pixels {
        width,
        height,
        channels,
        data,
    } = pixels;
    let unsupported = || {
        ImageError::Unsupported(format!(
            "{width} x {height} pixels cannot be written as {format:?}"
        ))
    };
    if width
        .checked_mul(*height)
        .and_then(|area| area.checked_mul(channels.count()))
        != Some(data.len())
    {
        let actual = data.len();
        return Err(ImageError::Malformed(format!(
            "{width} x {height} pixels cannot consist of {actual} bytes"
        )));
    }
    let (Ok(width), Ok(height)) = (u32::try_from(*width), u32::try_from(*height)) else {
        return Err(unsupported());
    };
    let color = match channels {
        Channels::Rgb | Channels::Bgr => ExtendedColorType::Rgb8,
        Channels::Gray => ExtendedColorType::L8,
    };
    let mut bytes = Vec::new();
    let outcome = match format {
        OutputFormat::Png => PngEncoder::new(&mut bytes).write_image(data, width, height, color),
        OutputFormat::Jpeg(quality) => JpegEncoder::new_with_quality(&mut bytes, quality)
            .write_image(data, width, height, color),
        OutputFormat::WebP => {
            WebPEncoder::new_lossless(&mut bytes).write_image(data, width, height, color)
        }
    };
    outcome.map(|()| bytes).map_err(|_| unsupported())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::image::decode;

    #[test]
    fn lossless_formats_are_exact_and_reproducible() {
        for (channels, count) in [(Channels::Rgb, 3), (Channels::Gray, 1)] {
            let data = (0..20 * 10 * count).map(|n| (n * 7 % 251) as u8).collect();
            let pixels = Pixels {
                width: 20,
                height: 10,
                channels,
                data,
            };
            for format in [OutputFormat::Png, OutputFormat::WebP] {
                let bytes = encode(&pixels, format).unwrap();
                assert_eq!(decode(&bytes, channels, 200).unwrap(), pixels, "{format:?}");
                assert_eq!(encode(&pixels, format).unwrap(), bytes);
            }
            let jpeg = decode(
                &encode(&pixels, OutputFormat::Jpeg(95)).unwrap(),
                channels,
                200,
            )
            .unwrap();
            assert_eq!(
                (jpeg.width, jpeg.height, jpeg.data.len()),
                (20, 10, pixels.data.len())
            );
        }
    }

    #[test]
    fn image_larger_than_the_format_allows_is_an_error() {
        let wide = Pixels {
            width: 70_000,
            height: 1,
            channels: Channels::Gray,
            data: vec![0; 70_000],
        };
        assert!(encode(&wide, OutputFormat::Png).is_ok());
        for format in [OutputFormat::Jpeg(90), OutputFormat::WebP] {
            let error = encode(&wide, format).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("70000 x 1 pixels cannot be written as {format:?}")
            );
        }
        let short = Pixels {
            data: vec![0; 9],
            ..wide
        };
        assert_eq!(
            encode(&short, OutputFormat::Png),
            Err(ImageError::Malformed(
                "70000 x 1 pixels cannot consist of 9 bytes".to_owned()
            ))
        );
    }
}
