//! Decodes the bytes of any supported format to upright 8-bit pixels, in bounded memory and time.

use crate::image::channel_layout::{DecodedImage, DecodedSamples};
use crate::image::codec::{gif, image_rs, jpeg, png, tiff};
use crate::image::error::ImageError;
use crate::image::exif_orientation::orient;
use crate::image::info::{ImageFormat, ImageInfo};
use crate::image::pixel_format::Channels;
use crate::image::pixels::{DecodeMode, Pixels};
use crate::image::probe::probe;
use crate::image::resize::Resizer;
use crate::image::value_range::ValueRange;

/// The options of decoding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DecodeOptions {
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
pub(crate) fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Pixels, ImageError> {
    let header = checked_header(bytes, options.max_pixels)?;
    ImageError::catch(header.format, || decode_full(bytes, &header, options))
}

/// Decodes an image, applies its orientation, and resizes it to `height * width * channels` bytes. A
/// JPEG is resized while it is decoded, in memory for its columns only.
///
/// # Errors
/// As [`decode_with`] and [`Resizer::resize`].
pub(crate) fn decode_resized<'r>(
    bytes: &[u8],
    options: &DecodeOptions,
    mode: DecodeMode,
    resizer: &'r mut Resizer,
) -> Result<&'r [u8], ImageError> {
    let header = checked_header(bytes, options.max_pixels)?;
    ImageError::catch(header.format, || match header.format {
        ImageFormat::Jpeg => {
            jpeg::decode_resized(bytes, &header, options.channels.decoded(), mode, resizer)
        }
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
    let decoded = decode_samples(bytes, header, options.value_range)?;
    let pixels = decoded.samples.into_pixels(header, options.channels)?;
    Ok(orient(pixels, decoded.orientation))
}

/// The alpha of an image, and whether the image has colors.
pub(crate) struct AlphaLayer {
    /// Whether the image has no colors.
    pub is_gray: bool,
    /// The alpha, upright, as a gray image.
    pub alpha: Option<Pixels>,
}

/// Decodes the alpha of an image.
///
/// # Errors
/// As [`decode_with`].
pub(crate) fn decode_alpha(
    bytes: &[u8],
    header: &ImageInfo,
    max_pixels: u64,
) -> Result<AlphaLayer, ImageError> {
    if !header.fits(max_pixels) {
        return Err(ImageError::too_large(header, max_pixels));
    }
    ImageError::catch(header.format, || {
        if header.format == ImageFormat::Jpeg {
            return Ok(AlphaLayer {
                is_gray: jpeg::is_gray(bytes, header)?,
                alpha: None,
            });
        }
        let decoded = decode_samples(bytes, header, None)?;
        let is_gray = decoded.samples.is_gray();
        let alpha = decoded.samples.into_alpha().map(DecodedSamples::Gray);
        let alpha = alpha.map(|alpha| alpha.into_pixels(header, Channels::Gray));
        Ok(AlphaLayer {
            is_gray,
            alpha: alpha
                .transpose()?
                .map(|alpha| orient(alpha, decoded.orientation)),
        })
    })
}

fn decode_samples(
    bytes: &[u8],
    header: &ImageInfo,
    value_range: Option<ValueRange>,
) -> Result<DecodedImage, ImageError> {
    let decoded = match header.format {
        ImageFormat::Jpeg => jpeg::decode(bytes, header)?,
        ImageFormat::Png => png::decode(bytes, header, value_range)?,
        ImageFormat::Gif => gif::decode(bytes, header)?,
        ImageFormat::Tiff => tiff::decode(bytes, header, value_range)?,
        _ => image_rs::decode(bytes, header, value_range)?,
    };
    let (actual, expected) = (decoded.size, (header.width, header.height));
    if actual != expected {
        let reason = format!(
            "its frame has {} x {} pixels, but its header states {} x {}",
            actual.0, actual.1, expected.0, expected.1
        );
        return Err(ImageError::malformed(header.format, reason));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
