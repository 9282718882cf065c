//! Encodes pixels to the bytes of an image file; equal pixels give equal bytes.

use std::borrow::Cow;

use image::codecs::bmp::BmpEncoder;
use image::codecs::pnm::{PnmEncoder, PnmSubtype, SampleEncoding};
use image::{ExtendedColorType, ImageEncoder};
use image_webp::WebPEncoder;
use png::{BitDepth, ColorType, Encoder, Info};

use crate::image::codec::tiff::encode_tiff;
use crate::image::error::ImageError;
use crate::image::info::ImageFormat;
use crate::image::jpeg_encoding::{JpegOptions, encode_jpeg};
use crate::image::metadata::ImageMetadata;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// The format in which images are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Lossless PNG.
    Png,
    /// Baseline JPEG.
    Jpeg(JpegOptions),
    /// Lossless WebP.
    WebP,
    /// TIFF, compressed without loss.
    Tiff,
    /// Windows bitmap.
    Bmp,
    /// Portable graymap or pixmap.
    Pnm,
}

impl OutputFormat {
    fn format(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg(_) => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
            Self::Tiff => ImageFormat::Tiff,
            Self::Bmp => ImageFormat::Bmp,
            Self::Pnm => ImageFormat::Pnm,
        }
    }
}

/// An image as a file stores it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedLayers<'a> {
    /// The colors.
    pub pixels: &'a Pixels,
    /// The alpha of each pixel, in formats that have one: PNG, WebP, TIFF.
    pub alpha: Option<&'a [u8]>,
    /// The metadata, as far as the format has a place for it.
    pub metadata: &'a ImageMetadata,
}

/// Encodes an image.
///
/// # Errors
/// [`ImageError::Unsupported`] if the format cannot hold an image of this size (JPEG: at most
/// 65,535 pixels per side, WebP: 16,384); [`ImageError::Malformed`] if the number of bytes does not
/// match the size.
pub fn encode(pixels: &Pixels, format: OutputFormat) -> Result<Vec<u8>, ImageError> {
    let layers = EncodedLayers {
        pixels,
        alpha: None,
        metadata: &ImageMetadata::default(),
    };
    encode_layers(layers, format)
}

/// Encodes an image with its alpha and metadata.
///
/// # Errors
/// As [`encode`], and [`ImageError::TooLarge`] if the format has no place for so large metadata.
pub(crate) fn encode_layers(
    layers: EncodedLayers<'_>,
    format: OutputFormat,
) -> Result<Vec<u8>, ImageError> {
    let Pixels {
        width,
        height,
        channels,
        data,
    } = layers.pixels;
    let unsupported = || {
        ImageError::Unsupported(format!(
            "{width} x {height} pixels cannot be written as {}",
            format.format().name()
        ))
    };
    let area = width.checked_mul(*height);
    if area.and_then(|area| area.checked_mul(channels.count())) != Some(data.len()) {
        let actual = data.len();
        return Err(ImageError::Malformed(format!(
            "{width} x {height} pixels cannot consist of {actual} bytes"
        )));
    }
    let (Ok(columns), Ok(rows)) = (u32::try_from(*width), u32::try_from(*height)) else {
        return Err(unsupported());
    };
    let (size, metadata) = ([columns, rows], layers.metadata);
    let samples = interleaved(layers.pixels, layers.alpha);
    let color = match (*channels == Channels::Gray, layers.alpha.is_some()) {
        (true, false) => ExtendedColorType::L8,
        (true, true) => ExtendedColorType::La8,
        (false, false) => ExtendedColorType::Rgb8,
        (false, true) => ExtendedColorType::Rgba8,
    };
    let mut bytes = Vec::new();
    let written = match format {
        OutputFormat::Jpeg(options) => {
            return encode_jpeg(layers.pixels, options, metadata).map_err(|error| match error {
                ImageError::Unsupported(_) => unsupported(),
                error => error,
            });
        }
        OutputFormat::Tiff => return encode_tiff(&samples, size, color, metadata),
        OutputFormat::Png => write_png(&mut bytes, &samples, size, color, metadata).is_ok(),
        OutputFormat::WebP => write_webp(&mut bytes, &samples, size, color, metadata).is_ok(),
        OutputFormat::Bmp => {
            let encoder = BmpEncoder::new(&mut bytes);
            encoder.write_image(&samples, columns, rows, color).is_ok()
        }
        OutputFormat::Pnm => {
            // By default, the library writes the newer PAM, which few programs read.
            let subtype = match color {
                ExtendedColorType::L8 => PnmSubtype::Graymap(SampleEncoding::Binary),
                _ => PnmSubtype::Pixmap(SampleEncoding::Binary),
            };
            let encoder = PnmEncoder::new(&mut bytes).with_subtype(subtype);
            encoder.write_image(&samples, columns, rows, color).is_ok()
        }
    };
    written.then_some(bytes).ok_or_else(unsupported)
}

/// Returns the samples of each pixel followed by its alpha.
fn interleaved<'a>(pixels: &'a Pixels, alpha: Option<&[u8]>) -> Cow<'a, [u8]> {
    match alpha {
        None => pixels.data.as_slice().into(),
        Some(alpha) => {
            let colors = pixels.data.chunks_exact(pixels.channels.count());
            let both = colors.zip(alpha);
            let samples = both.flat_map(|(color, value)| color.iter().chain([value]));
            samples.copied().collect::<Vec<_>>().into()
        }
    }
}

/// The keyword of an XMP packet in a PNG.
const XMP: &str = "XML:com.adobe.xmp";

fn write_png(
    bytes: &mut Vec<u8>,
    samples: &[u8],
    [width, height]: [u32; 2],
    color: ExtendedColorType,
    metadata: &ImageMetadata,
) -> Result<(), png::EncodingError> {
    let mut info = Info::with_size(width, height);
    info.bit_depth = BitDepth::Eight;
    info.color_type = match color {
        ExtendedColorType::L8 => ColorType::Grayscale,
        ExtendedColorType::La8 => ColorType::GrayscaleAlpha,
        ExtendedColorType::Rgba8 => ColorType::Rgba,
        _ => ColorType::Rgb,
    };
    info.exif_metadata = metadata.exif.as_deref().map(Into::into);
    info.icc_profile = metadata.icc.as_deref().map(Into::into);
    info.srgb = metadata.png_color.srgb;
    info.source_gamma = metadata.png_color.gamma;
    info.source_chromaticities = metadata.png_color.chromaticities;
    info.pixel_dims = metadata.pixel_dims;
    let mut encoder = Encoder::with_info(bytes, info)?;
    // As the `image` library writes them.
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    if let Some(xmp) = &metadata.xmp {
        encoder.add_itxt_chunk(XMP.to_owned(), String::from_utf8_lossy(xmp).into_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(samples)?;
    writer.finish()
}

fn write_webp(
    bytes: &mut Vec<u8>,
    samples: &[u8],
    [width, height]: [u32; 2],
    color: ExtendedColorType,
    metadata: &ImageMetadata,
) -> Result<(), image_webp::EncodingError> {
    let mut encoder = WebPEncoder::new(bytes);
    if let Some(icc) = &metadata.icc {
        encoder.set_icc_profile(icc.clone());
    }
    if let Some(exif) = &metadata.exif {
        encoder.set_exif_metadata(exif.clone());
    }
    if let Some(xmp) = &metadata.xmp {
        encoder.set_xmp_metadata(xmp.clone());
    }
    let color = match color {
        ExtendedColorType::L8 => image_webp::ColorType::L8,
        ExtendedColorType::La8 => image_webp::ColorType::La8,
        ExtendedColorType::Rgba8 => image_webp::ColorType::Rgba8,
        _ => image_webp::ColorType::Rgb8,
    };
    encoder.encode(samples, width, height, color)
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
                &encode(&pixels, OutputFormat::Jpeg(JpegOptions::of_quality(95))).unwrap(),
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
        for format in [
            OutputFormat::Jpeg(JpegOptions::of_quality(90)),
            OutputFormat::WebP,
        ] {
            let error = encode(&wide, format).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "70000 x 1 pixels cannot be written as {}",
                    format.format().name()
                )
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
