//! Decodes the bytes of any supported format to upright 8-bit pixels, in bounded memory and time.

use image::metadata::Orientation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::channel_layout::DecodedSamples;
use crate::image::error::ImageError;
use crate::image::exif_orientation::orient;
use crate::image::pixel_format::Channels;
use crate::image::probe::{ImageFormat, ImageInfo, probe};
use crate::image::resize::Resizer;
use crate::image::value_range::ValueRange;
use crate::image::{gif, image_rs, jpeg, png, tiff};

/// A decoded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// The number of columns.
    pub width: usize,
    /// The number of rows.
    pub height: usize,
    /// The channels of a pixel.
    pub channels: Channels,
    /// The interleaved bytes, row by row: `height * width * channels.count()` bytes.
    pub data: Vec<u8>,
}

/// How an image is decoded that is resized afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecodeMode {
    /// In its size.
    #[default]
    Full,
    /// JPEGs at 1/2, 1/4 or 1/8 of their size, if that leaves at least twice the rows and columns of
    /// the target. Resized pixels differ by about 0.4 steps of 255 in the mean.
    Scaled,
}

/// The options of decoding.
#[derive(Debug, Clone, Copy)]
pub struct DecodeOptions {
    /// The channels of a decoded pixel.
    pub channels: Channels,
    /// The maximum number of pixels of an image (`limits.pixels` of a pipeline).
    pub max_pixels: u64,
    /// The values of black and white of samples of more than 8 bits, for files that do not state
    /// them.
    pub value_range: Option<ValueRange>,
}

/// Decodes an image and applies its orientation, without a range of values.
///
/// # Errors
/// See [`decode_with`].
pub fn decode(bytes: &[u8], channels: Channels, max_pixels: u64) -> Result<Pixels, ImageError> {
    let options = DecodeOptions {
        channels,
        max_pixels,
        value_range: None,
    };
    decode_with(bytes, &options)
}

/// Decodes an image and applies its orientation, which its EXIF or XMP states.
///
/// The result has 8 bits per channel. As in Pillow's `convert`, alpha is dropped, not composited;
/// of 16 bits, the upper 8 are kept unless the range of values is known; luma is BT.601. Color
/// profiles and gamma are not applied.
///
/// The memory is bounded by the bytes per pixel according to the header, plus a small multiple of
/// the length of `bytes`.
///
/// # Errors
/// If the bytes are not a valid and complete image, if the image has more than `max_pixels` pixels,
/// if its decoding takes more memory than that of `max_pixels` pixels of 8 bits per channel, or if
/// the range of its values is not known and they do not have a usual one.
pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Pixels, ImageError> {
    let header = checked_header(bytes, options.max_pixels)?;
    ImageError::catch(header.format, || decode_full(bytes, &header, options))
}

/// Decodes an image, applies its orientation, and resizes it to `height * width * channels` bytes. A
/// JPEG is resized while it is decoded, in memory for its columns only.
///
/// # Errors
/// As [`decode_with`] and [`Resizer::resize`].
pub fn decode_resized<'r>(
    bytes: &[u8],
    options: &DecodeOptions,
    mode: DecodeMode,
    resizer: &'r mut Resizer,
) -> Result<&'r [u8], ImageError> {
    let header = checked_header(bytes, options.max_pixels)?;
    ImageError::catch(header.format, || match header.format {
        ImageFormat::Jpeg => jpeg::decode_resized(bytes, &header, options.channels, mode, resizer),
        _ => resizer.resize(&decode_full(bytes, &header, options)?),
    })
}

fn checked_header(bytes: &[u8], max_pixels: u64) -> Result<ImageInfo, ImageError> {
    let header = probe(bytes)?;
    match header.fits(max_pixels) {
        true => Ok(header),
        false => Err(ImageError::too_large(&header, max_pixels)),
    }
}

fn decode_full(
    bytes: &[u8],
    header: &ImageInfo,
    options: &DecodeOptions,
) -> Result<Pixels, ImageError> {
    let DecodeOptions {
        channels,
        value_range,
        ..
    } = *options;
    let decoded = match header.format {
        ImageFormat::Jpeg => jpeg::decode(bytes, header)?,
        ImageFormat::Png => png::decode(bytes, header, value_range)?,
        ImageFormat::Gif => gif::decode(bytes, header)?,
        ImageFormat::Tiff => tiff::decode(bytes, header, value_range)?,
        _ => image_rs::decode(bytes, header, value_range)?,
    };
    let DecodedImage {
        samples,
        size,
        orientation,
    } = decoded;
    if size != (header.width, header.height) {
        let (actual, expected) = (size, (header.width, header.height));
        let reason = format!(
            "its frame has {} x {} pixels, but its header states {} x {}",
            actual.0, actual.1, expected.0, expected.1
        );
        return Err(ImageError::malformed(header.format, reason));
    }
    Ok(orient(samples.into_pixels(header, channels)?, orientation))
}

/// The output of a decoder, before the conversion of the channels and the orientation.
pub(super) struct DecodedImage {
    pub(super) samples: DecodedSamples,
    /// The number of columns and rows that the decoder reports.
    pub(super) size: (u32, u32),
    pub(super) orientation: Orientation,
}

/// Maximum number of bytes that the decoder of an image may allocate, for its pixels and its
/// metadata.
pub(super) fn memory_limit(bytes: &[u8], header: &ImageInfo) -> u64 {
    let pixels = header.pixels().saturating_mul(header.bytes_per_pixel);
    pixels
        .saturating_add(bytes.len() as u64)
        .saturating_add(1 << 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Cursor;

    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::codecs::webp::WebPEncoder;
    use image::{DynamicImage, ExtendedColorType, ImageEncoder, RgbImage};

    use super::*;
    use crate::batch::RejectCode;

    /// An image of 48 x 32 pixels with quarters of different colors, so that JPEG does not blur the
    /// corners.
    fn picture() -> RgbImage {
        RgbImage::from_fn(48, 32, |x, y| match (x < 24, y < 16) {
            (true, true) => image::Rgb([250, 10, 20]),
            (false, true) => image::Rgb([20, 240, 30]),
            (true, false) => image::Rgb([30, 40, 230]),
            (false, false) => image::Rgb([200, 200, 200]),
        })
    }

    fn written(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_format_restores_the_written_pixels() {
        let image = DynamicImage::ImageRgb8(picture());
        let formats = [
            (image::ImageFormat::Png, ImageFormat::Png),
            (image::ImageFormat::WebP, ImageFormat::WebP),
            (image::ImageFormat::Bmp, ImageFormat::Bmp),
            (image::ImageFormat::Gif, ImageFormat::Gif),
            (image::ImageFormat::Tiff, ImageFormat::Tiff),
            (image::ImageFormat::Pnm, ImageFormat::Pnm),
        ];
        for (library, format) in formats {
            let bytes = written(&image, library);
            assert_eq!(
                probe(&bytes).unwrap(),
                ImageInfo {
                    format,
                    width: 48,
                    height: 32,
                    bytes_per_pixel: 12
                }
            );
            let pixels = decode(&bytes, Channels::Rgb, 48 * 32).unwrap();
            assert_eq!((pixels.width, pixels.height), (48, 32));
            assert!(pixels.data == *picture().as_raw(), "{format:?}");
            let half = decode(&bytes[..bytes.len() / 2], Channels::Rgb, 48 * 32).unwrap_err();
            assert!(
                matches!(half.code(), RejectCode::Truncated | RejectCode::Malformed),
                "{half}"
            );
            let large = decode(&bytes, Channels::Rgb, 48 * 32 - 1).unwrap_err();
            assert_eq!(large.code(), RejectCode::TooLarge, "{large}");
        }
    }

    #[test]
    fn image_with_deep_samples_is_charged_for_its_decoding() {
        let deep =
            DynamicImage::ImageRgb32F(image::ImageBuffer::from_pixel(30, 20, image::Rgb([0.5; 3])));
        let bytes = written(&deep, image::ImageFormat::Tiff);
        let header = probe(&bytes).unwrap();
        assert_eq!(
            (header.bytes_per_pixel, header.charged_pixels()),
            (28, 600 * 28 / 12)
        );
        let large = decode(&bytes, Channels::Rgb, 1399).unwrap_err();
        assert_eq!(large.code(), RejectCode::TooLarge, "{large}");
        assert_eq!(
            large.to_string(),
            "TIFF of 30 x 20 pixels needs 16800 bytes to decode; the limit of 1399 pixels \
             (limits.pixels) allows 16788 (12 bytes per pixel)"
        );
        assert_eq!(
            decode(&bytes, Channels::Rgb, 1400).unwrap().data.len(),
            1800
        );
    }

    #[test]
    fn upper_8_of_16_bits_are_kept() {
        let image = image::ImageBuffer::from_fn(4, 4, |x, y| {
            image::Luma([(x as u16 * 40 + y as u16) << 8 | 255])
        });
        for format in [
            image::ImageFormat::Png,
            image::ImageFormat::Tiff,
            image::ImageFormat::Pnm,
        ] {
            let bytes = written(&DynamicImage::ImageLuma16(image.clone()), format);
            let expected: Vec<u8> = image
                .as_raw()
                .iter()
                .map(|&sample| (sample >> 8) as u8)
                .collect();
            assert_eq!(
                decode(&bytes, Channels::Gray, 32).unwrap().data,
                expected,
                "{format:?}"
            );
        }
    }

    /// EXIF that contains only an orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        exif
    }

    fn with_exif(mut encoder: impl ImageEncoder, orientation: u8) {
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder
            .write_image(picture().as_raw(), 48, 32, ExtendedColorType::Rgb8)
            .unwrap();
    }

    #[test]
    fn images_of_all_eight_orientations_become_upright() {
        for orientation in 1..=8 {
            let mut upright = DynamicImage::ImageRgb8(picture());
            upright.apply_orientation(Orientation::from_exif(orientation).unwrap());
            let upright = upright.into_rgb8();
            let (mut jpeg, mut png, mut webp) = (Vec::new(), Vec::new(), Vec::new());
            with_exif(JpegEncoder::new_with_quality(&mut jpeg, 100), orientation);
            with_exif(PngEncoder::new(&mut png), orientation);
            with_exif(WebPEncoder::new_lossless(&mut webp), orientation);
            for bytes in [jpeg, png, webp] {
                let pixels = decode(&bytes, Channels::Rgb, 48 * 32).unwrap();
                assert_eq!(
                    (pixels.width as u32, pixels.height as u32),
                    upright.dimensions(),
                    "{orientation}"
                );
                let differ = pixels
                    .data
                    .iter()
                    .zip(upright.as_raw())
                    .filter(|(a, b)| a.abs_diff(**b) > 4)
                    .count();
                assert_eq!(
                    differ,
                    0,
                    "orientation {orientation} of {:?}",
                    ImageFormat::from_bytes(&bytes)
                );
            }
        }
    }
}
