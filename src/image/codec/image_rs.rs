//! Decoding of WebP, BMP and PNM by the `image` library.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use crate::image::channel_layout::{DecodedImage, DecodedSamples, memory_limit};
use crate::image::error::ImageError;
use crate::image::exif_orientation::find_orientation;
use crate::image::info::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo};
use crate::image::value_range::{ValueRange, levels_of_16_bits};

/// Decodes the first frame.
pub(crate) fn decode(
    bytes: &[u8],
    header: &ImageInfo,
    range: Option<ValueRange>,
) -> Result<DecodedImage, ImageError> {
    let failed = |error: image::ImageError| ImageError::from_library(header.format, bytes, &error);
    let mut reader = reader(bytes, header.format);
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    limits.max_alloc = Some(memory_limit(bytes, header));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let exif = decoder.exif_metadata().map_err(failed)?;
    let xmp = decoder.xmp_metadata().map_err(failed)?;
    let orientation = find_orientation(exif.as_deref(), xmp.as_deref());
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let size = (image.width(), image.height());
    Ok(DecodedImage {
        samples: samples(image, range),
        size,
        orientation,
    })
}

/// Reads the width and height that the decoder reports, and computes its peak memory in bytes per
/// pixel: twice the bytes of its output, because it holds a complete frame before it returns it,
/// plus the converted pixels.
pub(crate) fn size(bytes: &[u8], format: ImageFormat) -> Result<((u32, u32), u64), ImageError> {
    let decoder = reader(bytes, format)
        .into_decoder()
        .map_err(|error| ImageError::from_library(format, bytes, &error))?;
    let output = u64::from(decoder.color_type().bytes_per_pixel());
    Ok((
        decoder.dimensions(),
        DECODE_BYTES_PER_PIXEL.max(2 * output + 4),
    ))
}

/// Opens an image of any of the formats.
pub(crate) fn reader(bytes: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let format = match format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::WebP => image::ImageFormat::WebP,
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Tiff => image::ImageFormat::Tiff,
        ImageFormat::Pnm => image::ImageFormat::Pnm,
    };
    ImageReader::with_format(Cursor::new(bytes), format)
}

fn samples(image: DynamicImage, range: Option<ValueRange>) -> DecodedSamples {
    let levels = |samples: &[u16]| levels_of_16_bits(samples, range);
    match image {
        DynamicImage::ImageLuma8(image) => DecodedSamples::Gray(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => DecodedSamples::GrayAlpha(image.into_raw()),
        DynamicImage::ImageRgb8(image) => DecodedSamples::Rgb(image.into_raw()),
        DynamicImage::ImageRgba8(image) => DecodedSamples::Rgba(image.into_raw()),
        DynamicImage::ImageLuma16(image) => DecodedSamples::Gray(levels(&image)),
        DynamicImage::ImageLumaA16(image) => DecodedSamples::GrayAlpha(levels(&image)),
        DynamicImage::ImageRgb16(image) => DecodedSamples::Rgb(levels(&image)),
        DynamicImage::ImageRgba16(image) => DecodedSamples::Rgba(levels(&image)),
        // None of the formats has floating-point samples.
        other => DecodedSamples::Rgb(other.into_rgb8().into_raw()),
    }
}
