//! WebP, BMP, GIF, TIFF and PNM, by the decoders of the `image` library.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::image::decode::{Decoded, memory_limit};
use crate::image::error::ImageError;
use crate::image::header::{DECODING, Format, Header};
use crate::image::orient::orientation;
use crate::image::samples::Samples;

/// Decodes the first frame or page.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Decoded, ImageError> {
    let failed = |error: image::ImageError| ImageError::of_library(header.format, bytes, &error);
    let mut reader = reader(bytes, header.format);
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    limits.max_alloc = Some(memory_limit(bytes, header));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let orientation = match decoder.exif_metadata().map_err(failed)? {
        Some(exif) => orientation(&exif),
        // TIFF has a tag of its own for it.
        None => decoder.orientation().map_err(failed)?,
    };
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let size = (image.width(), image.height());
    Ok(Decoded { samples: samples(image), size, orientation })
}

/// Width and height as the decoder will see them, and the bytes that it takes for each pixel at its peak: twice what it gives,
/// since it holds a whole frame before it hands it over, and what becomes of that.
pub(super) fn size(bytes: &[u8], format: Format) -> Result<((u32, u32), u64), ImageError> {
    let decoder =
        reader(bytes, format).into_decoder().map_err(|error| ImageError::of_library(format, bytes, &error))?;
    let given = u64::from(decoder.color_type().bytes_per_pixel());
    Ok((decoder.dimensions(), DECODING.max(2 * given + 4)))
}

fn reader(bytes: &[u8], format: Format) -> ImageReader<Cursor<&[u8]>> {
    let format = match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::WebP => ImageFormat::WebP,
        Format::Bmp => ImageFormat::Bmp,
        Format::Gif => ImageFormat::Gif,
        Format::Tiff => ImageFormat::Tiff,
        Format::Pnm => ImageFormat::Pnm,
    };
    ImageReader::with_format(Cursor::new(bytes), format)
}

fn samples(image: DynamicImage) -> Samples {
    match image {
        DynamicImage::ImageLuma8(image) => Samples::Gray(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Samples::GrayAlpha(image.into_raw()),
        DynamicImage::ImageRgb8(image) => Samples::Rgb(image.into_raw()),
        DynamicImage::ImageRgba8(image) => Samples::Rgba(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Samples::Gray(upper(&image)),
        DynamicImage::ImageLumaA16(image) => Samples::GrayAlpha(upper(&image)),
        DynamicImage::ImageRgb16(image) => Samples::Rgb(upper(&image)),
        DynamicImage::ImageRgba16(image) => Samples::Rgba(upper(&image)),
        // Floats: 0 to 1, clamped.
        other => Samples::Rgb(other.into_rgb8().into_raw()),
    }
}

/// The upper 8 bits of each 16.
fn upper(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| sample.to_be_bytes()[0]).collect()
}
