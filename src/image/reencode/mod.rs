//! Writes new pixels in the format of an encoded image, with its alpha and metadata.

use crate::image::color_space::ColorSpace;
use crate::image::decode::{AlphaLayer, decode_alpha};
use crate::image::encode::{EncodedLayers, OutputFormat, encode_layers};
use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::metadata::ImageMetadata;
use crate::image::pixels::Pixels;
use crate::image::probe::probe;
use crate::image::resize::{ResizeMode, Resizer};

/// The options of new pixels for an encoded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReencodeOptions {
    /// The options of JPEGs.
    pub jpeg: JpegOptions,
    /// Whether the new image is gray if the original is.
    pub keeps_gray: bool,
    /// The maximum number of pixels of an original.
    pub max_pixels: u64,
}

/// An encoded image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReencodedImage {
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The format of the file: that of the original, except for GIF, whose colors are few; it
    /// becomes PNG.
    pub format: ImageFormat,
}

/// Encodes `pixels`, which are upright, in the format of `original`, with its alpha and metadata. The
/// color profile is kept if the pixels are in the color space of the original.
///
/// # Errors
/// If the original is not a valid image, or its format cannot hold the pixels or the metadata.
pub(crate) fn reencode(
    original: &[u8],
    pixels: Pixels,
    color_space: ColorSpace,
    options: &ReencodeOptions,
) -> Result<ReencodedImage, ImageError> {
    let header = probe(original)?;
    let AlphaLayer { is_gray, alpha } = decode_alpha(original, &header, options.max_pixels)?;
    let mut metadata = ImageMetadata::read(original, &header)?;
    let pixels = match options.keeps_gray && is_gray {
        true => pixels.into_gray(),
        false => pixels,
    };
    metadata.set_upright(pixels.height, pixels.width);
    if color_space == ColorSpace::Srgb {
        metadata.remove_profile();
    }
    metadata.retain_profile_of(pixels.channels);
    let alpha = alpha
        .map(|alpha| resized(alpha, pixels.height, pixels.width))
        .transpose()?;
    let (output, format) = match header.format {
        ImageFormat::Jpeg => (OutputFormat::Jpeg(options.jpeg), ImageFormat::Jpeg),
        ImageFormat::WebP => (OutputFormat::WebP, ImageFormat::WebP),
        ImageFormat::Tiff => (OutputFormat::Tiff, ImageFormat::Tiff),
        ImageFormat::Bmp => (OutputFormat::Bmp, ImageFormat::Bmp),
        ImageFormat::Pnm => (OutputFormat::Pnm, ImageFormat::Pnm),
        ImageFormat::Png | ImageFormat::Gif => (OutputFormat::Png, ImageFormat::Png),
    };
    let layers = EncodedLayers {
        pixels: &pixels,
        alpha: alpha.as_deref(),
        metadata: &metadata,
    };
    let bytes = encode_layers(layers, output)?;
    Ok(ReencodedImage { bytes, format })
}

/// Returns the values of a layer in the size of the new pixels.
fn resized(layer: Pixels, height: usize, width: usize) -> Result<Vec<u8>, ImageError> {
    if [layer.height, layer.width] == [height, width] || layer.data.is_empty() {
        return Ok(layer.data);
    }
    let mut resizer = Resizer::new(height.max(1), width.max(1), ResizeMode::Stretch);
    Ok(resizer.resize(&layer)?.to_vec())
}

#[cfg(test)]
mod tests;
